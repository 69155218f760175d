"""Whether several artifacts belong together: one project, one invocation of dbt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datapilot_defer.artifact import Artifact

# Where an artifact keeps what it says about which node.
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
    """Say, artifact by artifact, what does not come from the first one's project or invocation.

    artifacts: accepted ones, the manifest first. Partly other nodes are normal (a selection was built, a package
    was taken out); no node in common is another project.
    """
    first, *others = artifacts
    known = (
        _unique_ids(first, _MANIFEST_SECTIONS) if others and first.kind is Kind.MANIFEST else set()
    )
    said = []
    for other in others:
        ids = _unique_ids(other, _SECTIONS_WITH_UNIQUE_IDS.get(other.kind, ()))
        if known and ids and not ids & known:
            example = min(ids)
            said.append(
                f"{other.path} is of another project: {first.path} has no {example}, nor any other node of it"
            )
        elif (
            first.metadata.invocation_id
            and other.metadata.invocation_id
            and first.metadata.invocation_id != other.metadata.invocation_id
        ):
            said.append(f"{other.path} and {first.path} come from different invocations of dbt")
    return said


def _unique_ids(artifact: Artifact, sections: Sequence[str]) -> set[str]:
    top = dbt_json.split(artifact.content)
    found: set[str] = set()

    def result(_: int, value: Any) -> None:
        if isinstance(value, dict) and isinstance(value.get("unique_id"), str):
            found.add(value["unique_id"])

    for name in sections:
        start = bytes(memoryview(top[name])[:1]) if name in top else b""
        if start == b"{":
            found.update(dbt_json.entries(top[name]))
        elif start == b"[":
            dbt_json.walk_list(top[name], result)
    return found
