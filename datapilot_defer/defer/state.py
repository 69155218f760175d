"""The state that a project defers to: brought here if need be, and every silent failure of dbt ruled out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.artifact import Artifact, Kind, read_artifact
from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.dbt_project import DbtProject, check_belongs, is_target_directory
from datapilot_defer.defer import project_settings as defer_settings
from datapilot_defer.defer.nodes import list_unique_ids
from datapilot_defer.defer.project_settings import DeferSettings
from datapilot_defer.errors import ArtifactRefused, UsageError
from datapilot_defer.pull.state_directory import PulledArtifact, describe
from datapilot_defer.pull.update import PullOptions, PullResult, check_age

Pull = Callable[[PullOptions], PullResult]


@dataclass(frozen=True)
class PreparedState:
    """A state directory that dbt can defer to. pulled: None when it is a local folder."""

    folder: Path
    manifest: PulledArtifact
    pulled: PullResult | None = None


def prepare_state(
    settings: DeferSettings,
    project: DbtProject,
    *,
    dbt: DbtInstallation | None,
    max_age_s: float | None,
    pull: Pull,
    environ: Mapping[str, str],
) -> PreparedState:
    """The state of these settings, checked to be one that dbt really defers to.

    dbt: the one that will read it, or None when that does not matter.
    Raises UsageError when nothing is set or the folder can't be one, ArtifactRefused for a manifest that this dbt
    can't read, that is of another project or too old; and whatever pulling raises.
    """
    series = dbt.version_series if dbt else None
    if settings.mode == "integration" and settings.integration_id:
        wish = PullOptions(
            settings.integration_id, settings.environment, readable_by=series, max_age_s=max_age_s
        )
        pulled = pull(wish)
        [manifest] = pulled.entries
        state = PreparedState(pulled.folder, manifest, pulled)
    elif settings.mode == "local":
        state = _read_local_state(settings, series, environ)
        check_age(state.manifest, max_age_s)
    else:
        raise UsageError(
            "nothing is set to defer to: say where the manifest is with `datapilot dbt defer enable "
            "--integration-id N`, `--integration-name NAME` or `--manifest-path FOLDER`"
        )
    check_not_target(state.folder, project)
    check_belongs(
        list_unique_ids(state.folder / Kind.MANIFEST.file_name),
        project,
        manifest_project=state.manifest.project_name,
    )
    return state


def check_not_target(folder: Path, project: DbtProject) -> None:
    """Raises UsageError when the folder is dbt's own target folder."""
    if is_target_directory(folder, project):
        raise UsageError(
            f"the state directory {folder} is dbt's own target folder: dbt overwrites the manifest there before it "
            "looks at it, and silently defers nothing; copy production's manifest to another folder"
        )


def _read_local_state(
    settings: DeferSettings, series: str | None, environ: Mapping[str, str]
) -> PreparedState:
    folder = defer_settings.resolve_manifest_directory(settings, environ)
    file = folder / Kind.MANIFEST.file_name
    if not file.is_file():
        there = "holds no manifest.json" if folder.is_dir() else "is no folder"
        raise UsageError(
            f"{folder} {there}: copy manifest.json there, from the target folder of the production job"
        )
    return PreparedState(folder, _validate_manifest(read_artifact(file), series))


def _validate_manifest(artifact: Artifact, series: str | None) -> PulledArtifact:
    """What a record would say of a manifest. Raises ArtifactRefused when this dbt can't read it."""
    from datapilot_defer.validation import validate

    verdict = validate(artifact, readable_by=series)
    if not verdict.is_accepted:
        reader = f"dbt {series}" if series else "dbt"
        raise ArtifactRefused(
            "\n".join([f"{reader} can't defer to {artifact.path}:", *verdict.format_problems()])
        )
    return describe(artifact, verdict.readable_by)
