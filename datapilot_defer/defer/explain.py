"""Where each reference of a model will resolve to, and why: dbt's own rule, applied before anything runs.

Source of the rule: `RuntimeRefResolver.create_relation` of dbt-core 1.8 to 1.11, and `Manifest.merge_from_artifact`
of dbt-core 1.5 to 1.7, which decides once, before the first model is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from datapilot_defer.defer.nodes import BUILDABLE, ManifestNode

# What each command builds, and what counts as selected for it.
BUILT_BY_COMMAND: Mapping[str, frozenset[str]] = {
    "build": frozenset(BUILDABLE),
    "run": frozenset({"model"}),
    "compile": frozenset(),
}
SELECTED_BY_COMMAND: Mapping[str, frozenset[str]] = {
    **BUILT_BY_COMMAND,
    "compile": frozenset(BUILDABLE),
}


@dataclass(frozen=True)
class Reference:
    """One reference of a node. relation: as it will stand in the compiled SQL.

    resolution: "selected" (built before it in this run), "built_here" (exists in development, or needs no building),
    "deferred" (production's, for development has none), "favored" (production's, though development has one),
    "missing" (in neither). via: the ephemeral model whose SQL holds the reference.
    """

    node: str
    reference: str
    relation: str
    resolution: str
    reason: str
    via: str | None = None


@dataclass(frozen=True)
class DeferContext:
    """What the rule depends on. here: the project's own nodes; there: the state's; exists: the unique ids whose
    relation is in the development database. eager: dbt before 1.8. age: how old the state is, in words."""

    project_nodes: Mapping[str, ManifestNode]
    state_nodes: Mapping[str, ManifestNode]
    existing_relations: Set[str]
    favor_state: bool
    command: str = "build"
    resolves_before_run: bool = False
    age: str = ""


def explain_references(
    situation: DeferContext, *, selected: Set[str] | None, project: str
) -> list[Reference]:
    """Every reference of the selected models and snapshots; those of ephemeral parents too.

    selected: unique ids; None explains every model and snapshot of `project` as if it were run alone.
    """
    found: list[Reference] = []
    for node in situation.project_nodes.values():
        if (
            node.resource_type not in ("model", "snapshot")
            or node.resource_type not in SELECTED_BY_COMMAND[situation.command]
        ):
            continue
        if selected is None and node.package == project:
            found += _explain_node(situation, node, {node.unique_id})
        elif selected is not None and node.unique_id in selected:
            found += _explain_node(situation, node, selected)
    return found


def favor_state_rule(favor_state: bool) -> str:
    """The rule for favor state in one sentence."""
    if favor_state:
        return "Favor state is on: what is not selected is read from production, even where development has it."
    return "Favor state is off: production is read only where development has no relation of that name."


def _explain_node(
    situation: DeferContext, node: ManifestNode, selected: Set[str]
) -> Iterator[Reference]:
    pending: list[tuple[str, str | None]] = [(parent, None) for parent in node.parents]
    seen: set[str] = set()
    while pending:
        unique_id, via = pending.pop(0)
        target = situation.project_nodes.get(unique_id)
        if (
            target is None
            or unique_id in seen
            or target.resource_type not in (*BUILDABLE, "source")
        ):
            continue
        seen.add(unique_id)
        relation, resolution, reason = _resolve(situation, target, selected)
        yield Reference(node.unique_id, unique_id, relation, resolution, reason, via)
        if target.ephemeral:
            pending += [(parent, unique_id) for parent in target.parents]


def _resolve(
    situation: DeferContext, target: ManifestNode, selected: Set[str]
) -> tuple[str, str, str]:
    """Relation, resolution and reason of one reference."""
    relation, exists = (
        target.relation or target.name,
        target.unique_id in situation.existing_relations,
    )
    if target.resource_type == "source":
        return _resolve_source(relation, exists)
    there = situation.state_nodes.get(target.unique_id)
    state = there.relation if there is not None and not there.ephemeral else None
    if target.ephemeral and not (situation.resolves_before_run and state):
        return (
            f"__dbt__cte__{target.name.replace('.', '_')}",
            "built_here",
            "ephemeral: its SQL is put in here",
        )
    command = situation.command
    chosen = target.unique_id in selected and target.resource_type in SELECTED_BY_COMMAND[command]
    if chosen and target.resource_type in BUILT_BY_COMMAND[command]:
        return relation, "selected", "selected: built before it in this run"
    if state and not exists and not (chosen and situation.resolves_before_run):
        return state, "deferred", f"not in development; the manifest is {situation.age}"
    if state and situation.favor_state and not chosen:
        return (
            state,
            "favored",
            f"favored over the one in development; the manifest is {situation.age}",
        )
    if exists:
        return (
            relation,
            "built_here",
            "in development" if state else "in development; not in the state",
        )
    return relation, "missing", _missing_reason(there)


def _resolve_source(relation: str, exists: bool) -> tuple[str, str, str]:
    if exists:
        return relation, "built_here", "a source: never deferred"
    return relation, "missing", "a source that is not in the database; sources are never deferred"


def _missing_reason(there: ManifestNode | None) -> str:
    if there is not None:
        return "not in development, and ephemeral in the state: there is nothing to defer to; build it, or select it too"
    return "not in development, and not in the state; build it, or select it too"
