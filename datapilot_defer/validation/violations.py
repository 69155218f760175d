"""Locations where a value violates a schema."""

from __future__ import annotations

from itertools import chain, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.descriptions import (
    describe_expected,
    describe_keyword,
    describe_unknown_properties,
    describe_value,
    format_path,
    quote,
)
from datapilot_defer.validation.result import Problem, ProblemCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from datapilot_defer.validation.descriptions import JsonPath
    from datapilot_defer.validation.schema import ArtifactSchema, JsonSchema

# The order matters, because bool is a subclass of int.
_PYTHON_TYPES: tuple[tuple[str, Any], ...] = (
    ("boolean", bool),
    ("null", type(None)),
    ("object", dict),
    ("array", list),
    ("string", str),
    ("number", (int, float)),
)


def find_violations(
    artifact_schema: ArtifactSchema, schema: JsonSchema, value: Any, path: JsonPath = ()
) -> Iterator[Problem]:
    """Find each location where the value violates the schema, one at a time.

    The fast validator skips valid parts, so a violation at the end of a large entry is found
    quickly.
    """
    schema = artifact_schema.resolve(schema)
    if artifact_schema.accepts(schema, value):
        return
    is_explained = False
    for problem in chain(
        find_own_violations(artifact_schema, schema, value, path),
        _find_nested(artifact_schema, schema, value, path),
    ):
        is_explained = True
        yield problem
    if not is_explained:
        yield _unexpected_value(path, describe_expected(schema), value)


def find_own_violations(
    artifact_schema: ArtifactSchema, schema: JsonSchema, value: Any, path: JsonPath = ()
) -> Iterator[Problem]:
    """Find violations of the schema's own keywords, without those of its subschemas."""
    errors = artifact_schema.own_errors(schema, value)
    for keyword, group in groupby(errors, key=attrgetter("validator")):
        if keyword == "required":
            # jsonschema yields an error for each missing property but names it only in its message.
            yield from _missing_properties(next(group), path)
        else:
            for error in group:
                yield Problem(format_path(path), _describe_error(error, schema))


def _missing_properties(error: Any, path: JsonPath) -> Iterator[Problem]:
    for name in error.validator_value:
        if name not in error.instance:
            yield _missing_property(path, name)


def _missing_property(path: JsonPath, name: str) -> Problem:
    message = f"{quote(name)} is missing"
    return Problem(format_path(path), message, code=ProblemCode.MISSING_PROPERTY)


def _unexpected_value(path: JsonPath, expected: str, value: Any) -> Problem:
    return Problem(format_path(path), f"expected {expected}, got {describe_value(value)}")


def _find_nested(
    artifact_schema: ArtifactSchema, schema: JsonSchema, value: Any, path: JsonPath
) -> Iterator[Problem]:
    for part, member, member_path in _members(schema, value, path):
        yield from find_violations(artifact_schema, part, member, member_path)
    for part in schema.get("allOf", ()):
        yield from find_violations(artifact_schema, part, value, path)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            yield from _find_in_alternatives(artifact_schema, schema, keyword, value, path)
    if "if" in schema:
        branch = "else"
        if artifact_schema.accepts(schema["if"], value):
            branch = "then"
        if isinstance(schema.get(branch), dict):
            yield from find_violations(artifact_schema, schema[branch], value, path)


def _members(
    schema: JsonSchema, value: Any, path: JsonPath
) -> Iterator[tuple[JsonSchema, Any, JsonPath]]:
    """Return the schema, value and path of each property or item that has a schema."""
    if isinstance(value, dict):
        return _properties(schema, value, path)
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return ((schema["items"], item, (*path, index)) for index, item in enumerate(value))
    return iter(())


def _properties(
    schema: JsonSchema, value: dict[str, Any], path: JsonPath
) -> Iterator[tuple[JsonSchema, Any, JsonPath]]:
    properties = schema.get("properties", {})
    for name, part in properties.items():
        if name in value and isinstance(part, dict):
            yield part, value[name], (*path, name)
    other_properties = schema.get("additionalProperties")
    if isinstance(other_properties, dict):
        for name, member in value.items():
            if name not in properties:
                yield other_properties, member, (*path, name)


