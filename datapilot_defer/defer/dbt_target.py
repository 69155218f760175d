"""The target of a dbt command, as far as it can be determined without running dbt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.dbt_project import PROJECT_FILE, DbtProject
from datapilot_defer.defer.command_line import find_option
from datapilot_defer.defer.dbt_directories import PROFILES_FILE, find_profiles_directory
from datapilot_defer.errors import UsageError
from datapilot_defer.yaml_file import read_yaml_file

# Settings of a target that do not change relations. Any other setting may: adapters differ.
_CONNECTION_SETTINGS = {
    *("type", "threads", "host", "port", "server", "account", "http_path", "warehouse", "role"),
    *("user", "username", "pass", "password", "token", "client_id", "client_secret"),
    *("private_key", "private_key_path", "private_key_passphrase"),
}
_NODE_SETTINGS = ("models", "seeds", "snapshots")
ENVIRONMENT_OR_VARIABLE = re.compile(r"var\s*\(")  # env_var(…) or var(…)


@dataclass(frozen=True)
class DbtTarget:
    """The settings that select the target of a dbt command.

    name, profile: None selects the default. profiles: the directory of profiles.yml.
    """

    name: str | None
    profile: str | None
    profiles: Path


def select_target(
    project: DbtProject, options: Sequence[str], environ: Mapping[str, str]
) -> DbtTarget:
    """Return the target that these options, or else the environment variables, select."""
    directory = find_option(options, "--profiles-dir")
    profiles = find_profiles_directory(project, environ)
    if directory:
        profiles = Path(directory).absolute()
    return DbtTarget(
        find_option(options, "--target", "-t") or _read_variable(environ, "TARGET"),
        find_option(options, "--profile") or _read_variable(environ, "PROFILE"),
        profiles,
    )


def _read_variable(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(f"DBT_ENGINE_{name}") or environ.get(f"DBT_{name}") or None


def find_constant_target(target: DbtTarget, project: DbtProject) -> tuple[str, str] | None:
    """Return the names of the profile and the target, with defaults applied.

    Returns None if they are unknown, or if the target's relations may change with environment
    variables or `--vars`.
    """
    settings = _read_settings(project.folder / PROJECT_FILE)
    if any(ENVIRONMENT_OR_VARIABLE.search(str(settings.get(name))) for name in _NODE_SETTINGS):
        return None
    profile_name = str(target.profile or settings.get("profile"))
    profile = _as_mapping(_read_settings(target.profiles / PROFILES_FILE).get(profile_name))
    name = str(target.name or profile.get("target") or "default")
    output = _as_mapping(_as_mapping(profile.get("outputs")).get(name))
    if not output or _has_changing_relations(output):
        return None
    return profile_name, name


def _has_changing_relations(output: Mapping[object, object]) -> bool:
    settings = output.items()
    return any("{{" in str(value) for name, value in settings if name not in _CONNECTION_SETTINGS)


def _read_settings(file: Path) -> Mapping[object, object]:
    try:
        return _as_mapping(read_yaml_file(file))
    except UsageError:  # dbt reports the problem
        return {}


def _as_mapping(value: object) -> Mapping[object, object]:
    if not isinstance(value, dict):
        return {}
    return value
