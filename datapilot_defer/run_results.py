"""Check that the dbt run that wrote a manifest succeeded, according to its run results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind, read_artifact
from datapilot_defer.errors import ArtifactRefused, UsageError
from datapilot_defer.formatting import format_size
from datapilot_defer.validation import RunOutcome, judge_run

if TYPE_CHECKING:
    from collections.abc import Sequence

# The size of the run results of 100,000 nodes, with the compiled SQL of each.
_MAX_BYTES = 512 * 1024 * 1024


def check_run(artifacts: Sequence[Artifact], *, require_success: bool) -> list[str]:
    """Return a warning if the dbt run that wrote the manifest failed.

    artifacts: valid ones, the manifest first. The run results among them are checked, and the file
    beside the manifest.

    With require_success, raises ArtifactRefused for a failed run and for an unknown outcome.
    """
    outcome = _judge(artifacts)
    if not require_success:
        if outcome.failure is None:
            return []
        return [
            f"{outcome.failure}. The manifest is uploaded nevertheless. Use "
            "--require-success to reject it"
        ]
    reason = outcome.failure
    if outcome.unknown is not None:
        reason = (
            f"it is unknown whether the dbt run succeeded: {outcome.unknown}. Build "
            "again, or use --run-results-path with a copy of the build's run results"
        )
    if reason is not None:
        raise ArtifactRefused(f"nothing was uploaded, because of --require-success: {reason}")
    return []


def _judge(artifacts: Sequence[Artifact]) -> RunOutcome:
    """Return the combined outcome of all run results.

    A failure takes precedence over a success, and a success over an unknown outcome.
    """
    manifest, *others = artifacts
    path = Path(manifest.path).parent / Kind.RUN_RESULTS.file_name
    outcomes: list[RunOutcome] = []
    beside: Artifact | None = None
    for other in others:
        if _is_same_file(path, other):
            beside = other
        elif other.kind is Kind.RUN_RESULTS:
            outcomes.append(judge_run(manifest, other))
    outcomes.append(_judge_file_beside(manifest, path, beside))
    failures = [outcome for outcome in outcomes if outcome.failure is not None]
    successes = [outcome for outcome in outcomes if outcome == RunOutcome()]
    decisive = failures + successes
    if decisive:
        return decisive[0]
    return RunOutcome(unknown="; ".join(str(outcome.unknown) for outcome in outcomes))


def _judge_file_beside(manifest: Artifact, path: Path, run_results: Artifact | None) -> RunOutcome:
    """Return the outcome that the run results beside the manifest show.

    run_results: that file, if it was read before. dbt may have ended before it replaced an older
    file, so only a file of the manifest's invocation can show a success.
    """
    try:
        if run_results is None:
            # Reading a pipe would wait for its writer.
            if not path.is_file():
                return RunOutcome(unknown=f"there is no {path}")
            if path.stat().st_size > _MAX_BYTES:
                return RunOutcome(unknown=f"{path} is larger than {format_size(_MAX_BYTES)}")
            run_results = read_artifact(path, Kind.RUN_RESULTS)
    except (OSError, UsageError) as error:
        return RunOutcome(unknown=f"{path} cannot be read: {error}")
    return judge_run(manifest, run_results, same_invocation=True)


def _is_same_file(path: Path, artifact: Artifact) -> bool:
    try:
        return path.samefile(artifact.path)
    except OSError:
        return False
