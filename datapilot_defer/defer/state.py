"""The state that a project defers to: brought here if need be, and every silent failure of dbt ruled out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.artifact import Artifact, Kind, read
from datapilot_defer.dbt_installation import Dbt
from datapilot_defer.dbt_project import Project, check_belongs, is_target
from datapilot_defer.defer import project_settings as defer_settings
from datapilot_defer.defer.nodes import unique_ids
from datapilot_defer.defer.project_settings import Settings
from datapilot_defer.errors import ArtifactRefused, UsageError
from datapilot_defer.pull.state_directory import Entry, describe
from datapilot_defer.pull.update import Pulled, Wish, check_age

Pull = Callable[[Wish], Pulled]


@dataclass(frozen=True)
class State:
    """A state directory that dbt can defer to. pulled: None when it is a local folder."""

    folder: Path
    manifest: Entry
    pulled: Pulled | None = None


def prepare(
    settings: Settings,
    project: Project,
    *,
    dbt: Dbt | None,
    max_age_s: float | None,
    pull: Pull,
    environ: Mapping[str, str],
) -> State:
    """The state of these settings, checked to be one that dbt really defers to.

    dbt: the one that will read it, or None when that does not matter.
    Raises UsageError when nothing is set or the folder can't be one, ArtifactRefused for a manifest that this dbt
    can't read, that is of another project or too old; and whatever pulling raises.
    """
    series = dbt.series if dbt else None
    if settings.mode == "integration" and settings.integration_id:
        wish = Wish(
            settings.integration_id, settings.environment, readable_by=series, max_age_s=max_age_s
        )
        pulled = pull(wish)
        [manifest] = pulled.entries
        state = State(pulled.folder, manifest, pulled)
    elif settings.mode == "local":
        state = _local(settings, series, environ)
        check_age(state.manifest, max_age_s)
    else:
        raise UsageError(
            "nothing is set to defer to: say where the manifest is with `datapilot dbt defer enable "
            "--integration-id N`, `--integration-name NAME` or `--manifest-path FOLDER`"
        )
    check_folder(state.folder, project)
    check_belongs(
        unique_ids(state.folder / Kind.MANIFEST.file_name),
        project,
        manifest_project=state.manifest.project_name,
    )
    return state


def check_folder(folder: Path, project: Project) -> None:
    """Raises UsageError when the folder is dbt's own target folder."""
    if is_target(folder, project):
        raise UsageError(
            f"the state directory {folder} is dbt's own target folder: dbt overwrites the manifest there before it "
            "looks at it, and silently defers nothing; copy production's manifest to another folder"
        )


def _local(settings: Settings, series: str | None, environ: Mapping[str, str]) -> State:
    folder = defer_settings.manifest_folder(settings, environ)
    file = folder / Kind.MANIFEST.file_name
    if not file.is_file():
        there = "holds no manifest.json" if folder.is_dir() else "is no folder"
        raise UsageError(
            f"{folder} {there}: copy manifest.json there, from the target folder of the production job"
        )
    return State(folder, _described(read(file), series))


def _described(artifact: Artifact, series: str | None) -> Entry:
    """What a record would say of a manifest. Raises ArtifactRefused when this dbt can't read it."""
    from datapilot_defer.validation import validate

    verdict = validate(artifact, readable_by=series)
    if not verdict.accepted:
        reader = f"dbt {series}" if series else "dbt"
        raise ArtifactRefused(
            "\n".join([f"{reader} can't defer to {artifact.path}:", *verdict.describe()])
        )
    return describe(artifact, verdict.readable_by)
