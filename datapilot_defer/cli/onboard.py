"""`datapilot dbt onboard`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datapilot_defer import ci
from datapilot_defer.artifact import Artifact, Kind, Provenance
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    connect,
    environment_option,
    integration_options,
    legacy_connection_options,
    legacy_validation_options,
    require_integration,
)
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.errors import Unavailable

if TYPE_CHECKING:
    from datapilot_defer.onboard import OnboardResult, ValidatedArtifacts

F = TypeVar("F", bound=Callable[..., Any])


def _path_option(kind: Kind) -> Callable[[F], F]:
    name = kind.value.replace("_", "-")
    default = "dbt's target folder" if kind is Kind.MANIFEST else "not uploaded"
    return click.option(
        f"--{name}-path",
        kind.value,
        metavar="FILE",
        help=f"Path to {kind.file_name}. [default: {default}]",
    )


@click.command("onboard", cls=Command)
@integration_options
@environment_option()
@_path_option(Kind.MANIFEST)
@_path_option(Kind.CATALOG)
@_path_option(Kind.RUN_RESULTS)
@_path_option(Kind.SOURCES)
@_path_option(Kind.SEMANTIC_MANIFEST)
@click.option(
    "--project-dir", metavar="DIR", help="The dbt project whose target folder holds the manifest."
)
@legacy_validation_options
@click.option(
    "--force",
    is_flag=True,
    help="Onboard although the instance's guards refuse (older, smaller, other project).",
)
@click.option(
    "--dry-run", is_flag=True, help="Do everything up to the network: find, read and validate."
)
@click.option(
    "--soft-fail",
    is_flag=True,
    envvar="DATAPILOT_SOFT_FAIL",
    show_envvar=True,
    help="Exit 0 with a warning when the instance is unavailable; never when it refuses.",
)
@click.option(
    "--exit-code-unchanged",
    type=click.IntRange(0, 255),
    default=0,
    metavar="N",
    help="Exit with N when the instance held these bytes already (99 skips an Airflow task).",
)
@legacy_connection_options
def onboard(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    project_dir: str | None,
    strict: bool,
    readable_by: str | None,
    force: bool,
    dry_run: bool,
    soft_fail: bool,
    exit_code_unchanged: int,
    **rest: Any,
) -> None:
    """Onboard dbt's artifacts to an integration.

    Others can defer to them from then on.

    Every artifact is validated before the first is uploaded. What was current on the instance stays current
    until the new manifest has arrived whole.
    """
    from datapilot_defer.onboard import validate_artifacts
    from datapilot_defer.validation.result import ValidationOptions

    report = current_output()
    integration = require_integration(integration_id, integration_name)
    paths = {kind: rest.pop(kind.value) for kind in Kind}
    paths[Kind.MANIFEST] = paths[Kind.MANIFEST] or _default_manifest_path(report, project_dir)
    given = {kind: path for kind, path in paths.items() if path}
    checked = validate_artifacts(
        given,
        ValidationOptions(strict, readable_by),
        max_problems=None if report.verbose else 10,
    )
    for line in checked.drift:
        report.detail(line)
    for warning in checked.warnings:
        report.warn(warning)
    if dry_run:
        _print_dry_run(report, checked, integration, environment)
        return
    try:
        done = _send(report, checked, integration, environment, force=force, **rest)
    except Unavailable as error:
        if not soft_fail:
            raise
        _print_soft_failure(report, error)
        return
    _print_result(report, done, (*checked.warnings, *checked.drift))
    if done.unchanged and exit_code_unchanged:
        report.exit(exit_code_unchanged)


def _default_manifest_path(report: Output, project_dir: str | None) -> str:
    from datapilot_defer.dbt_project import find_project

    project = find_project(Path(project_dir) if project_dir else None, os.environ)
    path = project.target / Kind.MANIFEST.file_name
    report.note(f"Reading {path}")
    return str(path)


def _send(
    report: Output,
    checked: ValidatedArtifacts,
    integration: int | str,
    environment: str,
    *,
    force: bool,
    **access: Any,
) -> OnboardResult:
    from datapilot_defer.onboard import OnboardRequest, onboard

    provenance = Provenance()
    if report.ci_run is not None:
        run = report.ci_run
        provenance = Provenance(run.commit, run.branch, run.build_url)
    return onboard(
        connect(report, **access),
        checked,
        OnboardRequest(integration, environment, provenance, force),
        console=report,
    )


def _format_artifact(artifact: Artifact) -> str:
    """One artifact in a line: what, how large, from which dbt."""
    about = [f"{artifact.metadata.size_bytes:,} bytes"]
    about += (
        [f"{artifact.metadata.node_count:,} nodes"]
        if artifact.metadata.node_count is not None
        else []
    )
    about += [f"dbt {artifact.metadata.dbt_version}"] if artifact.metadata.dbt_version else []
    return f"{artifact.kind.value}: {artifact.path} ({', '.join(about)}, sha256 {artifact.metadata.sha256})"


def to_json(artifact: Artifact, file_id: int | None) -> dict[str, object]:
    return {
        "kind": artifact.kind.value,
        "path": artifact.path,
        "size_bytes": artifact.metadata.size_bytes,
        "sha256": artifact.metadata.sha256,
        "file_id": file_id,
        "schema_version": artifact.metadata.schema_version,
        "dbt_version": artifact.metadata.dbt_version,
        "node_count": artifact.metadata.node_count,
    }


def _print_dry_run(
    report: Output, checked: ValidatedArtifacts, integration: int | str, environment: str
) -> None:
    where = f"integration {integration}, environment {environment}"
    lines = [
        f"Would onboard to {where}:",
        *(f"  {_format_artifact(artifact)}" for artifact in checked.artifacts),
    ]
    data = {
        "ok": True,
        "dry_run": True,
        "integration_id": integration if isinstance(integration, int) else None,
        "environment": environment,
        "artifacts": [to_json(artifact, None) for artifact in checked.artifacts],
        "warnings": [*checked.warnings, *checked.drift],
        "status_url": None,
    }
    report.print_result(data, "\n".join(lines))


def _print_result(report: Output, done: OnboardResult, warnings: tuple[str, ...]) -> None:
    where = f"integration {done.integration_id}, environment {done.environment}"
    verb = "Unchanged in" if done.unchanged else "Onboarded to"
    artifacts = [to_json(artifact, stored.file_id) for artifact, stored in done.files]
    data = {
        "ok": True,
        "integration_id": done.integration_id,
        "environment": done.environment,
        "artifacts": artifacts,
        "warnings": list(warnings),
        "status_url": done.status_url,
        "unchanged": done.unchanged,
    }
    _write_github_summary(report, done)
    lines = [f"{verb} {where}:", *(f"  {_format_artifact(artifact)}" for artifact, _ in done.files)]
    report.print_result(data, "\n".join([*lines, f"See {done.status_url}"]))


def _write_github_summary(report: Output, done: OnboardResult) -> None:
    if report.ci_run is None or report.ci_run.system is not ci.GITHUB_ACTIONS:
        return
    rows = [
        f"| {artifact.kind.value} | {artifact.metadata.size_bytes:,} | {artifact.metadata.dbt_version or ''} | `{artifact.metadata.sha256}` |"
        for artifact, _ in done.files
    ]
    head = f"### Onboarded to [integration {done.integration_id}, {done.environment}]({done.status_url})\n"
    table = "\n".join([head, "| artifact | bytes | dbt | sha256 |", "|---|---:|---|---|", *rows])
    ci.append_summary(os.environ, table)
    manifest, stored = done.files[0]
    values = {
        "sha256": manifest.metadata.sha256,
        "file-id": str(stored.file_id),
        "status-url": done.status_url,
    }
    ci.append_outputs(os.environ, values)


def _print_soft_failure(report: Output, error: Unavailable) -> None:
    report.warn(
        f"NOT CONFIRMED BY THE INSTANCE, and the exit code is 0 because of --soft-fail: {error}"
    )
    about = {"kind": error.kind, "message": str(error)}
    report.print_result({"ok": False, "exit_code": 0, "soft_failed": True, "error": about}, "")
