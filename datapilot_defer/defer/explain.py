"""dbt's rule for resolving references, applied before a run.

Source of the rule: `RuntimeRefResolver.create_relation` of dbt-core 1.8 to 1.11, and
`Manifest.merge_from_artifact` of dbt-core 1.5 to 1.7, which resolves all references once, before
the first model is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from datapilot_defer.defer.nodes import BUILDABLE, ManifestNode

# The resource types that each command builds, and those that it treats as selected.
BUILT_BY_COMMAND: Mapping[str, frozenset[str]] = {
    "build": frozenset(BUILDABLE),
    "run": frozenset({"model"}),
    "compile": frozenset(),
}
SELECTED_BY_COMMAND: Mapping[str, frozenset[str]] = {
    **BUILT_BY_COMMAND,
    "compile": frozenset(BUILDABLE),
}
_EXPLAINED_TYPES = frozenset({"model", "snapshot"})
_REFERENCED_TYPES = frozenset({*BUILDABLE, "source"})


@dataclass(frozen=True)
class Reference:
    """One reference of a node.

    node, reference: unique IDs. relation: as the compiled SQL will contain it. resolution:
    "selected" (built before the node in this run), "built_here" (exists in development, or needs no
    relation), "deferred" (production's, because development has none), "favored" (production's,
    although development has one), or "missing" (in neither). via: the ephemeral model whose SQL
    contains the reference.
    """

    node: str
    reference: str
    relation: str
    resolution: str
    reason: str
    via: str | None = None


@dataclass(frozen=True)
class Resolution:
    """The resolution of one reference, as in Reference."""

    relation: str
    resolution: str
    reason: str


@dataclass(frozen=True)
class DeferContext:
    """The facts that the rule depends on.

    project_nodes and state_nodes: by unique ID. existing_relations: unique IDs of nodes with a
    relation in the development database. resolves_before_run: whether dbt resolves references
    before the run, as dbt before 1.8 does. age: the age of the state, in words.
    """

    project_nodes: Mapping[str, ManifestNode]
    state_nodes: Mapping[str, ManifestNode]
    existing_relations: Set[str]
    favor_state: bool
    command: str = "build"
    resolves_before_run: bool = False
    age: str = ""

    def state_relation(self, unique_id: str) -> str | None:
        """Return the relation to defer to; None if the state has none."""
        node = self.state_nodes.get(unique_id)
        if node is None or node.ephemeral:
            return None
        return node.relation


def explain_references(
    context: DeferContext, *, selected: Set[str] | None, project: str
) -> list[Reference]:
    """Return the references of the selected models and snapshots and of their ephemeral parents.

    selected: unique IDs; None explains each model and snapshot of `project` as if it ran alone.
    """
    explained_types = _EXPLAINED_TYPES & SELECTED_BY_COMMAND[context.command]
    references: list[Reference] = []
    for node in context.project_nodes.values():
        if node.resource_type not in explained_types:
            continue
        if selected is None and node.package == project:
            references += _explain_node(context, node, {node.unique_id})
        elif selected is not None and node.unique_id in selected:
            references += _explain_node(context, node, selected)
    return references


def favor_state_rule(favor_state: bool) -> str:
    """Return the rule for favor state in one sentence."""
    if favor_state:
        return (
            "Favor state is on: models that are not selected are read from production, "
            "even if they exist in development."
        )
    return (
        "Favor state is off: production is read only for relations that do not exist in "
        "development."
    )


def _explain_node(
    context: DeferContext, node: ManifestNode, selected: Set[str]
) -> Iterator[Reference]:
    pending: list[tuple[str, str | None]] = [(parent, None) for parent in node.parents]
    seen: set[str] = set()
    while pending:
        unique_id, via = pending.pop(0)
        target = context.project_nodes.get(unique_id)
        if target is None or unique_id in seen or target.resource_type not in _REFERENCED_TYPES:
            continue
        seen.add(unique_id)
        resolved = _resolve(context, target, selected)
        yield Reference(
            node.unique_id, unique_id, resolved.relation, resolved.resolution, resolved.reason, via
        )
        if target.ephemeral:
            pending += [(parent, unique_id) for parent in target.parents]


def _resolve(context: DeferContext, target: ManifestNode, selected: Set[str]) -> Resolution:
    if target.resource_type == "source":
        return _resolve_source(context, target)
    has_state_relation = bool(context.state_relation(target.unique_id))
    if target.ephemeral and not (context.resolves_before_run and has_state_relation):
        name = target.name.replace(".", "_")
        return Resolution(
            f"__dbt__cte__{name}", "built_here", "ephemeral: its SQL is inserted here"
        )
    is_selected = (
        target.unique_id in selected
        and target.resource_type in SELECTED_BY_COMMAND[context.command]
    )
    if is_selected and target.resource_type in BUILT_BY_COMMAND[context.command]:
        return Resolution(
            _own_relation(target), "selected", "selected: built before it in this run"
        )
    deferred = _resolve_to_state(context, target, is_selected=is_selected)
    return deferred or _resolve_to_development(context, target)


def _resolve_source(context: DeferContext, source: ManifestNode) -> Resolution:
    relation = _own_relation(source)
    if source.unique_id in context.existing_relations:
        return Resolution(relation, "built_here", "a source: never deferred")
    reason = "a source that is not in the database. Sources are never deferred"
    return Resolution(relation, "missing", reason)


def _resolve_to_state(
    context: DeferContext, target: ManifestNode, *, is_selected: bool
) -> Resolution | None:
    """Return the resolution to production's relation; None if dbt does not use that relation."""
    relation = context.state_relation(target.unique_id)
    if not relation:
        return None
    exists = target.unique_id in context.existing_relations
    if not exists and not (is_selected and context.resolves_before_run):
        reason = f"not in development. The manifest is {context.age}"
        return Resolution(relation, "deferred", reason)
    if context.favor_state and not is_selected:
        reason = f"favored over the one in development. The manifest is {context.age}"
        return Resolution(relation, "favored", reason)
    return None


def _resolve_to_development(context: DeferContext, target: ManifestNode) -> Resolution:
    relation = _own_relation(target)
    if target.unique_id not in context.existing_relations:
        return Resolution(relation, "missing", _missing_reason(context, target))
    reason = "in development"
    if not context.state_relation(target.unique_id):
        reason = "in development, and not in the state"
    return Resolution(relation, "built_here", reason)


def _missing_reason(context: DeferContext, target: ManifestNode) -> str:
    if target.unique_id in context.state_nodes:
        return (
            "not in development, and ephemeral in the state, so there is no relation to "
            "defer to. Build it, or select it too"
        )
    return "not in development, and not in the state. Build it, or select it too"


def _own_relation(node: ManifestNode) -> str:
    return node.relation or node.name
