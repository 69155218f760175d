"""Where a value breaks a schema, and how to say it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.result import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datapilot_defer.validation.schema import ArtifactSchema, JsonSchema

JsonPath = tuple[str | int, ...]
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MAX_VALUE_LENGTH = 60
_TYPE_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}


def format_path(path: JsonPath) -> str:
    """`$.nodes["model.shop.orders"].columns.id.tags[0]`."""
    text = "$"
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _IDENTIFIER.fullmatch(part) else f"[{quote(part)}]"
    return text


def quote(value: str) -> str:
    """In quotes, and with nothing that a terminal would obey."""
    return json.dumps(value, ensure_ascii=not value.isprintable())


def describe_value(value: Any) -> str:
    """A value in a few words: null, 'text', 12, an object, a list."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = quote(value[: _MAX_VALUE_LENGTH + 1]) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}…"


def source_file(value: Any) -> str | None:
    """The file that an entry was written in, such as models/orders.sql."""
    found = value.get("original_file_path") if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        return None
    return found if found.isprintable() else quote(found)


def find_violations(
    rules: ArtifactSchema, schema: JsonSchema, value: Any, path: JsonPath = ()
) -> Iterator[Problem]:
    """Each place where the value breaks the schema, one at a time.

    Parts that are valid are passed over by the fast validator, so that a late error in a large entry is found soon.
    """
    schema = rules.resolve(schema)
    if rules.accepts(schema, value):
        return
    found = False
    for problem in find_own_violations(rules, schema, value, path):
        found = True
        yield problem
    for problem in _find_nested(rules, schema, value, path):
        found = True
        yield problem
    if not found:
        yield Problem(
            format_path(path),
            f"expected {describe_expected(rules, schema)}, got {describe_value(value)}",
        )


def find_own_violations(
    rules: ArtifactSchema, schema: JsonSchema, value: Any, path: JsonPath = ()
) -> Iterator[Problem]:
    """Where the value breaks the schema itself, leaving aside the schemas of its members and alternatives."""
    for error in rules.own_errors(schema, value):
        yield Problem(format_path(path), _describe_error(error, schema))


def _find_nested(
    rules: ArtifactSchema, schema: JsonSchema, value: Any, path: JsonPath
) -> Iterator[Problem]:
    yield from _find_in_members(rules, schema, value, path)
    for part in schema.get("allOf", ()):
        yield from find_violations(rules, part, value, path)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            yield from _find_in_alternatives(rules, schema, keyword, value, path)
    if "if" in schema:
        part = schema.get("then" if rules.accepts(schema["if"], value) else "else")
        if isinstance(part, dict):
            yield from find_violations(rules, part, value, path)


def _find_in_members(
    rules: ArtifactSchema, schema: JsonSchema, value: Any, path: JsonPath
) -> Iterator[Problem]:
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name, part in properties.items():
            if name in value and isinstance(part, dict):
                yield from find_violations(rules, part, value[name], (*path, name))
        if isinstance(rest, dict):
            for name in value.keys() - properties.keys():
                yield from find_violations(rules, rest, value[name], (*path, name))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, item in enumerate(value):
            yield from find_violations(rules, schema["items"], item, (*path, number))


def _find_in_alternatives(
    rules: ArtifactSchema, schema: JsonSchema, keyword: str, value: Any, path: JsonPath
) -> Iterator[Problem]:
    """By the alternative that the value comes nearest to: of its resource type, or of its JSON type."""
    parts = schema[keyword]
    fitting = [part for part in parts if rules.accepts(part, value)]
    if (fitting and keyword == "anyOf") or len(fitting) == 1:
        return
    if "title" in schema:
        yield Problem(format_path(path), f"expected {schema['title']}, got {describe_value(value)}")
        return
    if fitting:
        yield Problem(
            format_path(path),
            f"{describe_value(value)} fits more than one of the forms that the schema allows",
        )
        return
    chosen = rules.alternatives_for(schema, value)
    near = _of_matching_type(rules, chosen or [], value) or _of_matching_type(rules, parts, value)
    if chosen is None and isinstance(value, dict) and rules.resource_types(schema):
        yield _unknown_resource_type(rules.resource_types(schema), value, path)
    elif not near or (len(near) > 1 and not isinstance(value, dict)):
        wanted = " or ".join(dict.fromkeys(describe_expected(rules, part) for part in parts))
        yield Problem(format_path(path), f"expected {wanted}, got {describe_value(value)}")
    else:
        yield from find_violations(rules, _closest_alternative(rules, near, value), value, path)


