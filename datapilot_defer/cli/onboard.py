"""`datapilot dbt onboard`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datapilot_defer import ci
from datapilot_defer.artifact import Artifact, Kind
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    connect,
    environment_option,
    instance_options,
    integration_options,
    one_integration,
    validation_options,
)
from datapilot_defer.cli.output import Report, current_report
from datapilot_defer.errors import Unavailable

if TYPE_CHECKING:
    from datapilot_defer.onboard import Checked, Onboarded

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
@validation_options
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
@instance_options
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
    from datapilot_defer.onboard import check

    report = current_report()
    integration = one_integration(integration_id, integration_name)
    paths = {kind: rest.pop(kind.value) for kind in Kind}
    paths[Kind.MANIFEST] = paths[Kind.MANIFEST] or _found_manifest(report, project_dir)
    given = {kind: path for kind, path in paths.items() if path}
    checked = check(given, strict=strict, readable_by=readable_by, verbose=report.verbose)
    for line in checked.drift:
        report.detail(line)
    for warning in checked.warnings:
        report.warn(warning)
    if dry_run:
        _say_dry_run(report, checked, integration, environment)
        return
    try:
        done = _send(report, checked, integration, environment, force=force, **rest)
    except Unavailable as error:
        if not soft_fail:
            raise
        _say_soft_failure(report, error)
        return
    _say_onboarded(report, done, (*checked.warnings, *checked.drift))
    if done.unchanged and exit_code_unchanged:
        report.exit(exit_code_unchanged)


def _found_manifest(report: Report, project_dir: str | None) -> str:
    from datapilot_defer.dbt_project import find

    project = find(Path(project_dir) if project_dir else None, os.environ)
    path = project.target / Kind.MANIFEST.file_name
    report.note(f"Reading {path}")
    return str(path)


def _send(
    report: Report,
    checked: Checked,
    integration: int | str,
    environment: str,
    *,
    force: bool,
    **access: Any,
) -> Onboarded:
    from datapilot_defer.onboard import onboard

    facts: dict[str, object] = dict(report.run.facts()) if report.run else {}
    facts |= {"force": True} if force else {}
    return onboard(
        connect(report, **access),
        checked,
        integration=integration,
        environment=environment,
        facts=facts,
        progress=report.progress,
    )


def _describe(artifact: Artifact) -> str:
    """One artifact in a line: what, how large, from which dbt."""
    about = [f"{artifact.size_bytes:,} bytes"]
    about += [f"{artifact.node_count:,} nodes"] if artifact.node_count is not None else []
    about += [f"dbt {artifact.dbt_version}"] if artifact.dbt_version else []
    return f"{artifact.kind.value}: {artifact.path} ({', '.join(about)}, sha256 {artifact.sha256})"


def _as_json(artifact: Artifact, file_id: int | None) -> dict[str, object]:
    return {
        "kind": artifact.kind.value,
        "path": artifact.path,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "file_id": file_id,
        "schema_version": artifact.schema_version,
        "dbt_version": artifact.dbt_version,
        "node_count": artifact.node_count,
    }


def _say_dry_run(
    report: Report, checked: Checked, integration: int | str, environment: str
) -> None:
    where = f"integration {integration}, environment {environment}"
    lines = [
        f"Would onboard to {where}:",
        *(f"  {_describe(artifact)}" for artifact in checked.artifacts),
    ]
    data = {
        "ok": True,
        "dry_run": True,
        "integration_id": integration if isinstance(integration, int) else None,
        "environment": environment,
        "artifacts": [_as_json(artifact, None) for artifact in checked.artifacts],
        "warnings": [*checked.warnings, *checked.drift],
        "status_url": None,
    }
    report.result(data, "\n".join(lines))


def _say_onboarded(report: Report, done: Onboarded, warnings: tuple[str, ...]) -> None:
    where = f"integration {done.integration_id}, environment {done.environment}"
    verb = "Unchanged in" if done.unchanged else "Onboarded to"
    artifacts = [_as_json(artifact, stored.file_id) for artifact, stored in done.files]
    data = {
        "ok": True,
        "integration_id": done.integration_id,
        "environment": done.environment,
        "artifacts": artifacts,
        "warnings": list(warnings),
        "status_url": done.status_url,
        "unchanged": done.unchanged,
    }
    _tell_github(report, done)
    lines = [f"{verb} {where}:", *(f"  {_describe(artifact)}" for artifact, _ in done.files)]
    report.result(data, "\n".join([*lines, f"See {done.status_url}"]))


def _tell_github(report: Report, done: Onboarded) -> None:
    if report.run is None or report.run.name != "GitHub Actions":
        return
    rows = [
        f"| {artifact.kind.value} | {artifact.size_bytes:,} | {artifact.dbt_version or ''} | `{artifact.sha256}` |"
        for artifact, _ in done.files
    ]
    head = f"### Onboarded to [integration {done.integration_id}, {done.environment}]({done.status_url})\n"
    table = "\n".join([head, "| artifact | bytes | dbt | sha256 |", "|---|---:|---|---|", *rows])
    ci.append_summary(os.environ, table)
    manifest, stored = done.files[0]
    values = {
        "sha256": manifest.sha256,
        "file-id": str(stored.file_id),
        "status-url": done.status_url,
    }
    ci.append_outputs(os.environ, values)


def _say_soft_failure(report: Report, error: Unavailable) -> None:
    report.warn(
        f"NOT CONFIRMED BY THE INSTANCE, and the exit code is 0 because of --soft-fail: {error}"
    )
    about = {"kind": error.kind, "message": str(error)}
    report.result({"ok": False, "exit_code": 0, "soft_failed": True, "error": about}, "")
