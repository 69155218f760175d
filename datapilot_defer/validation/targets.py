"""A check that an artifact is of the same target as the manifest.

It compares the relations of nodes, because only run results name a target of dbt.
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

# The properties of a relation that a node has both in the artifact and in the manifest.
_PROPERTIES = {
    Kind.RUN_RESULTS: ("relation_name",),
    Kind.CATALOG: ("database", "schema"),
}
# The first node with the same relation ends the comparison, so only artifacts of another target
# need more nodes.
_MAX_COMPARED = 100
_MAX_SHOWN = 300


def describe_other_target(manifest: Artifact, other: Artifact) -> str | None:
    """Describe the first node whose relation differs, if no compared node has the same relation.

    Compares at most _MAX_COMPARED nodes of `other`. Returns None if none of them has a relation in
    both artifacts, or if artifacts of this kind contain no relations. Raises NotJsonError if a
    section or node cannot be read.
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
    """Yield the unique ID of each node with the object that states its relation."""
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
    """Return the relations of two objects in a comparable form, or "" if they are not comparable.

    Only properties that both objects have are included, because some warehouses have no databases.
    The case of names is ignored, because some warehouses return them in upper case.
    """
    if not isinstance(left, dict) or not isinstance(right, dict):
        return "", ""
    common = [name for name in names if left.get(name) and right.get(name)]
    return _join(left, common), _join(right, common)


def _join(properties: Mapping[str, Any], names: Sequence[str]) -> str:
    return ".".join(str(properties[name]).casefold() for name in names)
