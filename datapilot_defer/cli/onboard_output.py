"""Output of `datapilot dbt onboard`: text, JSON and the summary of a GitHub job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from datapilot_defer import ci, ci_log
from datapilot_defer.artifact import Artifact
from datapilot_defer.cli.output import Output
from datapilot_defer.errors import Unavailable
from datapilot_defer.formatting import as_one_line, plural

if TYPE_CHECKING:
    from datapilot_defer.onboard import OnboardRequest, OnboardResult, ValidatedArtifacts


def print_dry_run(output: Output, artifacts: ValidatedArtifacts, request: OnboardRequest) -> None:
    """Print what would be uploaded."""
    target = _describe_target(request.integration, request.environment)
    lines = [f"Would onboard to {target}:"]
    lines += [_format_artifact(artifact) for artifact in artifacts.artifacts]
    integration_id = None
    if isinstance(request.integration, int):
        integration_id = request.integration
    data = {
        "ok": True,
        "dry_run": True,
        "integration_id": integration_id,
        "environment": request.environment,
        "artifacts": [_artifact_json(artifact, None) for artifact in artifacts.artifacts],
        "warnings": [*artifacts.warnings, *artifacts.drift],
        "status_url": None,
    }
    output.print_result(data, "\n".join(lines))


def print_result(output: Output, result: OnboardResult, warnings: Sequence[str]) -> None:
    """Print the verified artifacts, and add them to the summary of a GitHub job."""
    target = _describe_target(result.integration_id, result.environment)
    lines = [f"{_verb(result)} {target}:"]
    lines += [_format_artifact(artifact) for artifact, _ in result.files]
    lines.append(f"See {result.status_url}")
    data = {
        "ok": True,
        "integration_id": result.integration_id,
        "environment": result.environment,
        "artifacts": [
            _artifact_json(artifact, receipt.file_id) for artifact, receipt in result.files
        ],
        "warnings": warnings,
        "status_url": result.status_url,
        "unchanged": result.unchanged,
    }
    if output.ci_run is not None and output.ci_run.system is ci.GITHUB_ACTIONS:
        _write_github_summary(result)
    output.print_result(data, "\n".join(lines))


def _describe_target(integration: int | str, environment: str) -> str:
    return as_one_line(f"integration {integration}, environment {environment}")


def _verb(result: OnboardResult) -> str:
    if result.unchanged:
        return "Unchanged in"
    return "Onboarded to"


def _format_artifact(artifact: Artifact) -> str:
    """Return one indented line: kind, path, size, number of nodes, dbt version and hash."""
    metadata = artifact.metadata
    facts = [f"{metadata.size_bytes:,} bytes"]
    if metadata.node_count is not None:
        facts.append(plural(metadata.node_count, "node"))
    if metadata.dbt_version:
        facts.append(f"dbt {metadata.dbt_version}")
    facts.append(f"sha256 {metadata.sha256}")
    path = as_one_line(artifact.path)
    return f"  {artifact.kind.value}: {path} ({', '.join(facts)})"


def _artifact_json(artifact: Artifact, file_id: int | None) -> dict[str, object]:
    return {**artifact.metadata.to_json(), "path": artifact.path, "file_id": file_id}


def _write_github_summary(result: OnboardResult) -> None:
    """Add the artifacts to the job's summary and set the outputs of its step."""
    target = _describe_target(result.integration_id, result.environment)
    lines = [
        f"### {_verb(result)} {ci_log.format_markdown_link(target, result.status_url)}",
        "",
        "| artifact | bytes | dbt | sha256 |",
        "|---|---:|---|---|",
    ]
    for artifact, _ in result.files:
        metadata = artifact.metadata
        dbt_version = ci_log.escape_markdown(metadata.dbt_version or "")
        lines.append(
            f"| {artifact.kind.value} | {metadata.size_bytes:,} | {dbt_version} "
            f"| `{metadata.sha256}` |"
        )
    ci_log.append_summary(os.environ, "\n".join(lines))
    manifest, receipt = result.files[0]
    values = {
        "sha256": manifest.metadata.sha256,
        "file-id": str(receipt.file_id),
        "status-url": result.status_url,
    }
    ci_log.append_outputs(os.environ, values)


def print_soft_failure(output: Output, error: Unavailable) -> None:
    """Print why the upload is not confirmed, as a warning."""
    message = (
        f"NOT CONFIRMED BY THE INSTANCE, and the exit code is 0 because of --soft-fail: {error}"
    )
    output.warn(message)
    output.summarize("not confirmed", message)
    details = {"kind": error.kind, "message": str(error)}
    data = {"ok": False, "exit_code": 0, "soft_failed": True, "error": details}
    output.print_result(data, "")
