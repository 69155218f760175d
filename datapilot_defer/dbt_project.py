"""A dbt project on disk: its name, directories and target directory."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.config import is_protected_variable
from datapilot_defer.errors import UsageError
from datapilot_defer.yaml_file import read_yaml_file

PROJECT_FILE = "dbt_project.yml"
DEFAULT_PACKAGES_PATH = "dbt_packages"
_DIRECTORY_VARIABLES = ("DBT_ENGINE_PROJECT_DIR", "DBT_PROJECT_DIR")  # in order of precedence
_ENV_VAR = re.compile(
    r"\{\{\s*env_var\(\s*(['\"])(?P<name>\w+)\1\s*"
    r"(?:,\s*(['\"])(?P<default>[^'\"]*)\3\s*)?\)\s*\}\}"
)
# Setting of dbt_project.yml, its default, and the suffixes of files whose names are node names.
_SOURCE_DIRECTORIES = (
    ("model-paths", "models", (".sql", ".py")),
    ("seed-paths", "seeds", (".csv",)),
)
_MAX_ENTRIES = 100_000
_MAX_WALK_S = 5.0


class NotInProject(UsageError):
    """No directory is specified, and the current one is not in a dbt project."""


@dataclass(frozen=True)
class DbtProject:
    """A dbt project.

    folder: absolute, with symbolic links resolved. target: the directory of dbt's own artifacts,
    absolute. sources: the files of its models and seeds; empty if its directories are too large to
    search. packages_path: relative to the folder.
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
    """Return the project in `start`, in DBT_PROJECT_DIR, or around the current directory.

    `start` and DBT_PROJECT_DIR (or DBT_ENGINE_PROJECT_DIR) must be the directory of the project.
    Without them, the nearest project is searched for from the current directory upwards.

    Raises UsageError if there is none, or if its dbt_project.yml cannot be read.
    """
    variable = _find_directory_variable(environ)
    named = start
    if start is None and variable is not None:
        named = Path(environ[variable])
    first = _resolve(named or Path.cwd())
    candidates = [first]
    searched = str(first)
    if named is None:
        candidates += first.parents
        searched += " or any directory above it"
    elif start is None:
        searched += f" (from {variable})"
    for directory in candidates:
        if _has_project_file(directory):
            return read_project(directory, environ)
    message = (
        f"no {PROJECT_FILE} in {searched}. Change to the directory of a dbt project, or "
        "use --project-dir"
    )
    if named is None:
        raise NotInProject(message)
    raise UsageError(message)


def read_project(folder: Path, environ: Mapping[str, str]) -> DbtProject:
    """Return the project in exactly this directory. Raises UsageError if it cannot be read."""
    file = folder / PROJECT_FILE
    settings = read_yaml_file(file)
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise UsageError(f"{file} has no `name:`, so this is not a dbt project")
    target = folder / _target_path(file, settings, environ)
    return DbtProject(
        folder,
        settings["name"],
        Path(os.path.normpath(target)),
        _find_source_files(folder, settings),
        _find_packages_path(settings, file, environ),
    )


def is_target_directory(directory: Path, project: DbtProject) -> bool:
    """Return whether this is dbt's target directory. dbt writes to it before it reads a state."""
    if _resolve(directory) == _resolve(project.target):
        return True
    try:
        return directory.samefile(project.target)
    except OSError:
        return False


def _resolve(path: Path) -> Path:
    """Return the path with symbolic links resolved. `Path.resolve` fails for a loop of links."""
    return Path(os.path.realpath(path))


def _find_directory_variable(environ: Mapping[str, str]) -> str | None:
    """Return the name of the environment variable with the project's directory, or None."""
    return next((name for name in _DIRECTORY_VARIABLES if environ.get(name)), None)


def _has_project_file(directory: Path) -> bool:
    """Return whether the directory has a project file, readable or not.

    Raises UsageError if that cannot be determined.
    """
    file = directory / PROJECT_FILE
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    return True


def _target_path(file: Path, settings: Mapping[str, object], environ: Mapping[str, str]) -> str:
    variable = environ.get("DBT_ENGINE_TARGET_PATH") or environ.get("DBT_TARGET_PATH")
    if variable:
        return variable
    written = settings.get("target-path")
    if not written or not isinstance(written, str):
        return "target"
    return _render_env_vars(written, f"{file}: target-path", environ)


def _render_env_vars(value: str, location: str, environ: Mapping[str, str]) -> str:
    """Return a path with each `env_var(…)` in it rendered. Other Jinja is left unchanged.

    location: file and setting, for messages. Raises UsageError for a NUL character, and for a
    variable that may contain a secret.
    """
    if "\0" in value:
        raise UsageError(f"{location} contains a NUL character, which no path can contain")

    def render(match: re.Match[str]) -> str:
        name = match["name"]
        if is_protected_variable(name, environ):
            raise UsageError(
                f"{location} contains the environment variable {name}, which may contain "
                "a secret. Use another one"
            )
        return environ.get(name, match["default"] or "")

    return _ENV_VAR.sub(render, value)


def _find_packages_path(
    settings: Mapping[str, object], file: Path, environ: Mapping[str, str]
) -> str:
    path = settings.get("packages-install-path")
    if not isinstance(path, str) or not path:
        return DEFAULT_PACKAGES_PATH
    return _render_env_vars(path, f"{file}: packages-install-path", environ)


def _find_source_files(folder: Path, settings: Mapping[str, object]) -> tuple[Path, ...]:
    """Return the files of models and seeds; none if the directories are too large to search."""
    sources: list[Path] = []
    walk = _Walk()
    for setting, default, suffixes in _SOURCE_DIRECTORIES:
        names = settings.get(setting)
        if not isinstance(names, list):
            names = [default]
        for name in names:
            if isinstance(name, str) and "\0" not in name:
                files = walk.list_files(folder / name)
                sources += [file for file in files if file.suffix in suffixes]
    if walk.is_incomplete:
        return ()
    return tuple(sources)


class _Walk:
    """A walk through directories that ends early if they are too large, such as `/`."""

    def __init__(self) -> None:
        self.is_incomplete = False
        self._remaining = _MAX_ENTRIES
        self._end = time.monotonic() + _MAX_WALK_S

    def list_files(self, directory: Path) -> Iterator[Path]:
        """Yield the files below a directory. Links to directories are not followed."""
        waiting = [str(directory)]
        while waiting and not self.is_incomplete:
            with suppress(OSError), os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if not self._may_continue():
                        return
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield Path(entry.path)

    def _may_continue(self) -> bool:
        self._remaining -= 1
        if self._remaining < 0 or time.monotonic() > self._end:
            self.is_incomplete = True
        return not self.is_incomplete