def _of_matching_type(
    rules: ArtifactSchema, parts: list[JsonSchema], value: Any
) -> list[JsonSchema]:
    return [part for part in parts if _has_json_type(rules.resolve(part), value)]


def _unknown_resource_type(kinds: list[str], value: dict[str, Any], path: JsonPath) -> Problem:
    if "resource_type" not in value:
        return Problem(format_path(path), '"resource_type" is missing')
    wanted = ", ".join(dict.fromkeys(kinds))
    return Problem(
        format_path((*path, "resource_type")),
        f"expected one of {wanted}, got {describe_value(value['resource_type'])}",
    )


def _has_json_type(schema: JsonSchema, value: Any) -> bool:
    kinds = schema.get("type", list(_TYPE_NAMES))
    kind = next(name for name, cls in _PYTHON_TYPES if isinstance(value, cls))
    return (
        kind in kinds
        if isinstance(kinds, list)
        else kind == kinds or (kind, kinds) == ("number", "integer")
    )


_PYTHON_TYPES: tuple[tuple[str, Any], ...] = (
    ("boolean", bool),
    ("null", type(None)),
    ("object", dict),
    ("array", list),
    ("string", str),
    ("number", (int, float)),
)


def _closest_alternative(rules: ArtifactSchema, parts: list[JsonSchema], value: Any) -> JsonSchema:
    """The one whose required properties are there, such as a generic test's test_metadata."""

    def present(part: JsonSchema) -> tuple[bool, int]:
        names = rules.resolve(part).get("required", ())
        missing = [name for name in names if not isinstance(value, dict) or name not in value]
        return not missing, len(names) - 2 * len(missing)

    return max(parts, key=present)


def describe_expected(rules: ArtifactSchema, schema: JsonSchema) -> str:
    """What a schema asks for, in a few words."""
    schema = rules.resolve(schema)
    if "title" in schema:
        return str(schema["title"])
    if "const" in schema:
        return describe_value(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(describe_value(value).strip('"') for value in schema["enum"])
    kinds = schema.get("type", [])
    names = [_TYPE_NAMES[kind] for kind in (kinds if isinstance(kinds, list) else [kinds])]
    return " or ".join(names) or "another value"


def _describe_error(error: Any, schema: JsonSchema) -> str:
    value, keyword = error.instance, error.validator
    if keyword == "required":
        return f"{quote(_missing_property(error))} is missing"
    if keyword == "additionalProperties":
        extra = sorted(value.keys() - schema.get("properties", {}).keys())
        names = ", ".join(map(quote, extra[:5]))
        return f"the schema knows no {names}" + (
            f" and {len(extra) - 5} more" if len(extra) > 5 else ""
        )
    if keyword == "minItems":
        return f"expected a list with at least {error.validator_value} entry, got {describe_value(value)}"
    title = schema.get("title") or _describe_keyword(keyword, error.validator_value)
    return f"expected {title}, got {describe_value(value)}"


def _missing_property(error: Any) -> str:
    # jsonschema yields one error for each missing name, and gives the name only in its message.
    found = re.match(r"'(.*)' is a required property", error.message)
    return found.group(1) if found else "a required property"


def _describe_keyword(keyword: str, wanted: Any) -> str:
    if keyword == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        return " or ".join(_TYPE_NAMES[kind] for kind in kinds)
    if keyword == "enum":
        return "one of " + ", ".join(describe_value(value).strip('"') for value in wanted)
    if keyword == "const":
        return describe_value(wanted)
    return "another value" if keyword == "not" else f"{keyword} {wanted}"
