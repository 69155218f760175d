"""Recognition of files that are not the expected artifact."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from datapilot_defer.artifact import Kind, detect_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

# Files of other programs that share a name with dbt's, and the keys that identify them.
_FOREIGN_FILE_MARKERS = (
    ("a JSON schema, not an artifact", {"properties", "type"}),
    ("a JSON schema, not an artifact", {"$schema", "definitions"}),
    ("the manifest of an MCP bundle", {"manifest_version", "server"}),
    ("a browser extension's manifest", {"manifest_version", "name"}),
    ("an Obsidian plugin's manifest", {"id", "minAppVersion"}),
    ("a web app's manifest", {"short_name"}),
    ("a web app's manifest", {"icons", "start_url"}),
    ("DocFX's manifest", {"xrefmap", "source_base_path"}),
)
_METADATA_KEYS = (
    "dbt_schema_version",
    "dbt_version",
    "generated_at",
    "invocation_id",
    "adapter_type",
)
_MAX_NAMED_KEYS = 4
_PREFIX_BYTES = 200


def detect_other_kind(
    sections: Mapping[str, Any], metadata: Mapping[str, Any], expected: Kind
) -> str | None:
    """Return text such as "is a catalog.json, not a manifest.json" for a file of another kind.

    Returns None if the file is of the expected kind or of no known kind.
    """
    kind = detect_kind(sections, metadata)
    if kind is None or kind is expected:
        return None
    return f"is a {kind.file_name}, not a {expected.file_name}"


def detect_foreign_file(
    sections: Mapping[str, Any], metadata: Mapping[str, Any], expected: Kind
) -> str | None:
    """Describe a file that does not come from dbt. Return None if its keys show that it does."""
    if any(key in metadata for key in _METADATA_KEYS):
        return None
    if detect_kind(sections, metadata) is not None:
        return None
    description = _detect_by_keys(sections) or _detect_by_values(sections)
    return f"is not dbt's {expected.file_name}: it is {description}"


def _detect_by_keys(sections: Mapping[str, Any]) -> str | None:
    for description, keys in _FOREIGN_FILE_MARKERS:
        if keys <= sections.keys():
            return description
    return None


def _detect_by_values(sections: Mapping[str, Any]) -> str:
    if not sections:
        return "an empty object"
    prefixes = [bytes(memoryview(raw)[:_PREFIX_BYTES]).lstrip() for raw in sections.values()]
    if all(prefix.startswith(b"{") and b'"file"' in prefix for prefix in prefixes):
        return "Vite's manifest"
    has_paths_as_keys = all(key.startswith("/") for key in sections)
    if has_paths_as_keys and all(prefix.startswith(b'"') for prefix in prefixes):
        return "Laravel Mix's manifest"
    return _list_keys(sections)


def _list_keys(sections: Mapping[str, Any]) -> str:
    keys = ", ".join(islice(sections, _MAX_NAMED_KEYS))
    if len(sections) > _MAX_NAMED_KEYS:
        keys += " …"
    return f"a JSON object with {keys}"
