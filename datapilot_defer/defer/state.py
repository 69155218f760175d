"""The state directory that a project defers to, checked so that dbt does not silently ignore it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind, read_artifact
from datapilot_defer.dbt_project import is_target_directory
from datapilot_defer.defer.dbt_target import DbtTarget, select_target
from datapilot_defer.defer.overlap import check_overlap
from datapilot_defer.defer.own_relations import find_own_relations
from datapilot_defer.defer.project_settings import DeferSettings, resolve_manifest_directory
from datapilot_defer.errors import ArtifactRefused, UsageError
from datapilot_defer.formatting import format_duration, to_single_line
from datapilot_defer.pull.integration_names import find_cached_name
from datapilot_defer.pull.record import PulledArtifact
from datapilot_defer.pull.request import PullOptions, PullResult, check_age
from datapilot_defer.pull.state_directory import StateDirectory, default_state_directory
from datapilot_defer.pull.update import update_state_directory

if TYPE_CHECKING:
    from datapilot_defer.client.connection import Connection
    from datapilot_defer.console import Console
    from datapilot_defer.dbt_installation import DbtInstallation
    from datapilot_defer.dbt_project import DbtProject

_MAX_NAME_LENGTH = 100


@dataclass(frozen=True)
class PreparedState:
    """A state directory that dbt can defer to.

    artifact: the facts about its manifest, as in a record. manifest: the manifest with its content.
    source: integration and environment, or a local directory, for messages. pulled: the result of
    the pull; None for a local directory.
    """

    directory: Path
    artifact: PulledArtifact
    manifest: Artifact
    source: str
    pulled: PullResult | None = None

    @property
    def integration_name(self) -> str | None:
        """Return the name of the integration; None if it is unknown or for a local directory."""
        if self.pulled is None:
            return None
        return self.pulled.integration_name

    def describe(self) -> str:
        """Return the source, age and commit in one line."""
        age = "of unknown age"
        if self.artifact.age_s is not None:
            age = f"built {format_duration(self.artifact.age_s)} ago"
        commit = self.artifact.describe_commit()
        return f"{self.source} ({age}{commit})"

    def describe_directory(self) -> str:
        """Return the directory, dbt version, age and commit in one line."""
        writer = ""
        if self.artifact.metadata.dbt_version:
            writer = f"written by dbt {self.artifact.metadata.dbt_version}, "
        return f"{self.directory} ({writer}{self.artifact.describe_age()})"


def prepare_state(
    project: DbtProject,
    settings: DeferSettings,
    *,
    dbt: DbtInstallation | None,
    connection: Connection,
    console: Console,
    max_age_s: float | None,
    offline: bool,
    environ: Mapping[str, str],
    dbt_options: Sequence[str] = (),
) -> PreparedState:
    """Return the state that these settings select, after checking that dbt can defer to it.

    dbt: the installation that will read the manifest; None skips the check of its version.
    dbt_options: those of the command that will defer. Warns if the manifest has the relations of
    that command's target.

    Raises UsageError if no source is configured and for a directory that cannot be used,
    ArtifactRefused for a manifest that this dbt cannot read, that is of another project, too old or
    from the future, and the errors of `update_state_directory`.
    """
    readable_by = None
    if dbt is not None:
        readable_by = dbt.version_series
    if settings.mode == "integration" and settings.integration_id:
        request = PullOptions(
            settings.integration_id,
            settings.environment,
            readable_by=readable_by,
            max_age_s=max_age_s,
        )
        state = _pull_state(request, connection, console, offline=offline)
    elif settings.mode == "local":
        state = _read_local_state(resolve_manifest_directory(settings, environ), readable_by)
        check_age(state.artifact, max_age_s)
    else:
        raise _nothing_set_error()
    check_not_target(state.directory, project)
    check_overlap(state.manifest, project, environ=environ, console=console)
    _warn_of_own_relations(state, project, select_target(project, dbt_options, environ), console)
    return state


def _nothing_set_error() -> UsageError:
    return UsageError(
        "no manifest source is configured. Set one with `datapilot dbt defer enable "
        "--integration-id ID`, `--integration-name NAME` or `--manifest-path DIR`"
    )


def _warn_of_own_relations(
    state: PreparedState, project: DbtProject, target: DbtTarget, console: Console
) -> None:
    own_relations = find_own_relations(state.manifest, project, target)
    if own_relations is not None:
        console.warn(own_relations.describe())


def _pull_state(
    request: PullOptions, connection: Connection, console: Console, *, offline: bool
) -> PreparedState:
    path = default_state_directory(
        connection.address, request.integration_id, request.environment, request.pin
    )
    result = update_state_directory(
        request,
        connection,
        StateDirectory(path),
        console=console,
        offline=offline,
        keep_content=True,
    )
    name = result.integration_name or find_cached_name(connection.address, request.integration_id)
    if name:
        result = replace(result, integration_name=to_single_line(name, _MAX_NAME_LENGTH))
    [pulled_artifact] = result.artifacts
    manifest = result.contents[Kind.MANIFEST]
    source = _describe_source(request, result)
    return PreparedState(result.directory, pulled_artifact, manifest, source, result)


def _describe_source(request: PullOptions, result: PullResult) -> str:
    """Return integration (its ID if the name is unknown) and environment, such as "shop PROD"."""
    name = result.integration_name or f"integration {request.integration_id}"
    environment = result.environment or request.environment or ""
    return f"{name} {to_single_line(environment, _MAX_NAME_LENGTH)}".rstrip()


def _read_local_state(directory: Path, readable_by: str | None) -> PreparedState:
    path = directory / Kind.MANIFEST.file_name
    if not path.is_file():
        problem = "is not a directory. Create it, and copy"
        if directory.is_dir():
            problem = "contains no manifest.json. Copy"
        raise UsageError(
            f"{directory} {problem} manifest.json into it from the production job's target "
            "directory"
        )
    artifact = read_artifact(path)
    pulled_artifact = _validate_manifest(artifact, readable_by)
    return PreparedState(directory, pulled_artifact, artifact, str(directory))


def _validate_manifest(artifact: Artifact, readable_by: str | None) -> PulledArtifact:
    """Validate a manifest and return facts about it. Raises ArtifactRefused if it is invalid."""
    from datapilot_defer.validation import ValidationOptions, validate

    validation = validate(artifact, ValidationOptions(readable_by=readable_by))
    if not validation.is_accepted:
        reader = "dbt"
        if readable_by:
            reader = f"dbt {readable_by}"
        raise ArtifactRefused(
            "\n".join([f"{reader} cannot defer to {artifact.path}:", *validation.format_problems()])
        )
    return PulledArtifact(artifact.metadata, readable_by=validation.readable_by)


def check_not_target(directory: Path, project: DbtProject) -> None:
    """Raise UsageError if the state directory is dbt's target directory."""
    if is_target_directory(directory, project):
        raise UsageError(
            f"the state directory {directory} is dbt's target directory. dbt overwrites "
            "the manifest before reading it, and silently does not defer. Copy "
            "production's manifest to another directory"
        )
