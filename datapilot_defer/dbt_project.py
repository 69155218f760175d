"""A dbt project on disk: its name, directories and target directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.errors import UsageError

PROJECT_FILE = "dbt_project.yml"
DEFAULT_PACKAGES_PATH = "dbt_packages"
_ENV_VAR = re.compile(
    r"\{\{\s*env_var\(\s*(['\"])(?P<name>\w+)\1\s*"
    r"(?:,\s*(['\"])(?P<default>[^'\"]*)\3\s*)?\)\s*\}\}"
)
# Setting of dbt_project.yml, its default, and the suffixes of files whose names are node names.
_SOURCE_DIRECTORIES = (
    ("model-paths", "models", (".sql", ".py")),
    ("seed-paths", "seeds", (".csv",)),
)


@dataclass(frozen=True)
class DbtProject:
    """A dbt project.

    folder: absolute, links resolved. target: where dbt writes its own artifacts, absolute.
    sources: the files of its models and seeds. packages_path: relative to the folder.
    """

    folder: Path
    name: str
    target: Path
    sources: tuple[Path, ...] = ()
    packages_path: str = DEFAULT_PACKAGES_PATH

    @property
    def packages(self) -> Path:
        """Return the directory where `dbt deps` installs packages."""
        return self.folder / self.packages_path


def find_project(start: Path | None, environ: Mapping[str, str]) -> DbtProject:
    """Return the project in `start`, else in DBT_PROJECT_DIR, else in the current directory.

    Only the current directory may be inside of a project; the others must be its directory.
    Raises UsageError when there is none, or its dbt_project.yml cannot be read.
    """
    named = start or _directory_from_environment(environ)
    first = Path(named or Path.cwd()).resolve()
    candidates = [first]
    searched = str(first)
    if named is None:
        candidates += first.parents
        searched += " or any folder above it"
    for directory in candidates:
        if (directory / PROJECT_FILE).is_file():
            return read_project(directory, environ)
    raise UsageError(
        f"no {PROJECT_FILE} in {searched}: change into a dbt project, "
        "or say where it is with --project-dir"
    )


def read_project(folder: Path, environ: Mapping[str, str]) -> DbtProject:
    """Return the project in exactly this directory. Raises UsageError when it cannot be read."""
    import yaml

    file = folder / PROJECT_FILE
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    # 2024-02-30 in YAML is a ValueError.
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"{file} can't be read: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise UsageError(f"{file} has no `name:`, so this is not a dbt project")
    target_path = (
        environ.get("DBT_ENGINE_TARGET_PATH")
        or environ.get("DBT_TARGET_PATH")
        or settings.get("target-path")
        or "target"
    )
    target = folder / _render_env_vars(str(target_path), environ)
    return DbtProject(
        folder,
        settings["name"],
        Path(os.path.normpath(target)),
        tuple(_find_source_files(folder, settings)),
        _find_packages_path(settings, environ),
    )


def is_target_directory(directory: Path, project: DbtProject) -> bool:
    """Return whether dbt writes its own artifacts there: before it reads the state in it."""
    if directory.resolve() == project.target.resolve():
        return True
    try:
        return directory.samefile(project.target)
    except OSError:
        return False


def _directory_from_environment(environ: Mapping[str, str]) -> Path | None:
    directory = environ.get("DBT_ENGINE_PROJECT_DIR") or environ.get("DBT_PROJECT_DIR")
    if not directory:
        return None
    return Path(directory)


def _render_env_vars(value: str, environ: Mapping[str, str]) -> str:
    """Return a path of dbt_project.yml with its `env_var(…)` rendered, and no other Jinja."""

    def render(match: re.Match[str]) -> str:
        return environ.get(match["name"], match["default"] or "")

    return _ENV_VAR.sub(render, value)


def _find_packages_path(settings: Mapping[str, object], environ: Mapping[str, str]) -> str:
    path = settings.get("packages-install-path")
    if not isinstance(path, str) or not path:
        return DEFAULT_PACKAGES_PATH
    return _render_env_vars(path, environ)


def _find_source_files(folder: Path, settings: Mapping[str, object]) -> Iterable[Path]:
    """Yield the files whose names are the names of models and seeds."""
    for setting, default, suffixes in _SOURCE_DIRECTORIES:
        names = settings.get(setting)
        if not isinstance(names, Sequence) or isinstance(names, str):
            names = [default]
        for name in names:
            files = (folder / str(name)).rglob("*")
            yield from (file for file in files if file.suffix in suffixes)
