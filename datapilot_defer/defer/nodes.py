"""Nodes of a manifest with their relations and parents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.errors import ArtifactRefused

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact
    from datapilot_defer.dbt_json.parser import Raw

# Resource types for which `dbt build` creates a relation or routine.
BUILDABLE = ("model", "seed", "snapshot", "function")
# Tests are excluded: they may be defined in a schema.yml, and any project may have such a file.
_DEFINED_IN_OWN_FILES = ("model", "seed", "snapshot")
_OPTIONAL_SECTIONS = ("sources", "functions")


@dataclass(frozen=True)
class ManifestNode:
    """One node, source or function.

    name: as users write it, such as "orders", "raw.payments" or "orders.v2". relation: as dbt
    writes it into SQL; None for a node without one. parents: their unique IDs, in dbt's order.
    """

    unique_id: str
    resource_type: str
    package: str
    name: str
    relation: str | None
    ephemeral: bool
    parents: tuple[str, ...]


def read_nodes(manifest: Artifact) -> dict[str, ManifestNode]:
    """Return nodes, sources and functions by unique ID.

    Raises ArtifactRefused for a file that is not a manifest of dbt.
    """
    sections = _sections_of(manifest)
    names = ["nodes", *(name for name in _OPTIONAL_SECTIONS if name in sections)]
    try:
        return {
            unique_id: _parse_node(unique_id, dbt_json.decode(entry))
            for name in names
            for unique_id, entry in dbt_json.entries(sections[name]).items()
        }
    except (dbt_json.NotJsonError, AttributeError, KeyError, TypeError) as error:
        raise _not_a_manifest_error(manifest.path, error) from None


def list_unique_ids(manifest: Artifact) -> list[str]:
    """Return the unique IDs of the nodes, much faster than `read_nodes`.

    Raises ArtifactRefused for a file that is not a manifest of dbt.
    """
    sections = _sections_of(manifest)
    try:
        return list(dbt_json.entries(sections["nodes"]))
    except (KeyError, dbt_json.NotJsonError) as error:
        raise _not_a_manifest_error(manifest.path, error) from None


def read_defining_files(manifest: Artifact, package: str) -> Iterator[str]:
    """Yield the paths of the files that define a package's models, seeds and snapshots.

    Raises ArtifactRefused for a file that is not a manifest of dbt.
    """
    prefixes = tuple(f"{resource_type}.{package}." for resource_type in _DEFINED_IN_OWN_FILES)
    try:
        for unique_id, entry in dbt_json.entries(_sections_of(manifest)["nodes"]).items():
            if unique_id.startswith(prefixes):
                yield str(dbt_json.decode(entry).get("original_file_path"))
    except (dbt_json.NotJsonError, AttributeError, KeyError) as error:
        raise _not_a_manifest_error(manifest.path, error) from None


def _sections_of(manifest: Artifact) -> Mapping[str, Raw]:
    if manifest.not_json is not None:
        raise _not_a_manifest_error(manifest.path, manifest.not_json)
    return manifest.sections


def _not_a_manifest_error(path: str, error: Exception) -> ArtifactRefused:
    return ArtifactRefused(f"{path} is not a manifest of dbt: {error}")


def _parse_node(unique_id: str, fields: Mapping[str, Any]) -> ManifestNode:
    config = fields.get("config") or {}
    depends_on = fields.get("depends_on") or {}
    return ManifestNode(
        unique_id,
        resource_type=str(fields.get("resource_type")),
        package=str(fields.get("package_name")),
        name=_display_name(fields),
        relation=fields.get("relation_name"),
        ephemeral=config.get("materialized") == "ephemeral",
        parents=tuple(depends_on.get("nodes") or ()),
    )


def _display_name(fields: Mapping[str, Any]) -> str:
    name = str(fields.get("name"))
    if fields.get("resource_type") == "source":
        return f"{fields.get('source_name')}.{name}"
    version = fields.get("version")
    if version is None:
        return name
    return f"{name}.v{version}"
