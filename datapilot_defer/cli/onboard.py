"""`datapilot dbt onboard`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from datapilot_defer import ci
from datapilot_defer.artifact import Kind, Provenance
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.onboard_output import print_dry_run, print_result, print_soft_failure
from datapilot_defer.cli.options import (
    UPLOAD_CHECKS,
    connection_options,
    environment_option,
    integration_options,
    require_integration,
    require_value,
    validation_options,
)
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.client.connection import Connection, ConnectionOptions
from datapilot_defer.errors import ArtifactRefused, Unavailable
from datapilot_defer.formatting import as_one_line

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.deadline import Deadline
    from datapilot_defer.onboard import OnboardRequest, OnboardResult, ValidatedArtifacts
    from datapilot_defer.validation.result import ValidationOptions

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _ArtifactOptions:
    """Options that select the artifacts. The default manifest is that of the project."""

    paths: dict[Kind, str]
    project_dir: str | None


@dataclass(frozen=True)
class _UploadOptions:
    """Options for how to upload and which exit code to use."""

    force: bool
    allow: frozenset[str]
    dry_run: bool
    require_success: bool
    soft_fail: bool
    exit_code_unchanged: int


def _artifact_options(command: F) -> F:
    """Add a path option for each kind and --project-dir, passed on as `files`."""

    @wraps(command)
    def wrapper(*, project_dir: str | None, **others: Any) -> Any:
        paths = {kind: others.pop(kind.value) for kind in Kind}
        given_paths = {kind: path for kind, path in paths.items() if path}
        return command(files=_ArtifactOptions(given_paths, project_dir), **others)

    project_dir_option = click.option(
        "--project-dir",
        metavar="DIR",
        callback=require_value,
        help="Directory of the dbt project. The manifest is read from its target directory.",
    )
    decorated = project_dir_option(wrapper)
    for kind in reversed(Kind):
        decorated = _path_option(kind)(decorated)
    return cast("F", decorated)


def _path_option(kind: Kind) -> Callable[[F], F]:
    name = kind.value.replace("_", "-")
    default = "not uploaded"
    if kind is Kind.MANIFEST:
        default = "manifest.json in dbt's target directory"
    return click.option(
        f"--{name}-path",
        kind.value,
        metavar="FILE",
        help=f"Path to {kind.file_name}. [default: {default}]",
    )


def _upload_options(command: F) -> F:
    """Add the options for how to upload, passed on as `upload`."""

    @wraps(command)
    def wrapper(
        *,
        allow: tuple[str, ...],
        force: bool,
        dry_run: bool,
        require_success: bool,
        soft_fail: bool,
        exit_code_unchanged: int,
        **others: Any,
    ) -> Any:
        options = _UploadOptions(
            force, frozenset(allow), dry_run, require_success, soft_fail, exit_code_unchanged
        )
        return command(upload=options, **others)

    with_options: Callable[..., Any] = wrapper
    for option in reversed(_UPLOAD_OPTIONS):
        with_options = option(with_options)
    return cast("F", with_options)


_UPLOAD_OPTIONS = [
    click.option(
        "--allow",
        type=click.Choice(tuple(UPLOAD_CHECKS)),
        multiple=True,
        help="Skip this one of the instance's safety checks. Can be repeated. `project` "
        "also ties the integration to the uploaded project from then on.",
    ),
    click.option("--force", is_flag=True, help="Skip all of the instance's safety checks."),
    click.option(
        "--dry-run", is_flag=True, help="Find and validate the artifacts without uploading them."
    ),
    click.option(
        "--require-success",
        is_flag=True,
        envvar="DATAPILOT_REQUIRE_SUCCESS",
        show_envvar=True,
        help="Reject the manifest unless run_results.json (next to it, or given by "
        "--run-results-path) shows that the dbt run succeeded. [default: warn about "
        "a failed run]",
    ),
    click.option(
        "--soft-fail",
        is_flag=True,
        envvar="DATAPILOT_SOFT_FAIL",
        show_envvar=True,
        help="Exit with 0 and a warning when the instance is unavailable. A rejected "
        "artifact still fails.",
    ),
    click.option(
        "--exit-code-unchanged",
        type=click.IntRange(0, 255),
        default=0,
        metavar="N",
        help="Exit with N if the instance already has these artifacts. With 99, Airflow "
        "marks the task as skipped.",
    ),
]


@click.command("onboard", cls=Command)
@integration_options
@environment_option()
@_artifact_options
@validation_options
@_upload_options
@connection_options
def onboard(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    files: _ArtifactOptions,
    validation: ValidationOptions,
    upload: _UploadOptions,
    connection: ConnectionOptions,
) -> None:
    """Upload dbt artifacts to an integration.

    Every artifact is validated before the first one is uploaded. The instance verifies them and
    then publishes them: from then on, others can defer to the new manifest. A rejected or
    interrupted upload changes nothing.

    \b
    Examples:
      datapilot dbt onboard --integration-id 7
      datapilot dbt onboard --integration-name shop --require-success
      datapilot dbt onboard --integration-id 7 --environment STAGING --dry-run
    """
    from datapilot_defer.onboard import OnboardRequest

    output = current_output()
    request = OnboardRequest(
        require_integration(integration_id, integration_name),
        environment,
        _provenance(output.ci_run),
        upload.force,
        upload.allow,
    )
    instance = Connection(connection, environ=os.environ, console=output)
    artifacts = _validate(
        output, files, validation, instance.deadline, require_success=upload.require_success
    )
    if upload.dry_run:
        print_dry_run(output, artifacts, request)
        return
    try:
        result = _upload(output, artifacts, request, instance)
    except Unavailable as error:
        if not upload.soft_fail:
            raise
        print_soft_failure(output, error)
        return
    print_result(output, result, [*artifacts.warnings, *result.warnings, *artifacts.drift])
    if result.unchanged and upload.exit_code_unchanged:
        output.exit(upload.exit_code_unchanged)


def _provenance(run: ci.CiRun | None) -> Provenance:
    if run is None:
        return Provenance()
    return Provenance(run.commit, run.branch, run.build_url)


def _validate(
    output: Output,
    files: _ArtifactOptions,
    validation: ValidationOptions,
    deadline: Deadline,
    *,
    require_success: bool,
) -> ValidatedArtifacts:
    """Validate the artifacts and print warnings. Raise ArtifactRefused for invalid ones."""
    from datapilot_defer.onboard import validate_artifacts

    paths = dict(files.paths)
    project: DbtProject | None = None
    if Kind.MANIFEST not in paths:
        project = _find_project(files.project_dir)
        paths[Kind.MANIFEST] = str(project.target / Kind.MANIFEST.file_name)
        output.note(f"Reading {paths[Kind.MANIFEST]}")
    max_problems = None if output.verbose else 10
    artifacts = validate_artifacts(
        paths,
        validation,
        max_problems=max_problems,
        require_success=require_success,
        deadline=deadline,
    )
    if project is not None:
        _check_project(artifacts.artifacts[0], project)
    for line in artifacts.drift:
        output.detail(line)
    for warning in artifacts.warnings:
        output.warn(warning)
    return artifacts


def _find_project(project_dir: str | None) -> DbtProject:
    from datapilot_defer.dbt_project import find_project

    directory = Path(project_dir) if project_dir else None
    return find_project(directory, os.environ)


def _check_project(manifest: Artifact, project: DbtProject) -> None:
    """Raise ArtifactRefused if the manifest in the target directory is of another project.

    DBT_TARGET_PATH may specify the same directory for several projects.
    """
    name = manifest.metadata.project_name
    expected = as_one_line(project.name)
    if name in (None, expected):
        return
    raise ArtifactRefused(
        f"nothing was uploaded: {manifest.path} is of project {name!r}, but the project in "
        f"{project.folder} is {expected!r}. Build that project into a separate target directory, "
        "or select the manifest with --manifest-path"
    )


def _upload(
    output: Output,
    artifacts: ValidatedArtifacts,
    request: OnboardRequest,
    instance: Connection,
) -> OnboardResult:
    from datapilot_defer.onboard import onboard

    return onboard(instance.open(), artifacts, request, console=output)
