"""Checks that artifacts have the same project and target and were written within one day."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind
from datapilot_defer.formatting import as_one_line, format_duration
from datapilot_defer.validation.targets import describe_other_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datapilot_defer.artifact import Artifact
    from datapilot_defer.dbt_json.parser import Raw

# A job may run several commands of dbt within a day, such as `build` and then `docs generate`.
_MAX_TIME_APART = timedelta(days=1)
# Sections that contain the unique IDs of nodes, as keys of an object or as a property of list
# items.
_SECTIONS_WITH_UNIQUE_IDS = {
    Kind.CATALOG: ("nodes", "sources"),
    Kind.RUN_RESULTS: ("results",),
    Kind.SOURCES: ("results",),
}
# Prefixes of the unique IDs that `dbt run-operation` and hooks write to the run results. Such IDs
# are not necessarily in the manifest.
_NO_NODES = ("macro.", "operation.")
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
    """Describe each artifact that is inconsistent with the first one.

    Such an artifact is of another project or target, or dbt wrote it more than a day earlier or
    later, or at an unknown time. Target and time are compared only if both invocation IDs are known
    and differ. The project differs if the artifact has no node in common with the manifest. Some
    nodes may be missing, because only a selection was built or a package was removed.

    artifacts: the manifest first. If the first one is not a manifest, only times are compared.
    Raises NotJsonError if a section cannot be read.
    """
    first, *others = artifacts
    manifest_ids: set[str] = set()
    if others and first.kind is Kind.MANIFEST:
        manifest_ids = _unique_ids(first, _MANIFEST_SECTIONS)
    inconsistencies = [_find_inconsistency(first, other, manifest_ids) for other in others]
    return [inconsistency for inconsistency in inconsistencies if inconsistency is not None]


def _find_inconsistency(first: Artifact, other: Artifact, manifest_ids: set[str]) -> str | None:
    foreign_id = _find_foreign_id(other, manifest_ids)
    if foreign_id is not None:
        return (
            f"{other.path} is of another project: {first.path} has neither {foreign_id} "
            "nor any other node of it"
        )
    if not _are_of_different_invocations(first, other):
        return None
    other_target = describe_other_target(first, other)
    if other_target is not None:
        return f"{other.path} is of another target: {other_target}"
    return _describe_time_apart(first, other)


def _find_foreign_id(artifact: Artifact, manifest_ids: set[str]) -> str | None:
    """Return the unique ID of one of the artifact's nodes if the manifest has none of them."""
    stated = _unique_ids(artifact, _SECTIONS_WITH_UNIQUE_IDS.get(artifact.kind, ()))
    unique_ids = {unique_id for unique_id in stated if not unique_id.startswith(_NO_NODES)}
    if not manifest_ids or not unique_ids or unique_ids & manifest_ids:
        return None
    return as_one_line(min(unique_ids))


def _are_of_different_invocations(first: Artifact, other: Artifact) -> bool:
    first_id = first.metadata.invocation_id
    other_id = other.metadata.invocation_id
    return bool(first_id and other_id) and first_id != other_id


def _describe_time_apart(first: Artifact, other: Artifact) -> str | None:
    """Describe the time between the invocations of dbt that wrote two artifacts.

    Returns None if it is at most a day. If it is unknown, the description does not state it.
    """
    description = f"{other.path} and {first.path} come from different invocations of dbt"
    first_time = first.metadata.generated_at
    other_time = other.metadata.generated_at
    if first_time is None or other_time is None:
        return description
    time_apart = abs(first_time - other_time)
    if time_apart <= _MAX_TIME_APART:
        return None
    return f"{description}, {format_duration(time_apart.total_seconds())} apart"


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
