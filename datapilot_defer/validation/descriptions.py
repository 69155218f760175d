"""Descriptions of values, schemas and locations in an artifact, for messages."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datapilot_defer.validation.schema import JsonSchema

JsonPath = tuple[str | int, ...]
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MAX_VALUE_LENGTH = 60
_MAX_NAMED_PROPERTIES = 5
_TYPE_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "null": "null",
}


def format_path(path: JsonPath) -> str:
    """Return a path as text, such as `$.nodes["model.shop.orders"].columns.id.tags[0]`."""
    return "$" + "".join(_format_step(step) for step in path)


def _format_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if _IDENTIFIER.fullmatch(step):
        return f".{step}"
    return f"[{quote(step)}]"


def quote(text: str) -> str:
    """Return the text as a JSON string. Escape non-ASCII characters if any is unprintable."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def describe_value(value: Any) -> str:
    """Describe a value in a few words, such as null, "text", 12, an object or a list."""
    if value == {}:
        return "an empty object"
    if value == []:
        return "an empty list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return _shorten(quote(value[: _MAX_VALUE_LENGTH + 1]))
    return _shorten(json.dumps(value))


def _shorten(text: str) -> str:
    if len(text) <= _MAX_VALUE_LENGTH:
        return text
    return f"{text[:_MAX_VALUE_LENGTH]}…"


def describe_drift(section: str, count: int) -> str:
    """Describe how many entries of a section load but do not fit the published schema."""
    if count == 1:
        entries = f"1 entry of {section} differs"
    else:
        entries = f"{count:,} entries of {section} differ"
    return f"{entries} from the schema that dbt published: unknown properties or new values"


def source_file(entry: Any) -> str | None:
    """Return the source file of an entry, such as models/orders.sql, or None if it is unknown."""
    if not isinstance(entry, dict):
        return None
    path = entry.get("original_file_path")
    if not isinstance(path, str) or not path:
        return None
    if path.isprintable():
        return path
    return quote(path)


def describe_expected(schema: JsonSchema) -> str:
    """Describe in a few words what a schema without references requires."""
    if "title" in schema:
        return str(schema["title"])
    for keyword in ("const", "enum", "type"):
        if keyword in schema:
            return describe_keyword(keyword, schema[keyword])
    return "another value"


def describe_unknown_properties(value: dict[str, Any], schema: JsonSchema) -> str:
    """Describe the properties that a schema with `additionalProperties: false` does not allow."""
    unknown = sorted(value.keys() - schema.get("properties", {}).keys())
    names = ", ".join(quote(name) for name in unknown[:_MAX_NAMED_PROPERTIES])
    description = f"the schema does not allow {names}"
    hidden_count = len(unknown) - _MAX_NAMED_PROPERTIES
    if hidden_count > 0:
        description += f" and {hidden_count} more"
    return description


def describe_keyword(keyword: str, argument: Any) -> str:
    """Describe what one keyword of a schema requires."""
    if keyword == "type":
        return _describe_types(argument)
    if keyword == "enum":
        return "one of " + ", ".join(describe_value(value).strip('"') for value in argument)
    if keyword == "const":
        return describe_value(argument)
    if keyword == "not":
        return "another value"
    return f"{keyword} {argument}"


def _describe_types(types: str | list[str]) -> str:
    if isinstance(types, str):
        return _TYPE_NAMES[types]
    return " or ".join(_TYPE_NAMES[name] for name in types)
