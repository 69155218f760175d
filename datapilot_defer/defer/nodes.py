"""What deferring needs of a manifest: its nodes, their relations and what they refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datapilot_defer import dbt_json
from datapilot_defer.errors import ArtifactRefused, UsageError

BUILDABLE = (
    "model",
    "seed",
    "snapshot",
    "function",
)  # what `dbt build` makes a relation or routine of


@dataclass(frozen=True)
class ManifestNode:
    """One node or source. relation: as dbt writes it into SQL, None for what has none. parents: in dbt's order."""

    unique_id: str
    resource_type: str
    package: str
    name: str
    relation: str | None
    ephemeral: bool
    parents: tuple[str, ...]


def read_nodes(file: Path) -> dict[str, ManifestNode]:
    """The nodes, sources and functions of a manifest by their unique ids.

    Raises UsageError when there is no such file, ArtifactRefused when it is no manifest.
    """
    try:
        top = dbt_json.split(file.read_bytes())
        return {
            unique_id: _parse_node(unique_id, dbt_json.decode(raw))
            for section in ("nodes", *(name for name in ("sources", "functions") if name in top))
            for unique_id, raw in dbt_json.entries(top[section]).items()
        }
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from None
    except (dbt_json.NotJsonError, AttributeError, KeyError, TypeError) as error:
        raise ArtifactRefused(f"{file} is no manifest of dbt: {error}") from None


def list_unique_ids(file: Path) -> list[str]:
    """The unique ids of the nodes, at a fraction of the cost of `read`; raises the same."""
    try:
        return list(dbt_json.entries(dbt_json.split(file.read_bytes())["nodes"]))
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from None
    except (KeyError, dbt_json.NotJsonError) as error:
        raise ArtifactRefused(f"{file} is no manifest of dbt: {error}") from None


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
    """As people write it: "orders", "raw.payments", "orders.v2"."""
    name = str(fields.get("name"))
    if fields.get("resource_type") == "source":
        return f"{fields.get('source_name')}.{name}"
    version = fields.get("version")
    return name if version is None else f"{name}.v{version}"
