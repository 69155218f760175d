"""Files with millions of small values, which need up to 100 times their size in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind, parse_artifact
from datapilot_defer.dbt_json import NotJsonError
from datapilot_defer.validation import judge_run, validate
from tests.support import manifest_variants
from tests.support.commands import datapilot

LISTS = b"[" + b"[]," * 2_000_000 + b"[]]"
OBJECTS = b"[" + b"{}," * 2_000_000 + b"{}]"
NUMBERS = b"[" + b"0," * 2_000_000 + b"0]"
KEYS = b"{" + b",".join(b'"%d":0' % number for number in range(1_100_000)) + b"}"
MAX_MEMORY_BYTES = 400_000_000


def ignore(_place: object, _value: object) -> None:
    """Ignore a value."""


def walk_list(raw: Any) -> None:
    dbt_json.walk_list(raw, ignore)


def walk(raw: Any) -> None:
    dbt_json.walk(raw, ignore)


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (dbt_json.decode, LISTS, "over 1,000,000 values in one value"),
        (walk, b'{"x": 1, "orders": ' + LISTS + b"}", "over 1,000,000 values in entry 'orders'"),
        (walk_list, b"[1, " + LISTS + b"]", "over 1,000,000 values in one list"),
        (walk_list, b'[{"x": ' + LISTS + b"}]", "over 1,000,000 values in item 0"),
        (walk_list, OBJECTS, "a list with over 1,000,000 items"),
        (walk_list, NUMBERS, "over 1,000,000 values in one list"),
    ],
)
def test_too_many_values_are_rejected_before_decoding(
    read: Callable[[Any], object], value: bytes, message: str
) -> None:
    raw = dbt_json.split(b'{"a": ' + value + b"}")["a"]
    tracemalloc.start()
    with pytest.raises(NotJsonError, match=message):
        read(raw)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < MAX_MEMORY_BYTES


def test_section_with_too_many_keys_is_rejected() -> None:
    with pytest.raises(NotJsonError, match="an object with over 1,000,000 keys"):
        walk(dbt_json.split(b'{"a": ' + KEYS + b"}")["a"])


def test_file_for_fallback_parser_has_limit() -> None:
    content = b'{"a": NaN, "b": [' + b"0," * 5_000_000 + b"0]}"
    with pytest.raises(NotJsonError, match="over 5,000,000 values"):
        dbt_json.split(content)


def test_commas_and_brackets_in_strings_are_not_counted() -> None:
    sql = 'select [1, 2], \\ "a", {{ x }}\n' * 200_000
    content = json.dumps({"a": {"sql": [sql, sql], "path": "C:\\"}}).encode()
    assert dbt_json.decode(dbt_json.split(content)["a"])["sql"] == [sql, sql]


def test_long_lists_of_typical_values_are_read() -> None:
    indexes: list[int] = []
    item = json.dumps({"unique_id": "model.shop.orders", "timing": [1, {}, []]}).encode()
    for value in (b",".join([item] * 300_000), b",".join([b'"a, b"'] * 300_000)):
        raw = dbt_json.split(b'{"a": [' + value + b"]}")["a"]
        dbt_json.walk_list(raw, lambda index, _: indexes.append(index))
        assert indexes[-1] == 299_999


def test_manifest_with_millions_of_lists_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(b"".join(manifest_variants.with_lists_in_node(6)))
    result = validate(parse_artifact(path.read_bytes(), path=str(path), kind=Kind.MANIFEST))
    assert [problem.message for problem in result.problems] == [
        "the file contains over 1,000,000 values in entry 'model.warehouse.model_00000', "
        "more than dbt ever writes"
    ]
    assert datapilot("dbt", "validate", path).exit_code == 1


def test_run_results_with_millions_of_lists_are_not_used() -> None:
    content = b'{"results": [{"x": ' + LISTS + b'}], "args": {}}'
    run_results = parse_artifact(content, path="run_results.json", kind=Kind.RUN_RESULTS)
    manifest = parse_artifact(b"{}", path="manifest.json", kind=Kind.MANIFEST)
    outcome = judge_run(manifest, run_results)
    assert outcome.unknown == "run_results.json does not contain run results of dbt"


def test_memory_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("datapilot_defer.cli.validate.read_artifact", fail)
    path = tmp_path / "manifest.json"
    path.write_text("{}", encoding="utf-8")
    done = datapilot("dbt", "validate", path)
    assert done.exit_code == 2
    assert "ran out of memory" in done.stderr
