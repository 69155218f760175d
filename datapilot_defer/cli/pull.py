"""`datapilot dbt pull`."""

from __future__ import annotations

import os
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datapilot_defer.artifact import Kind
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    IdType,
    connection_options,
    dbt_option,
    environment_option,
    integration_options,
    max_age_option,
    offline_option,
    require_integration,
)
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.client.connection import Connection, ConnectionOptions
from datapilot_defer.errors import UsageError
from datapilot_defer.formatting import utc_timestamp

if TYPE_CHECKING:
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.pull.record import PulledArtifact
    from datapilot_defer.pull.request import PullOptions, PullResult
    from datapilot_defer.pull.state_directory import StateDirectory

_ARTIFACT_FIELDS = ("size_bytes", "sha256", "file_id", "schema_version", "dbt_version")
_MANIFEST_FIELDS = (
    "dbt_version",
    "schema_version",
    "project_name",
    "generated_at",
    "commit",
    "branch",
    "build_url",
)


@click.command("pull", cls=Command)
@integration_options
@environment_option(default=None)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="State directory to write to, created if missing. [default: a directory in your "
    "user cache]",
)
@click.option(
    "--kind",
    "kinds",
    type=click.Choice([kind.value for kind in Kind]),
    multiple=True,
    help="Kind of artifact. Can be repeated. [default: manifest]",
)
@click.option(
    "--at",
    metavar="TIME",
    help="Download what was current at this time, such as 2026-11-22T09:00Z.",
)
@click.option(
    "--file-id",
    type=IdType(),
    help="ID of an earlier artifact, as listed by `datapilot dbt integrations history`.",
)
@max_age_option
@offline_option
@click.option(
    "--readable-by",
    metavar="VERSION",
    envvar="DATAPILOT_READABLE_BY",
    show_envvar=True,
    help="Reject a manifest that this version of dbt, such as 1.11, cannot read. "
    "[default: the version of dbt on PATH]",
)
@dbt_option
@click.option(
    "--force",
    is_flag=True,
    help="Download again, and overwrite files that did not come from an earlier pull.",
)
@connection_options
def pull(
    integration_id: int | None,
    integration_name: str | None,
    environment: str | None,
    output: Path | None,
    kinds: tuple[str, ...],
    at: str | None,
    file_id: int | None,
    max_age: float | None,
    offline: bool,
    readable_by: str | None,
    dbt_path: str | None,
    force: bool,
    connection: ConnectionOptions,
) -> None:
    """Download artifacts into a state directory.

    Prints the directory, to pass to `dbt --state`. Either all artifacts are replaced, or none.

    Artifacts that are still current are not downloaded again. When the instance is unavailable,
    those from an earlier pull are used, with a warning. --max-age limits their age.

    \b
    Examples:
      datapilot dbt pull --integration-id 7
      datapilot dbt pull --integration-name shop --environment PROD --output state
      datapilot dbt pull --integration-id 7 --kind catalog --max-age 24h
    """
    from datapilot_defer.pull.integration_names import resolve_integration_id
    from datapilot_defer.pull.request import PullOptions
    from datapilot_defer.pull.update import update_state_directory

    console = current_output()
    if file_id is not None and at is not None:
        raise UsageError("--file-id and --at select different artifacts. Use one of them.")
    instance = Connection(connection, environ=os.environ, console=console)
    integration = require_integration(integration_id, integration_name)
    request = PullOptions(
        resolve_integration_id(instance, integration, offline=offline),
        environment,
        tuple(dict.fromkeys(Kind(kind) for kind in kinds)) or (Kind.MANIFEST,),
        file_id,
        _parse_time(at),
        readable_by or _installed_dbt_version(console, dbt_path),
        max_age,
    )
    directory = _open_directory(output, request, instance)
    if file_id and len(request.kinds) > 1:
        raise UsageError("--file-id selects one artifact. Use at most one --kind with it")
    result = update_state_directory(
        request, instance, directory, console=console, force=force, offline=offline
    )
    console.note(_format_result(result, request))
    data = {"ok": True, "integration_id": request.integration_id, **_result_json(result)}
    console.print_result(data, str(result.directory))


