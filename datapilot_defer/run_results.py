"""The run results beside a manifest: did the run of dbt that it comes from succeed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind, read_artifact
from datapilot_defer.errors import ArtifactRefused, UsageError
from datapilot_defer.formatting import format_size
from datapilot_defer.validation import RunOutcome, judge_run

if TYPE_CHECKING:
    from collections.abc import Sequence

# Those of 100,000 nodes, with the compiled SQL of each.
_MAX_BYTES = 512 * 1024 * 1024


def check_run(artifacts: Sequence[Artifact], *, require_success: bool) -> list[str]:
    """Return a warning when the run of dbt that the manifest comes from has failed.

    artifacts: accepted ones, the manifest first. The run results are those among them, and the
    file beside the manifest.
    Raises ArtifactRefused with require_success, also when the outcome of the run is not known.
    """
    outcome = _judge(artifacts)
    if not require_success:
        if outcome.failure is None:
            return []
        return [f"{outcome.failure}. Others defer to it nevertheless; --require-success rejects it"]
    reason = outcome.failure
    if outcome.unknown is not None:
        reason = (
            f"it is not known whether the run of dbt succeeded, as {outcome.unknown}. "
            "Build again, or give a copy of the build's run results with --run-results-path"
        )
    if reason is not None:
        raise ArtifactRefused(f"nothing was uploaded, because of --require-success: {reason}")
    return []


def _judge(artifacts: Sequence[Artifact]) -> RunOutcome:
    """Return the outcome by all run results: one failure counts, else one success."""
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
    """Return the outcome by the file beside the manifest, which may have been read already.

    dbt may have ended before it replaced an earlier one: only the invocation tells them apart.
    """
    try:
        if run_results is None:
            # A pipe would wait for its writer, and nobody asked for this file.
            if not path.is_file():
                return RunOutcome(unknown=f"there is no {path}")
            if path.stat().st_size > _MAX_BYTES:
                return RunOutcome(unknown=f"{path} is larger than {format_size(_MAX_BYTES)}")
            run_results = read_artifact(path, Kind.RUN_RESULTS)
    except (OSError, UsageError) as error:
        return RunOutcome(unknown=f"{path} can't be read: {error}")
    return judge_run(manifest, run_results, same_invocation=True)


def _is_same_file(path: Path, artifact: Artifact) -> bool:
    try:
        return path.samefile(artifact.path)
    except OSError:
        return False
