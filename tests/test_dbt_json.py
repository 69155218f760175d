"""JSON is read as dbt's loader reads it: decoded as UTF-8, stripped, parsed by `json.loads`."""

import json
import math
from typing import Any

import pytest

from datapilot_defer import dbt_json
from datapilot_defer.dbt_json import NotJsonError

DEEP = 300
ODD: tuple[bytes, ...] = (
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
    b'{"a": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b"{}",
)
BAD: tuple[bytes, ...] = (
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


def as_dbt(content: bytes) -> Any:
    return json.loads(content.decode("utf-8").strip())


def as_we(content: bytes) -> Any:
    return {key: dbt_json.decode(value) for key, value in dbt_json.split(content).items()}


@pytest.mark.parametrize("content", ODD, ids=lambda content: repr(content[:30]))
def test_what_dbts_parser_reads_we_read_the_same(content: bytes) -> None:
    # Half a surrogate pair cannot be encoded as UTF-8: it becomes a question mark.
    expected = json.dumps(as_dbt(content), ensure_ascii=False).encode("utf-8", "replace").decode()
    assert as_we(content) == json.loads(expected)


@pytest.mark.parametrize("content", BAD, ids=lambda content: repr(content[:30]))
def test_what_dbts_parser_refuses_we_refuse(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        as_dbt(content)
    with pytest.raises(NotJsonError):
        as_we(content)


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_numbers_that_json_does_not_know_are_read_as_some_number(written: str) -> None:
    content = f'{{"a": {written}, "b": [{written}], "c": "{written}"}}'.encode()
    assert not math.isfinite(as_dbt(content)["a"])
    found = as_we(content)
    assert isinstance(found["a"], float)
    assert isinstance(found["b"][0], float)
    assert found["c"] == written


@pytest.mark.parametrize("content", [b"[]", b"null", b'"x"', b"5", b"[NaN]", b"NaN"])
def test_json_that_is_not_an_object_is_refused(content: bytes) -> None:
    with pytest.raises(NotJsonError):
        dbt_json.split(content)


@pytest.mark.parametrize(
    ("content", "words"),
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
def test_a_refusal_says_why_and_where(content: bytes, words: str) -> None:
    with pytest.raises(NotJsonError) as refused:
        dbt_json.split(content)
    assert words in str(refused.value)


def test_an_object_with_more_keys_than_any_artifact_is_refused_before_it_fills_the_memory() -> None:
    content = ("{" + ", ".join(f'"key {number}": 1' for number in range(10_001)) + "}").encode()
    with pytest.raises(NotJsonError, match="over 10,000 keys"):
        dbt_json.split(content)


def visits(content: bytes) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []
    dbt_json.walk(dbt_json.split(content)["a"], lambda key, value: seen.append((key, value)))
    return seen


def test_a_mapping_is_walked_entry_by_entry_and_of_a_repeated_key_the_last_counts() -> None:
    assert visits(b'{"a": {"x": 1, "y": [2], "x": {"z": null}}}') == [
        ("x", {"z": None}),
        ("y", [2]),
    ]


def test_a_number_that_the_fast_parser_refuses_is_walked_all_the_same() -> None:
    big = "9" * 400
    assert dict(visits(f'{{"a": {{"x": {big}.5, "y": 2}}}}'.encode())) == {"x": math.inf, "y": 2}


def test_a_list_is_walked_item_by_item() -> None:
    for content, last in ((b'{"a": [1, null]}', None), (b'{"a": [1, 1e400]}', math.inf)):
        seen: dict[int, Any] = {}
        dbt_json.walk_list(dbt_json.split(content)["a"], seen.__setitem__)
        assert seen == {0: 1, 1: last}


@pytest.mark.parametrize("content", [b'{"a": []}', b'{"a": null}', b'{"a": 5}'])
def test_only_mappings_have_entries(content: bytes) -> None:
    raw = dbt_json.split(content)["a"]
    for look in (dbt_json.count, dbt_json.entries):
        with pytest.raises(NotJsonError):
            look(raw)
    with pytest.raises(NotJsonError):
        dbt_json.walk(raw, lambda _key, _value: None)


def test_entries_are_counted_without_being_kept() -> None:
    raw = dbt_json.split(b'{"a": {"x": 1, "y": {"z": 2}}}')["a"]
    assert dbt_json.count(raw) == 2
    assert list(dbt_json.entries(raw)) == ["x", "y"]
