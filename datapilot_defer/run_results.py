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
            "Give the run results of the build with --run-results-path"
        )
    if reason is not None:
        raise ArtifactRefused(f"nothing was uploaded, because of --require-success: {reason}")
    return []


def _judge(artifacts: Sequence[Artifact]) -> RunOutcome:
    """Return the outcome by all run results: one failure counts, else one success."""
    manifest, *others = artifacts
    outcomes = [judge_run(manifest, other) for other in others if other.kind is Kind.RUN_RESULTS]
    outcomes += _judge_file_beside(manifest, others)
    for outcome in outcomes:
        if outcome.failure is not None:
            return outcome
    reasons = [outcome.unknown for outcome in outcomes if outcome.unknown is not None]
    if len(reasons) < len(outcomes):
        return RunOutcome()
    return RunOutcome(unknown="; ".join(reasons))


def _judge_file_beside(manifest: Artifact, others: Sequence[Artifact]) -> list[RunOutcome]:
    """Return the outcome by the file beside the manifest, unless it is among the artifacts."""
    path = Path(manifest.path).parent / Kind.RUN_RESULTS.file_name
    if any(_is_same_file(path, other) for other in others):
        return []
    try:
        # A pipe would wait for its writer, and nobody asked for this file.
        if not path.is_file():
            return [RunOutcome(unknown=f"there is no {path}")]
        if path.stat().st_size > _MAX_BYTES:
            return [RunOutcome(unknown=f"{path} is larger than {format_size(_MAX_BYTES)}")]
        return [judge_run(manifest, read_artifact(path, Kind.RUN_RESULTS))]
    except (OSError, UsageError) as error:
        return [RunOutcome(unknown=f"{path} can't be read: {error}")]


def _is_same_file(path: Path, artifact: Artifact) -> bool:
    try:
        return path.samefile(artifact.path)
    except OSError:
        return False
