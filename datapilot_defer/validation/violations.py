"""Where a value breaks a schema, and how to say it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.result import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datapilot_defer.validation.schema import Rules, Schema

Path = tuple[str | int, ...]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LONG = 60
_KINDS = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}


def spell(path: Path) -> str:
    """`$.nodes["model.shop.orders"].columns.id.tags[0]`."""
    text = "$"
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _NAME.fullmatch(part) else f"[{_quoted(part)}]"
    return text


def _quoted(value: str) -> str:
    """In quotes, and with nothing that a terminal would obey."""
    return json.dumps(value, ensure_ascii=not value.isprintable())


def describe(value: Any) -> str:
    """A value in a few words: null, 'text', 12, an object, a list."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = _quoted(value[: _LONG + 1]) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"


def source_file(value: Any) -> str | None:
    """The file that an entry was written in, such as models/orders.sql."""
    found = value.get("original_file_path") if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        return None
    return found if found.isprintable() else _quoted(found)


def find(rules: Rules, schema: Schema, value: Any, path: Path = ()) -> Iterator[Problem]:
    """Each place where the value breaks the schema, one at a time.

    Parts that are valid are passed over by the fast validator, so that a late error in a large entry is found soon.
    """
    schema = rules.resolve(schema)
    if rules.fits(schema, value):
        return
    found = False
    for problem in own(rules, schema, value, path):
        found = True
        yield problem
    for problem in _below(rules, schema, value, path):
        found = True
        yield problem
    if not found:
        yield Problem(spell(path), f"expected {expected(rules, schema)}, got {describe(value)}")


def own(rules: Rules, schema: Schema, value: Any, path: Path = ()) -> Iterator[Problem]:
    """Where the value breaks the schema itself, leaving aside the schemas of its members and alternatives."""
    for error in rules.leaves(schema, value):
        yield Problem(spell(path), _say(error, schema))


def _below(rules: Rules, schema: Schema, value: Any, path: Path) -> Iterator[Problem]:
    yield from _members(rules, schema, value, path)
    for part in schema.get("allOf", ()):
        yield from find(rules, part, value, path)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            yield from _alternatives(rules, schema, keyword, value, path)
    if "if" in schema:
        part = schema.get("then" if rules.fits(schema["if"], value) else "else")
        if isinstance(part, dict):
            yield from find(rules, part, value, path)


def _members(rules: Rules, schema: Schema, value: Any, path: Path) -> Iterator[Problem]:
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name, part in properties.items():
            if name in value and isinstance(part, dict):
                yield from find(rules, part, value[name], (*path, name))
        if isinstance(rest, dict):
            for name in value.keys() - properties.keys():
                yield from find(rules, rest, value[name], (*path, name))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for number, item in enumerate(value):
            yield from find(rules, schema["items"], item, (*path, number))


def _alternatives(
    rules: Rules, schema: Schema, keyword: str, value: Any, path: Path
) -> Iterator[Problem]:
    """By the alternative that the value comes nearest to: of its resource type, or of its JSON type."""
    parts = schema[keyword]
    fitting = [part for part in parts if rules.fits(part, value)]
    if (fitting and keyword == "anyOf") or len(fitting) == 1:
        return
    if "title" in schema:
        yield Problem(spell(path), f"expected {schema['title']}, got {describe(value)}")
        return
    if fitting:
        yield Problem(
            spell(path), f"{describe(value)} fits more than one of the forms that the schema allows"
        )
        return
    chosen = rules.choose(schema, value)
    near = _near(rules, chosen or [], value) or _near(rules, parts, value)
    if chosen is None and isinstance(value, dict) and rules.kinds(schema):
        yield _unknown_kind(rules.kinds(schema), value, path)
    elif not near or (len(near) > 1 and not isinstance(value, dict)):
        wanted = " or ".join(dict.fromkeys(expected(rules, part) for part in parts))
        yield Problem(spell(path), f"expected {wanted}, got {describe(value)}")
    else:
        yield from find(rules, _nearest(rules, near, value), value, path)


def _near(rules: Rules, parts: list[Schema], value: Any) -> list[Schema]:
    return [part for part in parts if _may_be(rules.resolve(part), value)]


def _unknown_kind(kinds: list[str], value: dict[str, Any], path: Path) -> Problem:
    if "resource_type" not in value:
        return Problem(spell(path), '"resource_type" is missing')
    wanted = ", ".join(dict.fromkeys(kinds))
    return Problem(
        spell((*path, "resource_type")),
        f"expected one of {wanted}, got {describe(value['resource_type'])}",
    )


def _may_be(schema: Schema, value: Any) -> bool:
    kinds = schema.get("type", list(_KINDS))
    kind = next(name for name, cls in _TYPES if isinstance(value, cls))
    return (
        kind in kinds
        if isinstance(kinds, list)
        else kind == kinds or (kind, kinds) == ("number", "integer")
    )


_TYPES: tuple[tuple[str, Any], ...] = (
    ("boolean", bool),
    ("null", type(None)),
    ("object", dict),
    ("array", list),
    ("string", str),
    ("number", (int, float)),
)


def _nearest(rules: Rules, parts: list[Schema], value: Any) -> Schema:
    """The one whose required properties are there, such as a generic test's test_metadata."""

    def present(part: Schema) -> tuple[bool, int]:
        names = rules.resolve(part).get("required", ())
        missing = [name for name in names if not isinstance(value, dict) or name not in value]
        return not missing, len(names) - 2 * len(missing)

    return max(parts, key=present)


def expected(rules: Rules, schema: Schema) -> str:
    """What a schema asks for, in a few words."""
    schema = rules.resolve(schema)
    if "title" in schema:
        return str(schema["title"])
    if "const" in schema:
        return describe(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(describe(value).strip('"') for value in schema["enum"])
    kinds = schema.get("type", [])
    names = [_KINDS[kind] for kind in (kinds if isinstance(kinds, list) else [kinds])]
    return " or ".join(names) or "another value"


def _say(error: Any, schema: Schema) -> str:
    value, keyword = error.instance, error.validator
    if keyword == "required":
        return f"{_quoted(_missing(error))} is missing"
    if keyword == "additionalProperties":
        extra = sorted(value.keys() - schema.get("properties", {}).keys())
        names = ", ".join(map(_quoted, extra[:5]))
        return f"the schema knows no {names}" + (
            f" and {len(extra) - 5} more" if len(extra) > 5 else ""
        )
    if keyword == "minItems":
        return f"expected a list with at least {error.validator_value} entry, got {describe(value)}"
    title = schema.get("title") or _from_keyword(keyword, error.validator_value)
    return f"expected {title}, got {describe(value)}"


def _missing(error: Any) -> str:
    # jsonschema yields one error for each missing name, and gives the name only in its message.
    found = re.match(r"'(.*)' is a required property", error.message)
    return found.group(1) if found else "a required property"


def _from_keyword(keyword: str, wanted: Any) -> str:
    if keyword == "type":
        kinds = wanted if isinstance(wanted, list) else [wanted]
        return " or ".join(_KINDS[kind] for kind in kinds)
    if keyword == "enum":
        return "one of " + ", ".join(describe(value).strip('"') for value in wanted)
    if keyword == "const":
        return describe(wanted)
    return "another value" if keyword == "not" else f"{keyword} {wanted}"
