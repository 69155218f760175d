"""JSON parsing that agrees with dbt's loader: UTF-8, stripped, as by `json.loads`."""

import json
import math
from typing import Any

import pytest

from datapilot_defer import dbt_json
from datapilot_defer.dbt_json import NotJsonError

DEPTH = 300
UNUSUAL: tuple[bytes, ...] = (
    b'{"a": 1}',
    b'\n\t {"a": 1}\r\n',
    '\u00a0{"a": 1}\u2003'.encode(),
    b'\x0b{"a": 1}\x1f',
    b'{"a": 1, "a": 2}',
    b'{"a": {"b": 1, "b": 2}}',
    b'{"a": "\\ud800"}',
    b'{"a": {"\\udfff": "\\ud83d\\ude00"}}',
    '{"ä": "日本"}'.encode(),
    b'{"a": 123456789012345678901234567890}',
    b'{"a": -0, "b": 1E5, "c": 0.1}',
    b'{"a": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    b"{}",
)
INVALID: tuple[bytes, ...] = (
    b"",
    b" ",
    b"\xef\xbb\xbf{}",
    '{"a": 1}'.encode("utf-16"),
    '{"a": 1}'.encode("utf-16-be"),
    b'{"a": "\xff"}',
    b'{"a": "\xc3',
    b'{"a": {"b": "\xe4"}}',
    b'{"a": "\x01"}',
    b'{"a": "\n"}',
    b'{"a": 1,}',
    b'{"a": [1,]}',
    b'{"a": 01}',
    b'{"a": 1.}',
    b'{"a": +1}',
    b'{"a": "\\x"}',
    b'{"a": 1} x',
    b'{"a": 1}{}',
    b'{"a": 1',
    b"{'a': 1}",
    b'{"a": nan}',
    b'{"a": NaN',
    b'{"a": NaNaN}',
    b'{"a": // no\n 1}',
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
)


def parse_like_dbt(content: bytes) -> Any:
    return json.loads(content.decode("utf-8").strip())


def parse(content: bytes) -> Any:
    return {key: dbt_json.decode(value) for key, value in dbt_json.split(content).items()}


@pytest.mark.parametrize("content", UNUSUAL, ids=lambda content: repr(content[:30]))
def test_values_are_equal_to_those_of_dbt(content: bytes) -> None:
    # An unpaired surrogate cannot be encoded as UTF-8 and becomes a question mark.
    expected = (
        json.dumps(parse_like_dbt(content), ensure_ascii=False).encode("utf-8", "replace").decode()
    )
    assert parse(content) == json.loads(expected)


@pytest.mark.parametrize("content", INVALID, ids=lambda content: repr(content[:30]))
def test_json_that_dbt_rejects_is_rejected(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_like_dbt(content)
    with pytest.raises(NotJsonError):
        parse(content)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_nonfinite_numbers_are_read_as_floats(literal: str) -> None:
    content = f'{{"a": {literal}, "b": [{literal}], "c": "{literal}"}}'.encode()
    assert not math.isfinite(parse_like_dbt(content)["a"])
    values = parse(content)
    assert isinstance(values["a"], float)
    assert isinstance(values["b"][0], float)
    assert values["c"] == literal


@pytest.mark.parametrize("content", [b"[]", b"null", b'"x"', b"5", b"[NaN]", b"NaN"])
def test_json_that_is_not_an_object_is_rejected(content: bytes) -> None:
    with pytest.raises(NotJsonError):
        dbt_json.split(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "contains only white space"),
        (b"[1]", "contains a list, but an artifact of dbt is an object"),
        (b'"x"', "contains a string, but"),
        (b"5", "contains a number, but"),
        (b"null", "contains null, but"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "is UTF-16"),
        (b'{"a": "\xe4"}', "is not UTF-8 text"),
        (b'{"a": {"b": 1}', "ends after 14 bytes"),
        (b'{"a": 1,\n "b": nope}', "invalid character at line 2, column 7, before 'nope}'"),
        (b'{"a": 1} trailing', "trailing characters at line 1, column 10, before 'trailing'"),
        (b"<<<<<<< HEAD\n{}\n=======\n", "merge conflict markers"),
        (b'{"a": 1,\n<<<<<<< HEAD\n', "merge conflict markers"),
        (b'{"a": ' + b"[" * 5000, "nested too deeply"),
    ],
)
def test_error_states_cause_and_position(content: bytes, message: str) -> None:
    with pytest.raises(NotJsonError) as raised:
        dbt_json.split(content)
    assert message in str(raised.value)


def test_object_with_too_many_keys_is_rejected() -> None:
    content = ("{" + ", ".join(f'"key {number}": 1' for number in range(10_001)) + "}").encode()
    with pytest.raises(NotJsonError, match="over 10,000 keys"):
        dbt_json.split(content)


def walked_entries(content: bytes) -> list[tuple[str, Any]]:
    entries: list[tuple[str, Any]] = []
    dbt_json.walk(dbt_json.split(content)["a"], lambda key, value: entries.append((key, value)))
    return entries


def test_walk_visits_entries_and_uses_last_repeated_key() -> None:
    assert walked_entries(b'{"a": {"x": 1, "y": [2], "x": {"z": null}}}') == [
        ("x", {"z": None}),
        ("y", [2]),
    ]


def test_walk_accepts_number_that_fast_parser_rejects() -> None:
    big = "9" * 400
    assert dict(walked_entries(f'{{"a": {{"x": {big}.5, "y": 2}}}}'.encode())) == {
        "x": math.inf,
        "y": 2,
    }


def test_walk_list_visits_items() -> None:
    for content, last in ((b'{"a": [1, null]}', None), (b'{"a": [1, 1e400]}', math.inf)):
        items: dict[int, Any] = {}
        dbt_json.walk_list(dbt_json.split(content)["a"], items.__setitem__)
        assert items == {0: 1, 1: last}


@pytest.mark.parametrize("content", [b'{"a": []}', b'{"a": null}', b'{"a": 5}'])
def test_entries_of_other_values_are_rejected(content: bytes) -> None:
    raw = dbt_json.split(content)["a"]
    for read_entries in (dbt_json.count, dbt_json.entries):
        with pytest.raises(NotJsonError):
            read_entries(raw)
    with pytest.raises(NotJsonError):
        dbt_json.walk(raw, lambda _key, _value: None)


def test_entries_are_counted_and_listed() -> None:
    raw = dbt_json.split(b'{"a": {"x": 1, "y": {"z": 2}}}')["a"]
    assert dbt_json.count(raw) == 2
    assert list(dbt_json.entries(raw)) == ["x", "y"]
