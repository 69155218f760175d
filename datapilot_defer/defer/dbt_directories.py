"""The project directory and the profiles directory of a dbt command.

Users may write their options before or after dbt's command. dbt 1.x accepts them only after it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.config import home_directory
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.errors import UsageError

PROFILES_FILE = "profiles.yml"
# Commands that need no project, or only print help.
_COMMANDS_WITHOUT_PROJECT = {("docs",), ("source",), ("system",), ("man",)}


@dataclass(frozen=True)
class DirectoryOptions:
    """The directories that the user gave, as absolute paths.

    words: the arguments for dbt without these options. project, profiles: None if not given.
    """

    words: tuple[str, ...]
    project: Path | None
    profiles: Path | None


def take_directory_options(
    words: Sequence[str], *, project_dir: str | None, profiles_dir: str | None
) -> DirectoryOptions:
    """Separate the options for directories from the other arguments for dbt.

    project_dir, profiles_dir: options that precede dbt's command. The last occurrence of an option
    takes precedence.

    Raises UsageError for an option without a directory.
    """
    project_value, without_project = _take_option(words, "--project-dir")
    profiles_value, rest = _take_option(without_project, "--profiles-dir")
    if project_value is None:
        project_value = project_dir
    if profiles_value is None:
        profiles_value = profiles_dir
    return DirectoryOptions(
        tuple(rest),
        _absolute_directory("--project-dir", project_value),
        _absolute_directory("--profiles-dir", profiles_value),
    )


def _take_option(words: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Return the last value of an option, or None, and the remaining words."""
    value = None
    others: list[str] = []
    remaining = iter(words)
    for word in remaining:
        option, equals, rest = word.partition("=")
        if word == "--":  # the words after it are arguments, not options
            others += [word, *remaining]
        elif option != name:
            others.append(word)
        elif equals:
            value = rest
        else:
            value = next(remaining, "")
    return value, others


def _absolute_directory(name: str, value: str | None) -> Path | None:
    if value is None:
        return None
    if not value:
        raise UsageError(f"{name} has no value. Add the path of a directory")
    return Path(value).absolute()


def directory_flags(
    command: tuple[str, ...],
    given: DirectoryOptions,
    project: DbtProject,
    environ: Mapping[str, str],
) -> list[str]:
    """Return dbt's flags for the directories; [] for a command that needs no project."""
    if command in _COMMANDS_WITHOUT_PROJECT:
        return []
    flags: list[str] = []
    # `dbt clean` rejects --project-dir for any directory except the current one.
    if command != ("clean",) or given.project is not None:
        flags += ["--project-dir", str(project.folder)]
    profiles = given.profiles or fallback_profiles_directory(project, environ)
    if profiles is not None:
        flags += ["--profiles-dir", str(profiles)]
    return flags


def fallback_profiles_directory(project: DbtProject, environ: Mapping[str, str]) -> Path | None:
    """Return the project's directory if only it has a profiles.yml; None otherwise.

    dbt itself does not look for the file there.
    """
    if _find_as_dbt(environ) is not None or not _has_profiles(project.folder):
        return None
    return project.folder


def find_profiles_directory(project: DbtProject, environ: Mapping[str, str]) -> Path:
    """Return the directory of profiles.yml for a command without --profiles-dir."""
    return _find_as_dbt(environ) or project.folder


def _find_as_dbt(environ: Mapping[str, str]) -> Path | None:
    """Return the directory where dbt finds profiles.yml, or None.

    It is the value of DBT_PROFILES_DIR, the current directory or ~/.dbt. dbt does not look in the
    project's directory.
    """
    named = environ.get("DBT_ENGINE_PROFILES_DIR") or environ.get("DBT_PROFILES_DIR")
    if named:
        return Path(named).absolute()
    candidates = [Path.cwd()]
    home = home_directory(environ)
    if home is not None:
        candidates.append(home / ".dbt")
    return next((path for path in candidates if _has_profiles(path)), None)


def _has_profiles(directory: Path) -> bool:
    # Path.exists would raise for a home directory that is invalid or not accessible.
    return os.path.exists(directory / PROFILES_FILE)  # noqa: PTH110
