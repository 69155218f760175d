"""The outcome of the dbt run that wrote a manifest, determined from its run results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.formatting import plural, to_single_line
from datapilot_defer.validation.consistency import find_inconsistencies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datapilot_defer.artifact import Artifact

# Skipped nodes are not counted as failed, because the error that caused the skip is listed too.
_FAILED = frozenset({"error", "fail", "runtime error", "partial success"})
_SUCCEEDED = frozenset({"success", "pass", "warn", "no-op", "reused"})
_SKIPPED = "skipped"
# Other commands, such as `dbt test`, overwrite the run results of a build. `dbt retry` writes the
# name of the command that it repeats.
_COMMANDS_THAT_BUILD = frozenset({"build", "run", "retry"})
_COMMAND_NAMES = {"generate": "docs generate", "freshness": "source freshness"}
_MAX_SHOWN = 300


@dataclass(frozen=True)
class RunOutcome:
    """The outcome of a run, which succeeded if `failure` and `unknown` are None.

    failure: a message with the number of failed nodes and the first of them. unknown: a message
    that explains why the outcome is unknown.
    """

    failure: str | None = None
    unknown: str | None = None


def judge_run(
    manifest: Artifact, run_results: Artifact, *, same_invocation: bool = False
) -> RunOutcome:
    """Return the outcome of the run that wrote the manifest. The run results need not be valid.

    same_invocation: report a success only if the same invocation of dbt wrote both artifacts.
    """
    path = run_results.path
    try:
        results = _read_results(run_results)
        command = _find_command(run_results)
        inconsistencies = find_inconsistencies([manifest, run_results])
    except dbt_json.NotJsonError:
        return RunOutcome(unknown=f"{path} does not contain run results of dbt")
    if inconsistencies:
        return RunOutcome(unknown=inconsistencies[0])
    failed = [result for result in results if result.status in _FAILED]
    if failed:
        nodes = plural(len(results), "node")
        return RunOutcome(
            failure=f"{path}: {len(failed):,} of {nodes} failed, first "
            f"{failed[0].unique_id} ({failed[0].status})"
        )
    if same_invocation and not _are_of_one_invocation(manifest, run_results):
        return RunOutcome(
            unknown=f"{path} and {manifest.path} come from different invocations of dbt"
        )
    return RunOutcome(unknown=_find_doubt(path, command, results))


def _are_of_one_invocation(manifest: Artifact, run_results: Artifact) -> bool:
    invocation_id = manifest.metadata.invocation_id
    return invocation_id is not None and invocation_id == run_results.metadata.invocation_id


def _find_doubt(path: str, command: str, results: Sequence[_Result]) -> str | None:
    """Return why results without a failure do not prove that the build succeeded.

    Returns None if they do.
    """
    if not command:
        return f"{path} does not state which command of dbt wrote it"
    if command not in _COMMANDS_THAT_BUILD:
        name = to_single_line(_COMMAND_NAMES.get(command, command), _MAX_SHOWN)
        return f"{path} is of `dbt {name}`, not of `dbt build` or `dbt run`"
    for result in results:
        if result.status not in _SUCCEEDED and result.status != _SKIPPED:
            return f"{path}: {result.unique_id} has the unknown status {result.status!r}"
    if all(result.status == _SKIPPED for result in results):
        return f"{path}: no node was built"
    return None


@dataclass(frozen=True)
class _Result:
    """The result of one node, as printable text."""

    unique_id: str
    status: str


def _read_results(run_results: Artifact) -> list[_Result]:
    """Return the result of each node. Raises NotJsonError if there is no valid list of results."""
    raw = run_results.sections.get("results")
    if raw is None or bytes(memoryview(raw)[:1]) != b"[":
        raise dbt_json.NotJsonError("there is no list of results")
    results: list[_Result] = []

    def visit(_: int, item: Any) -> None:
        fields: dict[str, Any] = {}
        if isinstance(item, dict):
            fields = item
        unique_id = to_single_line(str(fields.get("unique_id")), _MAX_SHOWN)
        status = to_single_line(str(fields.get("status")), _MAX_SHOWN)
        results.append(_Result(unique_id, status.casefold()))

    dbt_json.walk_list(raw, visit)
    return results


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
