"""Checks for manifests that load but are unsafe to defer to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.descriptions import describe_value, format_path, source_file
from datapilot_defer.validation.result import Problem, ProblemCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REFERABLE = ("model", "seed", "snapshot")
_PROJECT_NAME_FROM = 10  # schema version of dbt 1.6, the first to write metadata.project_name


@dataclass
class DeferChecks:
    """Checks that a manifest is safe to defer to.

    referable: the number of checked nodes that other nodes can refer to.
    """

    referable: int = 0

    def check_node(self, key: str, node: Any) -> Iterator[Problem]:
        """Find problems that make one node unsafe to defer to."""
        if not isinstance(node, dict):
            return
        if "unique_id" in node and node["unique_id"] != key:
            unique_id = describe_value(node["unique_id"])
            message = f"its unique_id is {unique_id}: dbt would defer to the wrong node"
            yield _node_problem(node, ("nodes", key), message)
        if node.get("resource_type") in REFERABLE:
            self.referable += 1
            yield from _check_relation(key, node)

    def check_whole_manifest(self) -> Iterator[Problem]:
        """Find problems with the complete manifest, after all nodes have been checked."""
        if not self.referable:
            message = "contains no model, seed or snapshot to defer to"
            yield Problem("$.nodes", message, code=ProblemCode.UNSAFE_TO_DEFER)


def _check_relation(key: str, node: dict[str, Any]) -> Iterator[Problem]:
    """Find missing parts of a node's relation name. Ephemeral models have no relation."""
    if _materialization(node) == "ephemeral":
        return
    for name in ("schema", "alias"):
        value = node.get(name)
        if not isinstance(value, str) or not value:
            message = (
                f"a {node['resource_type']} without {name}, so its relation cannot be "
                f"found (got {describe_value(value)})"
            )
            yield _node_problem(node, ("nodes", key, name), message)


def _node_problem(node: dict[str, Any], path: tuple[str, ...], message: str) -> Problem:
    return Problem(format_path(path), message, source_file(node), ProblemCode.UNSAFE_TO_DEFER)


def check_metadata(metadata: Mapping[str, Any], schema_version: int) -> Iterator[Problem]:
    """Find a missing project id and, from dbt 1.6 on, a missing project name."""
    names = ["project_id"]
    if schema_version >= _PROJECT_NAME_FROM:
        names.append("project_name")
    for name in names:
        value = metadata.get(name)
        if not isinstance(value, str) or not value:
            message = (
                f"expected the project's {name.removeprefix('project_')}, got "
                f"{describe_value(value)}"
            )
            path = format_path(("metadata", name))
            yield Problem(path, message, code=ProblemCode.UNSAFE_TO_DEFER)


def _materialization(node: Mapping[str, Any]) -> Any:
    config = node.get("config")
    if isinstance(config, dict):
        return config.get("materialized")
    return None
