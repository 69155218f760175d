"""What is valid and still useless or harmful to somebody who defers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.result import Problem
from datapilot_defer.validation.violations import describe_value, format_path, source_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REFERABLE = ("model", "seed", "snapshot")
_PROJECT_NAME_FROM = 10  # dbt 1.6 was the first to write metadata.project_name


@dataclass
class DeferChecks:
    """Looks at each node on the way. referable: how many others can refer to."""

    referable: int = 0

    def check_node(self, key: str, value: Any) -> Iterator[Problem]:
        """What makes one node useless or harmful."""
        if not isinstance(value, dict):
            return
        own = value.get("unique_id")
        if own != key and "unique_id" in value:
            says = f"its unique_id is {describe_value(own)}: dbt would defer to the wrong node"
            yield Problem(format_path(("nodes", key)), says, source_file(value))
        kind = value.get("resource_type")
        if kind not in REFERABLE:
            return
        self.referable += 1
        if _materialization(value) == "ephemeral":
            return
        for name in ("schema", "alias"):
            found = value.get(name)
            if not isinstance(found, str) or not found:
                says = f"a {kind} without {name}: nobody can find its relation (got {describe_value(found)})"
                yield Problem(format_path(("nodes", key, name)), says, source_file(value))

    def check_whole_manifest(self) -> Iterator[Problem]:
        """What makes the whole useless."""
        if not self.referable:
            says = "holds no model, seed or snapshot: there is nothing to defer to"
            yield Problem("$.nodes", says)


def check_metadata(metadata: Mapping[str, Any], schema_version: int) -> Iterator[Problem]:
    """A manifest that does not say whose it is could be anybody's."""
    names = ["project_id"]
    if schema_version >= _PROJECT_NAME_FROM:
        names.append("project_name")
    for name in names:
        found = metadata.get(name)
        if not isinstance(found, str) or not found:
            says = f"expected the project's {name.removeprefix('project_')}, got {describe_value(found)}: whose manifest is it?"
            yield Problem(format_path(("metadata", name)), says)


def _materialization(value: Mapping[str, Any]) -> Any:
    config = value.get("config")
    return config.get("materialized") if isinstance(config, dict) else None
