"""What a file is that isn't the artifact it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer.artifact import Kind, detect_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

# Files that share dbt's file name, and the keys that give them away.
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


def detect_other_kind(
    top: Mapping[str, Any], metadata: Mapping[str, Any], wanted: Kind
) -> str | None:
    """ "is a catalog.json, not a manifest.json", when it is clearly another of dbt's artifacts."""
    found = detect_kind(top, metadata)
    if found is None or found is wanted:
        return None
    return f"is a {found.file_name}, not a {wanted.file_name}"


def detect_foreign_file(
    top: Mapping[str, Any], metadata: Mapping[str, Any], wanted: Kind
) -> str | None:
    """What it is, when nothing in it comes from dbt."""
    if any(key in metadata for key in _METADATA_KEYS):
        return None
    if detect_kind(top, metadata) is not None:
        return None
    name = next(
        (name for name, keys in _FOREIGN_FILE_MARKERS if keys <= top.keys()), None
    ) or _detect_by_values(top)
    return (
        f"is not dbt's {wanted.file_name}: it is {name}"
        if name
        else f"is not dbt's {wanted.file_name}"
    )


def _detect_by_values(top: Mapping[str, Any]) -> str | None:
    if not top:
        return "an empty object"
    values = [bytes(value)[:200].lstrip() for value in top.values()]
    if all(value.startswith(b"{") and b'"file"' in value for value in values):
        return "Vite's manifest"
    if all(key.startswith("/") for key in top) and all(value.startswith(b'"') for value in values):
        return "Laravel Mix's manifest"
    names = ", ".join(list(top)[:4])
    return f"a JSON object with {names}" + (" …" if len(top) > 4 else "")
