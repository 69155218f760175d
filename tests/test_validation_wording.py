"""Descriptions of schema violations, with a case for each kind."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from datapilot_defer.validation import formats
from datapilot_defer.validation.descriptions import describe_value, format_path
from datapilot_defer.validation.schema import ArtifactSchema
from datapilot_defer.validation.violations import find_violations

TEXT = {"type": "string"}
MODEL = {
    "type": "object",
    "properties": {"resource_type": {"const": "model"}, "name": TEXT},
    "required": ["name"],
}
TEST: dict[str, Any] = {
    "type": "object",
    "properties": {"resource_type": {"enum": ["test"]}, "limit": {"type": "integer"}},
}
GENERIC: dict[str, Any] = {
    **TEST,
    "required": ["test_metadata"],
    "properties": {**TEST["properties"], "test_metadata": MODEL},
}


def violations(schema: dict[str, Any], value: Any) -> list[str]:
    return [
        f"{problem.path}: {problem.message}"
        for problem in find_violations(ArtifactSchema(schema), schema, value)
    ]


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (TEXT, None, "$: expected a string, got null"),
        ({"type": ["string", "null"]}, 5, "$: expected a string or null, got 5"),
        ({"type": "integer"}, 1.5, "$: expected an integer, got 1.5"),
        ({"type": "boolean"}, "x" * 99, f'$: expected true or false, got "{"x" * 59}…'),
        ({"title": "a date", "type": "string"}, {}, "$: expected a date, got an empty object"),
        ({"enum": ["a", "b"]}, [1], "$: expected one of a, b, got a list"),
        ({"const": "model"}, "view", '$: expected "model", got "view"'),
        ({"not": {"const": ""}}, "", '$: expected another value, got ""'),
        ({"minItems": 1}, [], "$: expected a list with at least 1 entry, got an empty list"),
        ({"maxProperties": 0}, {"a": 1}, "$: expected maxProperties 0, got an object"),
        ({"required": ["a"]}, {}, '$: "a" is missing'),
        ({"additionalProperties": False}, {"x": 1}, '$: the schema does not allow "x"'),
        (
            {"additionalProperties": False, "properties": {"a": {}}},
            dict.fromkeys("abcdefgh"),
            '$: the schema does not allow "b", "c", "d", "e", "f" and 2 more',
        ),
        ({"additionalProperties": TEXT}, {"a b": 1}, '$["a b"]: expected a string, got 1'),
        ({"items": TEXT}, ["x", 5], "$[1]: expected a string, got 5"),
        ({"allOf": [{"properties": {"a": TEXT}}]}, {"a": 1}, "$.a: expected a string, got 1"),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, '$: "b" is missing'),
        ({"if": {"required": ["a"]}, "else": {"required": ["b"]}}, {}, '$: "b" is missing'),
        ({"anyOf": [{"type": "null"}, TEXT]}, 5, "$: expected null or a string, got 5"),
        ({"anyOf": [{"const": 1}, {"enum": [2, 3]}]}, 5, "$: expected 1 or one of 2, 3, got 5"),
        ({"anyOf": [{"type": "null"}, MODEL]}, {"name": 1}, "$.name: expected a string, got 1"),
        (
            {"anyOf": [{"type": "null"}, {"items": TEXT, "type": "array"}]},
            [1],
            "$[0]: expected a string, got 1",
        ),
        (
            {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            1.5,
            "$: expected an integer, got 1.5",
        ),
        (
            {"title": "one or two", "anyOf": [{"const": 1}, {"const": 2}]},
            3,
            "$: expected one or two, got 3",
        ),
        ({"oneOf": [TEXT, {"type": "null"}]}, 5, "$: expected a string or null, got 5"),
        (
            {"oneOf": [TEXT, {}]},
            "x",
            '$: "x" matches more than one of the alternatives in the schema',
        ),
        ({"anyOf": [MODEL, TEST]}, {"resource_type": "model"}, '$: "name" is missing'),
        (
            {"anyOf": [MODEL, TEST]},
            {"resource_type": "view"},
            '$.resource_type: expected one of model, test, got "view"',
        ),
        ({"anyOf": [MODEL, GENERIC]}, {}, '$: "resource_type" is missing'),
        ({"anyOf": [MODEL, TEST]}, 5, "$: expected an object, got 5"),
        (
            {"anyOf": [TEST, GENERIC]},
            {"resource_type": "test", "limit": "x", "test_metadata": {"name": "unique"}},
            '$.limit: expected an integer, got "x"',
        ),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, '$: expected maxLength 1, got "ab"'),
        (
            {"unevaluatedProperties": False, "allOf": [{}]},
            {"a": 1},
            "$: expected unevaluatedProperties False, got an object",
        ),
    ],
)
def test_each_kind_of_violation_is_described(
    schema: dict[str, Any], value: Any, expected: str
) -> None:
    assert violations(schema, value) == [expected]


def test_test_with_metadata_is_validated_as_generic_test() -> None:
    schema = {"anyOf": [TEST, GENERIC]}
    generic = {"resource_type": "test", "limit": "x", "test_metadata": {"name": 5}}
    assert violations(schema, generic) == [
        '$.limit: expected an integer, got "x"',
        "$.test_metadata.name: expected a string, got 5",
    ]
    assert violations(schema, {"resource_type": "test", "limit": "x"}) == [
        '$.limit: expected an integer, got "x"'
    ]


def test_late_error_in_large_value_is_found() -> None:
    schema = {"items": {"properties": {"a": {"items": TEXT}}}}
    assert violations(schema, [{"a": ["x"]}] * 5000 + [{"a": ["x", None]}]) == [
        "$[5000].a[1]: expected a string, got null"
    ]


def test_references_are_resolved_in_both_drafts() -> None:
    for keyword, draft in (
        ("definitions", "http://json-schema.org/draft-07/schema#"),
        ("$defs", None),
    ):
        schema: dict[str, Any] = {
            keyword: {"a": TEXT, "b": {"$ref": f"#/{keyword}/a"}},
            "properties": {"x": {"$ref": f"#/{keyword}/b"}},
        }
        schema |= {"$schema": draft} if draft else {}
        assert violations(schema, {"x": 1}) == ["$.x: expected a string, got 1"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), "$"),
        (
            ("nodes", "model.shop.orders", "columns", "id", "tags", 0),
            '$.nodes["model.shop.orders"].columns.id.tags[0]',
        ),
        (("a b", 'c"d', "1", "é"), '$["a b"]["c\\"d"]["1"]["é"]'),
        (("\x1b[0m",), '$["\\u001b[0m"]'),
    ],
)
def test_path_is_formatted(path: tuple[str | int, ...], expected: str) -> None:
    assert format_path(path) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "null"), (True, "true"), ("é", '"é"'), ({}, "an empty object"), ([0], "a list")],
)
def test_value_is_described(value: Any, expected: str) -> None:
    assert describe_value(value) == expected


@pytest.mark.parametrize("text", ["5", " 5 ", "-5", "1_000", "٣", "5.5", "x", "", "0x1"])
@pytest.mark.parametrize(
    ("is_valid", "convert"), [(formats.is_python_int, int), (formats.is_python_float, float)]
)
def test_number_formats_agree_with_python(
    text: str, is_valid: Callable[[object], bool], convert: Callable[[str], object]
) -> None:
    assert is_valid(text) == _converts(convert, text)


@pytest.mark.parametrize(
    "text", ["652de556-11cd-4687-8317-7c928b732889", "{652de55611cd468783177c928b732889}", "x", ""]
)
def test_uuid_format_agrees_with_python(text: str) -> None:
    assert formats.is_python_uuid(text) == _converts(uuid.UUID, text)


def _converts(convert: Callable[[str], object], text: str) -> bool:
    try:
        convert(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("2026-11-22", True),
        ("2026-11-22T10:44:33.741559Z", True),
        ("2026-11-22 10:44:33+02:00", True),
        ("2026-11-22T10:44", True),
        ("2026-13-22", False),
        ("2026-11-31T00:00:00Z", False),
        ("1.8.3", True),
        ("1.0.0", False),
        ("12", True),
        ("0", False),
        ("2026", True),
        ("", False),
        ("last night", False),
    ],
)
def test_date_format_agrees_with_dateutil(text: str, is_valid: bool) -> None:
    assert formats.is_dateutil_date(text) is is_valid


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("grant select on {{ this }} to reporter", True),
        ("", True),
        ('{"sql": "select 1"}', True),
        ('{"sql": "select 1", "index": 1}', True),
        ('{"sql": "select 1", "index": "x"}', False),
        ('{"sql": "select 1", "index": []}', False),
        ('{"transaction": true}', False),
        ("5", False),
        ("null", False),
        ('["select 1"]', False),
    ],
)
def test_hook_format_agrees_with_dbt(text: str, is_valid: bool) -> None:
    assert formats.is_dbt_hook(text) is is_valid


def test_string_instead_of_list_of_hooks_is_checked_by_character() -> None:
    assert formats.is_list_of_dbt_hooks("select x")
    assert not formats.is_list_of_dbt_hooks("select 1")


@pytest.mark.parametrize("is_valid", formats.FORMATS.values(), ids=list(formats.FORMATS))
def test_formats_accept_values_that_are_not_strings(is_valid: Callable[[object], bool]) -> None:
    others: tuple[object, ...] = (None, 5, 1.5, True, [], {})
    assert all(is_valid(value) for value in others)
