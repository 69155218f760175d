"""The check that an artifact is of the manifest's target, by the relations of its nodes.

Only run results name a target of dbt. The other artifacts contain relations.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind
from datapilot_defer.formatting import to_single_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from datapilot_defer.artifact import Artifact

# The properties that a node has in the artifact and in the manifest.
_PROPERTIES = {
    Kind.RUN_RESULTS: ("relation_name",),
    Kind.CATALOG: ("database", "schema"),
}
# The first node with the same relation decides. Only artifacts of another target need more nodes.
_MAX_COMPARED = 100
_MAX_SHOWN = 300


def describe_other_target(manifest: Artifact, other: Artifact) -> str | None:
    """Describe a node that has another relation in `other`, if all common nodes have another one.

    Returns None also if the artifacts have no relation in common. Raises NotJsonError.
    """
    names = _PROPERTIES.get(other.kind)
    if names is None or manifest.kind is not Kind.MANIFEST or "nodes" not in manifest.sections:
        return None
    nodes = dbt_json.entries(manifest.sections["nodes"])
    description = None
    for unique_id, stated in islice(_find_nodes(other), _MAX_COMPARED):
        node = dbt_json.decode(nodes.get(unique_id, b"{}"))
        relation, expected = _comparable(stated, node, names)
        if not relation:
            continue
        if relation == expected:
            return None
        if description is None:
            difference = f"{unique_id} is {relation} there, {expected} in the manifest"
            description = to_single_line(difference, _MAX_SHOWN)
    return description


def _find_nodes(artifact: Artifact) -> Iterator[tuple[str, Any]]:
    """Yield the id of each node with the object that states its relation."""
    if artifact.kind is Kind.RUN_RESULTS:
        results: dict[str, Any] = {}

        def visit(_: int, result: Any) -> None:
            if isinstance(result, dict) and isinstance(result.get("relation_name"), str):
                results[str(result.get("unique_id"))] = result

        dbt_json.walk_list(artifact.sections["results"], visit)
        yield from results.items()
    else:
        for unique_id, raw in dbt_json.entries(artifact.sections["nodes"]).items():
            entry = dbt_json.decode(raw)
            if isinstance(entry, dict):
                yield unique_id, entry.get("metadata")


def _comparable(left: Any, right: Any, names: Sequence[str]) -> tuple[str, str]:
    """Return the relations of two objects, of the properties that both have; "" without one.

    Some warehouses have no databases, and some return names in upper case.
    """
    if not isinstance(left, dict) or not isinstance(right, dict):
        return "", ""
    common = [name for name in names if left.get(name) and right.get(name)]
    return _join(left, common), _join(right, common)


def _join(properties: Mapping[str, Any], names: Sequence[str]) -> str:
    return ".".join(str(properties[name]).casefold() for name in names)
