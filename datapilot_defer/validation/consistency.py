"""Consistency of several artifacts: one project, one invocation of dbt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind
from datapilot_defer.formatting import as_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datapilot_defer.artifact import Artifact
    from datapilot_defer.dbt_json.parser import Raw

# Sections with the unique IDs of nodes, as keys of an object or as a property of each list item.
_SECTIONS_WITH_UNIQUE_IDS = {
    Kind.CATALOG: ("nodes", "sources"),
    Kind.RUN_RESULTS: ("results",),
    Kind.SOURCES: ("results",),
}
_MANIFEST_SECTIONS = (
    "nodes",
    "sources",
    "exposures",
    "unit_tests",
    "functions",
    "saved_queries",
    "disabled",
)


def find_inconsistencies(artifacts: Sequence[Artifact]) -> list[str]:
    """Describe each artifact that is not from the first one's project or invocation.

    artifacts: accepted ones, the manifest first. It is normal that some nodes differ (only a
    selection was built, a package was removed). No common node means another project.
    """
    first, *others = artifacts
    manifest_ids: set[str] = set()
    if others and first.kind is Kind.MANIFEST:
        manifest_ids = _unique_ids(first, _MANIFEST_SECTIONS)
    inconsistencies = []
    for other in others:
        foreign_id = _find_foreign_id(other, manifest_ids)
        if foreign_id is not None:
            inconsistencies.append(
                f"{other.path} is of another project: {first.path} has no {foreign_id}, "
                "nor any other node of it"
            )
        elif _are_of_different_invocations(first, other):
            inconsistencies.append(
                f"{other.path} and {first.path} come from different invocations of dbt"
            )
    return inconsistencies


def _find_foreign_id(artifact: Artifact, manifest_ids: set[str]) -> str | None:
    """Return one of the artifact's nodes if the manifest has none of them."""
    unique_ids = _unique_ids(artifact, _SECTIONS_WITH_UNIQUE_IDS.get(artifact.kind, ()))
    if not manifest_ids or not unique_ids or unique_ids & manifest_ids:
        return None
    return as_one_line(min(unique_ids))


def _are_of_different_invocations(first: Artifact, other: Artifact) -> bool:
    first_id = first.metadata.invocation_id
    other_id = other.metadata.invocation_id
    return bool(first_id and other_id) and first_id != other_id


def _unique_ids(artifact: Artifact, names: Sequence[str]) -> set[str]:
    unique_ids: set[str] = set()
    for name in names:
        if name in artifact.sections:
            unique_ids |= _unique_ids_of_section(artifact.sections[name])
    return unique_ids


def _unique_ids_of_section(raw: Raw) -> set[str]:
    unique_ids: set[str] = set()

    def visit_item(_: int, item: Any) -> None:
        if isinstance(item, dict) and isinstance(item.get("unique_id"), str):
            unique_ids.add(item["unique_id"])

    first_byte = bytes(memoryview(raw)[:1])
    if first_byte == b"{":
        unique_ids.update(dbt_json.entries(raw))
    elif first_byte == b"[":
        dbt_json.walk_list(raw, visit_item)
    return unique_ids
