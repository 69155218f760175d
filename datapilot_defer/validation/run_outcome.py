"""Whether the run of dbt that a manifest comes from succeeded, by its run results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.formatting import plural, to_single_line
from datapilot_defer.validation.consistency import find_inconsistencies

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact

# What is skipped because of an error is listed beside the error.
_FAILED = frozenset({"error", "fail", "runtime error", "partial success"})
# They overwrite the run results of a build. `generate` is `dbt docs generate`.
_COMMANDS_THAT_BUILD_NOTHING = {
    "compile": "`dbt compile`, which builds nothing",
    "generate": "`dbt docs generate`, which overwrites those of the build without --no-compile",
    "run-operation": "`dbt run-operation`, which builds no node",
    "show": "`dbt show`, which builds nothing",
}
_MAX_SHOWN = 300


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run. It succeeded when both are None.

    failure: how many nodes failed, and which is the first. unknown: why the outcome is not known.
    """

    failure: str | None = None
    unknown: str | None = None


def judge_run(manifest: Artifact, run_results: Artifact) -> RunOutcome:
    """Return the outcome of the manifest's run. The run results need not be valid."""
    path = run_results.path
    try:
        statuses = _statuses(run_results)
        inconsistencies = find_inconsistencies([manifest, run_results])
        command = _find_command(run_results)
    except dbt_json.NotJsonError:
        return RunOutcome(unknown=f"{path} does not hold dbt's run results")
    if inconsistencies:
        return RunOutcome(unknown=inconsistencies[0])
    failed = [result for result in statuses if result.status in _FAILED]
    if failed:
        nodes = plural(len(statuses), "node")
        return RunOutcome(
            failure=f"{path}: {len(failed):,} of {nodes} failed, the first is "
            f"{failed[0].unique_id} ({failed[0].status})"
        )
    if command in _COMMANDS_THAT_BUILD_NOTHING:
        return RunOutcome(unknown=f"{path} is of {_COMMANDS_THAT_BUILD_NOTHING[command]}")
    return RunOutcome()


@dataclass(frozen=True)
class _Result:
    """The result of one node, in text that can be shown."""

    unique_id: str
    status: str


def _statuses(run_results: Artifact) -> list[_Result]:
    """Return the result of each node. Raises NotJsonError when there is no list of them."""
    raw = run_results.sections.get("results")
    if raw is None or bytes(memoryview(raw)[:1]) != b"[":
        raise dbt_json.NotJsonError("there is no list of results")
    results: dict[int, _Result] = {}  # a list that is read in two ways is visited twice

    def visit(index: int, item: Any) -> None:
        fields: dict[str, Any] = {}
        if isinstance(item, dict):
            fields = item
        unique_id = to_single_line(str(fields.get("unique_id")), _MAX_SHOWN)
        status = to_single_line(str(fields.get("status")), _MAX_SHOWN)
        results[index] = _Result(unique_id, status.casefold())

    dbt_json.walk_list(raw, visit)
    return list(results.values())


def _find_command(run_results: Artifact) -> str:
    """Return the command of dbt that wrote the run results, such as "build"; "" if unknown."""
    command = ""

    def visit(name: str, value: Any) -> None:
        nonlocal command
        if name == "which" and isinstance(value, str):
            command = value

    raw = run_results.sections.get("args")
    if raw is not None and bytes(memoryview(raw)[:1]) == b"{":
        dbt_json.walk(raw, visit)
    return command
