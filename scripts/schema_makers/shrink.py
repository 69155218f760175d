"""Shrink a JSON schema without changing the values that it accepts, and list its leaves."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

ANNOTATIONS = ("title", "description", "default", "examples", "$comment")
MAPS = ("properties", "patternProperties", "$defs", "definitions")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "propertyNames", "contains")
WORTH_SHARING = 80  # In characters. A reference needs about 25.


def shrink(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove annotations and move repeated subschemas to shared definitions."""
    bare = map_schemas(schema, strip)
    counts: Counter[str] = Counter()

    def count(inner: dict[str, Any]) -> dict[str, Any]:
        counts.update([text(inner)])
        return inner

    map_schemas(bare, count)
    keyword = "$defs"
    if "draft-07" in bare.get("$schema", "") or "definitions" in bare:
        keyword = "definitions"
    shared: dict[str, str] = {}

    def replace(inner: dict[str, Any]) -> dict[str, Any]:
        key = text(inner)
        if key in known and inner is not bare:
            name = shared.setdefault(key, f"s{len(shared)}")
            return {"$ref": f"#/{keyword}/{name}"}
        return inner

    known = {key for key, count in counts.items() if count > 1 and len(key) > WORTH_SHARING}
    small = map_schemas(bare, replace, top=False)
    pending = list(shared)
    definitions: dict[str, Any] = dict(small.get(keyword, {}))
    while pending:
        key = pending.pop()
        before = len(shared)
        definitions[shared[key]] = map_schemas(json.loads(key), replace, top=False)
        pending += list(shared)[before:]
    if definitions:
        small[keyword] = definitions
    return small


def strip(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ANNOTATIONS}


def map_schemas(schema: Any, change: Any, *, top: bool = True) -> Any:
    """Apply `change` to this schema and every schema inside it, the outermost first."""
    if not isinstance(schema, dict):
        return schema
    changed = schema
    if top:
        changed = change(schema)
    result = dict(changed)
    for key, value in changed.items():
        if key in MAPS and isinstance(value, dict):
            result[key] = {name: map_schemas(inner, change) for name, inner in value.items()}
        elif key in LISTS or (key in SINGLE and isinstance(value, list)):
            result[key] = [map_schemas(inner, change) for inner in value]
        elif key in SINGLE:
            result[key] = map_schemas(value, change)
    return result


def text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))


def lines(value: Any, path: str = "$") -> list[str]:
    """Return one line for each leaf."""
    if isinstance(value, dict) and value:
        return [line for key in sorted(value) for line in lines(value[key], f"{path}.{key}")]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [
            line for number, inner in enumerate(value) for line in lines(inner, f"{path}[{number}]")
        ]
    return [f"{path} = {json.dumps(value, sort_keys=True)}"]
