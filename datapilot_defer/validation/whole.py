"""What every manifest looks like, also one of dbt 2.x or of a dbt that is newer than this program."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from datapilot_defer.validation.schema import ArtifactSchema

_TEXT = {"type": "string"}
_MAPPING = {"title": "an object", "type": "object"}
_NULLABLE_MAPPING = {"title": "an object or null", "type": ["object", "null"]}
_NULLABLE_TEXT = {"title": "a string or null", "type": ["string", "null"]}
_NODE: dict[str, Any] = {
    **_MAPPING,
    "required": ["unique_id", "resource_type", "name", "package_name"],
    "properties": {
        **dict.fromkeys(("unique_id", "resource_type", "name", "package_name"), _TEXT),
        **dict.fromkeys(("config", "depends_on"), _NULLABLE_MAPPING),
        **dict.fromkeys(
            ("database", "schema", "alias", "relation_name", "original_file_path"), _NULLABLE_TEXT
        ),
    },
}
_SECTIONS = (
    "sources",
    "macros",
    "docs",
    "exposures",
    "metrics",
    "disabled",
    "parent_map",
    "child_map",
    "selectors",
)


@lru_cache(maxsize=1)
def minimal_manifest_schema() -> ArtifactSchema:
    """Nulls where dbt 1.x wants objects are fine; a node without its unique_id is not."""
    nodes = {**_MAPPING, "additionalProperties": _NODE}
    properties = {"metadata": {**_MAPPING, "properties": {}}, "nodes": nodes}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "required": ["metadata", "nodes", "sources", "macros"],
        "properties": {**properties, **dict.fromkeys(_SECTIONS, _NULLABLE_MAPPING)},
    }
    return ArtifactSchema(document)
