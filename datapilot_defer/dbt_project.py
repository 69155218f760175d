"""A dbt project on disk: its name, its target folder, and whether a manifest is one of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.errors import ArtifactRefused, UsageError

PROJECT_FILE = "dbt_project.yml"
_ENV_VAR = re.compile(
    r"\{\{\s*env_var\(\s*(['\"])(?P<name>\w+)\1\s*(?:,\s*(['\"])(?P<default>[^'\"]*)\3\s*)?\)\s*\}\}"
)


@dataclass(frozen=True)
class DbtProject:
    """A dbt project. folder: absolute, links resolved. target: where dbt writes its own artifacts, absolute."""

    folder: Path
    name: str
    target: Path
    sources: tuple[Path, ...] = ()


def find_project(start: Path | None, environ: Mapping[str, str]) -> DbtProject:
    """The project of `start`, else of DBT_PROJECT_DIR, else of the working folder or the nearest one above it.

    Raises UsageError when there is none, or its dbt_project.yml can't be read.
    """
    named = start or _directory_from_environment(environ)
    here = Path(named or Path.cwd()).resolve()
    folders = [here] if named else [here, *here.parents]
    folder = next((each for each in folders if (each / PROJECT_FILE).is_file()), None)
    if folder is None:
        above = "" if named else " or any folder above it"
        raise UsageError(
            f"no {PROJECT_FILE} in {here}{above}: change into a dbt project, or say where it is with --project-dir"
        )
    return read_project(folder, environ)


def read_project(folder: Path, environ: Mapping[str, str]) -> DbtProject:
    """The project in exactly this folder. Raises UsageError when its dbt_project.yml can't be read."""
    import yaml

    file = folder / PROJECT_FILE
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
        yaml.YAMLError,
        RecursionError,
    ) as error:  # 2024-02-30 is a ValueError
        raise UsageError(f"{file} can't be read: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise UsageError(f"{file} has no `name:`, so this is not a dbt project")
    given = (
        environ.get("DBT_ENGINE_TARGET_PATH")
        or environ.get("DBT_TARGET_PATH")
        or settings.get("target-path")
    )
    target = folder / _render_env_vars(str(given or "target"), environ)
    return DbtProject(
        folder,
        settings["name"],
        Path(os.path.normpath(target)),
        tuple(_find_source_files(folder, settings)),
    )


def check_belongs(ids: Iterable[str], project: DbtProject, *, manifest_project: str | None) -> None:
    """Refuse a manifest of another project: dbt would not say a word, and defer nothing.

    ids: the unique ids of the manifest's nodes. dbt matches by unique id alone, `model.<project>.<model>`.
    Raises ArtifactRefused.
    """
    own = [
        parts
        for parts in (unique_id.split(".") for unique_id in ids)
        if parts[1:2] == [project.name]
    ]
    if not own:
        made_by = (
            f"is of project {manifest_project!r}" if manifest_project else "is of another project"
        )
        raise ArtifactRefused(
            f"the manifest {made_by} and has nothing of this one, {project.name!r} ({project.folder / PROJECT_FILE}): "
            "dbt matches models by project name and model name, so it would silently defer nothing; "
            "use the integration or folder of this project"
        )
    here = {path.stem for path in project.sources}
    there = {"_".join(parts[2:]) for parts in own} | {parts[2] for parts in own if len(parts) > 2}
    if here and not here & there:
        raise ArtifactRefused(
            f"the manifest is of a project that is also called {project.name!r}, but shares no model or seed with "
            f"{project.folder}: dbt would silently defer nothing; use the integration or folder of this project"
        )


def is_target_directory(folder: Path, project: DbtProject) -> bool:
    """Whether this folder is dbt's own target folder: dbt overwrites it before it looks at the state."""
    if folder.resolve() == project.target.resolve():
        return True
    try:
        return folder.samefile(project.target)
    except OSError:
        return False


def _directory_from_environment(environ: Mapping[str, str]) -> Path | None:
    given = environ.get("DBT_ENGINE_PROJECT_DIR") or environ.get("DBT_PROJECT_DIR")
    return Path(given) if given else None


def _render_env_vars(value: str, environ: Mapping[str, str]) -> str:
    """A path of dbt_project.yml with its `env_var(…)` filled in; other Jinja does not belong there."""

    def fill(found: re.Match[str]) -> str:
        return environ.get(found["name"], found["default"] or "")

    return _ENV_VAR.sub(fill, value)


def _find_source_files(folder: Path, settings: Mapping[str, object]) -> Iterable[Path]:
    """The files whose names are model and seed names."""
    for key, default, endings in (
        ("model-paths", "models", (".sql", ".py")),
        ("seed-paths", "seeds", (".csv",)),
    ):
        paths = settings.get(key)
        for name in (
            paths if isinstance(paths, Sequence) and not isinstance(paths, str) else [default]
        ):
            yield from (path for path in (folder / str(name)).rglob("*") if path.suffix in endings)