def _find_in_alternatives(
    artifact_schema: ArtifactSchema, schema: JsonSchema, keyword: str, value: Any, path: JsonPath
) -> Iterator[Problem]:
    """Find violations of `anyOf` or `oneOf`."""
    accepting = [part for part in schema[keyword] if artifact_schema.accepts(part, value)]
    if len(accepting) == 1 or (accepting and keyword == "anyOf"):
        return
    if "title" in schema:
        yield _unexpected_value(path, schema["title"], value)
    elif accepting:
        message = "matches more than one of the alternatives in the schema"
        yield Problem(format_path(path), f"{describe_value(value)} {message}")
    else:
        yield from _find_in_closest(artifact_schema, schema, schema[keyword], value, path)


def _find_in_closest(
    artifact_schema: ArtifactSchema,
    schema: JsonSchema,
    alternatives: list[JsonSchema],
    value: Any,
    path: JsonPath,
) -> Iterator[Problem]:
    """Find violations of the alternative that is closest to the value.

    It is chosen from the alternatives for the value's resource type, or from all of them if there
    are none, that allow the value's JSON type. If no alternative can be chosen, the only violation
    is the value itself or its resource type.
    """
    candidates = artifact_schema.alternatives_for(schema, value)
    if candidates is None and isinstance(value, dict):
        resource_types = artifact_schema.resource_types(schema)
        if resource_types:
            yield _unknown_resource_type(resource_types, value, path)
            return
    matching = _of_matching_type(artifact_schema, candidates or [], value)
    matching = matching or _of_matching_type(artifact_schema, alternatives, value)
    if not matching or (len(matching) > 1 and not isinstance(value, dict)):
        expected = (describe_expected(artifact_schema.resolve(part)) for part in alternatives)
        yield _unexpected_value(path, _join_unique(" or ", expected), value)
    else:
        closest = _closest_alternative(artifact_schema, matching, value)
        yield from find_violations(artifact_schema, closest, value, path)


def _of_matching_type(
    artifact_schema: ArtifactSchema, alternatives: list[JsonSchema], value: Any
) -> list[JsonSchema]:
    return [part for part in alternatives if _has_json_type(artifact_schema.resolve(part), value)]


def _unknown_resource_type(
    resource_types: list[str], value: dict[str, Any], path: JsonPath
) -> Problem:
    if "resource_type" not in value:
        return _missing_property(path, "resource_type")
    expected = f"one of {_join_unique(', ', resource_types)}"
    return _unexpected_value((*path, "resource_type"), expected, value["resource_type"])


def _join_unique(separator: str, texts: Iterable[str]) -> str:
    return separator.join(dict.fromkeys(texts))


def _has_json_type(schema: JsonSchema, value: Any) -> bool:
    types = schema.get("type")
    if types is None:
        return True
    json_type = next(name for name, python_type in _PYTHON_TYPES if isinstance(value, python_type))
    if isinstance(types, list):
        return json_type in types
    return json_type == types or (json_type == "number" and types == "integer")


def _closest_alternative(
    artifact_schema: ArtifactSchema, alternatives: list[JsonSchema], value: Any
) -> JsonSchema:
    """Return the alternative whose required properties fit the value best.

    For example, a value with `test_metadata` fits the alternative for a generic test best.
    """

    def closeness(part: JsonSchema) -> tuple[bool, int]:
        names = artifact_schema.resolve(part).get("required", ())
        missing = [name for name in names if not isinstance(value, dict) or name not in value]
        return not missing, len(names) - 2 * len(missing)

    return max(alternatives, key=closeness)


def _describe_error(error: Any, schema: JsonSchema) -> str:
    actual = describe_value(error.instance)
    if error.validator == "additionalProperties":
        return describe_unknown_properties(error.instance, schema)
    if error.validator == "minItems":
        return f"expected a list with at least {error.validator_value} entry, got {actual}"
    expected = schema.get("title") or describe_keyword(error.validator, error.validator_value)
    return f"expected {expected}, got {actual}"