def _open_directory(
    output: Path | None, request: PullOptions, instance: Connection
) -> StateDirectory:
    """Return the directory to write. Raises UsageError if it is dbt's target directory."""
    from datapilot_defer.pull.state_directory import StateDirectory, default_state_directory

    if output is None:
        path = default_state_directory(
            instance.address, request.integration_id, request.environment, request.pin
        )
        return StateDirectory(path)
    path = output.absolute()
    if ".." in output.parts:
        path = output.resolve()
    _check_not_target(path)
    return StateDirectory(path, protect_foreign_files=True)


def _check_not_target(output: Path) -> None:
    """Raise UsageError for dbt's target directory.

    dbt overwrites the manifest there before it reads the state, and then defers nothing.
    """
    from datapilot_defer.dbt_project import is_target_directory

    for start in (output.parent, Path.cwd()):
        project = _enclosing_project(start)
        if project is not None and is_target_directory(output, project):
            raise UsageError(
                f"{output} is dbt's target directory. dbt would overwrite the manifest "
                "before reading it, and silently not defer. Use another directory"
            )


def _enclosing_project(start: Path) -> DbtProject | None:
    from datapilot_defer.dbt_project import PROJECT_FILE, read_project

    for directory in (start, *start.parents):
        if (directory / PROJECT_FILE).is_file():
            return read_project(directory.resolve(), os.environ)
    return None


def _parse_time(at: str | None) -> str | None:
    """Return a time as an ISO timestamp in UTC.

    A missing time zone means UTC. Raises UsageError for any other text.
    """
    from datetime import datetime

    if at is None:
        return None
    try:
        moment = datetime.fromisoformat(at.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(
            f"--at {at} is not an ISO timestamp; use 2026-11-22T09:00Z or 2026-11-22"
        ) from None
    if not moment.tzinfo:
        moment = moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        raise UsageError(f"--at {at} is before the year 1 or after the year 9999, in UTC") from None


def _installed_dbt_version(console: Output, dbt_path: str | None) -> str | None:
    """Return the release series of the dbt that will read the manifest; None if it is unknown.

    Raises UsageError if the dbt that was given as an option cannot be used.
    """
    from datapilot_defer import dbt_installation

    if not dbt_path and dbt_installation.locate_executable(None, os.environ) is None:
        return None
    try:
        return dbt_installation.find_dbt(dbt_path, os.environ).version_series
    except UsageError as error:
        if dbt_path:
            raise
        console.detail(f"{error}. The manifest is not checked against a version of dbt")
        return None


def _format_result(result: PullResult, request: PullOptions) -> str:
    verb = "Pulled"
    if result.offline:
        verb = "Offline"
    elif result.unchanged:
        verb = "Unchanged"
    kinds = ", ".join(artifact.kind for artifact in result.artifacts)
    message = f"{verb}: {kinds} of {request.description}"
    manifest = result.manifest
    if manifest is None:
        return message
    written = "; the manifest was written"
    if len(result.artifacts) == 1:
        written = ", written"
    version = manifest.metadata.dbt_version
    return f"{message}{written} by dbt {version} ({manifest.describe_age()})"


def _result_json(result: PullResult) -> dict[str, object]:
    facts: dict[str, object] = dict.fromkeys(_MANIFEST_FIELDS)
    uploaded_at = None
    age_seconds = None
    if result.manifest is not None:
        facts = result.manifest.to_json()
        age_seconds = result.manifest.age_seconds
        uploaded_at = utc_timestamp(result.manifest.uploaded_at)
    return {
        "state_dir": str(result.directory),
        "unchanged": result.unchanged,
        "offline": result.offline,
        "environment": result.environment,
        "artifacts": [_artifact_json(artifact, result.directory) for artifact in result.artifacts],
        **{name: facts[name] for name in _MANIFEST_FIELDS},
        "uploaded_at": uploaded_at,
        "age_seconds": age_seconds,
    }


def _artifact_json(artifact: PulledArtifact, directory: Path) -> dict[str, object]:
    facts = artifact.to_json()
    return {
        "kind": artifact.kind.value,
        "path": str(directory / artifact.kind.file_name),
        **{name: facts[name] for name in _ARTIFACT_FIELDS},
    }
