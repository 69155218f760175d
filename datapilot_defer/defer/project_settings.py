"""The defer settings of a project, and the options of one command that override them.

The settings are those of the VS Code extension's panel, so that both show the same values. Only
this program uses the key `environment` in the project's entry. It is preserved, because the panel
changes one key at a time, and the extension ignores unknown keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from datapilot_defer.config import is_protected_variable
from datapilot_defer.defer.settings_file import SettingsFile
from datapilot_defer.errors import UsageError
from datapilot_defer.pull.integration_names import resolve_integration_id

if TYPE_CHECKING:
    from datapilot_defer.client.connection import Connection
    from datapilot_defer.dbt_project import DbtProject

_MODE_OF_PATH_TYPE = {"local": "local", "remote": "integration"}
_TYPE_DESCRIPTIONS = {bool: "true or false", str: "a text in quotes", int: "a number"}
_ENVIRONMENT_VARIABLE = re.compile(r"\$\{env:([^}]*)\}")
_WORKSPACE_VARIABLE = "${workspaceFolder}"

T = TypeVar("T", bool, int, str)


@dataclass(frozen=True)
class DeferSettings:
    """Settings of one project.

    mode: "local" (uses manifest_path, stored as written), "integration" (uses integration_id and
    environment), or None if no source is stored.
    """

    file: SettingsFile
    enabled: bool = False
    favor_state: bool = False
    mode: str | None = None
    manifest_path: str | None = None
    integration_id: int | None = None
    environment: str | None = None


@dataclass(frozen=True)
class SettingsOverrides:
    """Options of one command that override stored settings. integration: ID or name."""

    integration: int | str | None = None
    environment: str | None = None
    manifest_path: str | None = None
    favor_state: bool | None = None

    @property
    def has_source(self) -> bool:
        """Return whether the options select a manifest on their own."""
        return self.integration is not None or bool(self.manifest_path)


def read_settings(file: SettingsFile) -> DeferSettings:
    """Return the project's settings; everything is off if the file has none.

    Settings of the other mode are not read, because `enable` does not replace them.

    Raises UsageError for a value that is invalid or has the wrong type.
    """
    path_type = _read_value(file, "manifestPathType", str)
    mode = None
    if path_type is not None:
        if path_type not in _MODE_OF_PATH_TYPE:
            raise UsageError(
                f'{file.location}.manifestPathType must be "local" or "remote", it is "{path_type}"'
            )
        mode = _MODE_OF_PATH_TYPE[path_type]
    settings = DeferSettings(
        file,
        enabled=_read_value(file, "deferToProduction", bool) or False,
        favor_state=_read_value(file, "favorState", bool) or False,
        mode=mode,
    )
    if mode == "local":
        manifest_path = _read_value(file, "manifestPathForDeferral", str) or None
        return replace(settings, manifest_path=manifest_path)
    return replace(
        settings,
        integration_id=_read_value(file, "dbtCoreIntegrationId", int),
        environment=_read_environment(file),
    )


def _read_environment(file: SettingsFile) -> str | None:
    """Return the environment, or None.

    Raises UsageError for an unpaired surrogate, which JSON can contain, but which cannot be sent.
    """
    environment = _read_value(file, "environment", str) or ""
    try:
        environment.encode()
    except UnicodeEncodeError:
        raise _wrong_value_error(file, "environment", "text in UTF-8") from None
    return environment or None


def _read_value(file: SettingsFile, name: str, expected: type[T]) -> T | None:
    value = file.entry.get(name)
    if value is None:
        return None
    if type(value) is not expected:
        raise _wrong_value_error(file, name, _TYPE_DESCRIPTIONS[expected])
    return value


def _wrong_value_error(file: SettingsFile, name: str, expected: str) -> UsageError:
    return UsageError(
        f"{file.location}.{name} must be {expected}. Fix it, or replace it with "
        "`datapilot dbt defer enable` and --integration-id, --integration-name or "
        "--manifest-path"
    )


def apply_overrides(
    stored: DeferSettings, overrides: SettingsOverrides, *, connection: Connection, offline: bool
) -> DeferSettings:
    """Return the settings, overridden by the options of this command.

    offline: look up the name of an integration in the cache only.

    Raises UsageError for options that exclude each other, and the errors of
    `resolve_integration_id`.
    """
    settings = stored
    if overrides.favor_state is not None:
        settings = replace(settings, favor_state=overrides.favor_state)
    if overrides.integration is not None:
        if overrides.manifest_path:
            raise UsageError("use an integration or --manifest-path, not both")
        return replace(
            settings,
            enabled=True,
            mode="integration",
            integration_id=resolve_integration_id(
                connection, overrides.integration, offline=offline
            ),
            environment=overrides.environment,
        )
    if overrides.manifest_path:
        manifest_path = _absolute_path(overrides.manifest_path)
        return replace(settings, enabled=True, mode="local", manifest_path=manifest_path)
    if overrides.environment:
        return replace(settings, environment=overrides.environment)
    return settings


def _absolute_path(written: str) -> str:
    """Return the absolute manifest directory of a path on the command line.

    A path with a variable, `${…}`, is returned unchanged.
    """
    if "${" in written:
        return written
    return str(manifest_directory(Path(os.path.normpath(Path.cwd() / written))))


def require_enabled(settings: DeferSettings, project: DbtProject) -> DeferSettings:
    """Return the settings. Raises UsageError if defer is off."""
    if not settings.enabled:
        raise UsageError(
            f"defer is off for {project.name} ({settings.file.path}). Turn it on with "
            "`datapilot dbt defer enable`, or select the manifest for this call with "
            "--integration-id, --integration-name or --manifest-path"
        )
    return settings


def resolve_manifest_directory(settings: DeferSettings, environ: Mapping[str, str]) -> Path:
    """Return the absolute manifest directory of local mode, with variables expanded.

    Raises UsageError if no path is set, if an environment variable in it is not set or may contain
    a secret, and if the directory cannot be read.
    """
    file = settings.file
    if not settings.manifest_path:
        raise UsageError(
            f"{file.location}.manifestPathForDeferral is missing. Set it to the directory "
            "of manifest.json"
        )
    expand = partial(_expand_variable, file, environ)
    path = _ENVIRONMENT_VARIABLE.sub(expand, settings.manifest_path)
    path = path.replace(_WORKSPACE_VARIABLE, str(file.base))
    directory = manifest_directory(Path(os.path.normpath(file.base / path)))
    _check_accessible(directory)
    return directory


def _check_accessible(directory: Path) -> None:
    """Raise UsageError if the directory cannot be accessed. A missing one is accepted."""
    try:
        (directory / "manifest.json").stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror}") from None


def _expand_variable(file: SettingsFile, environ: Mapping[str, str], match: re.Match[str]) -> str:
    name = match.group(1)
    reason = None
    if is_protected_variable(name, environ):
        reason = "may contain a secret"
    elif not environ.get(name):
        reason = "is not set"
    if reason:
        raise UsageError(
            f"{file.location}.manifestPathForDeferral contains the environment variable "
            f"{name}, which {reason}"
        )
    return environ[name]


def manifest_directory(path: Path) -> Path:
    """Return a path, or its parent directory if it is the path of a manifest.json file."""
    # Path.is_dir raises an error for a name that is too long.
    if path.name == "manifest.json" and not os.path.isdir(path):  # noqa: PTH112
        return path.parent
    return path


def to_portable_path(path: Path, file: SettingsFile) -> str:
    """Return a path as a shared settings file should contain it.

    It is relative to `${workspaceFolder}`, or unchanged if it is outside the workspace.
    """
    if not path.is_relative_to(file.base):
        return str(path)
    return f"{_WORKSPACE_VARIABLE}/{path.relative_to(file.base).as_posix()}"


def relocate_path(written: str, source: SettingsFile, target: SettingsFile) -> str:
    """Return the manifest path of one settings file, as another one should contain it.

    It is unchanged if both have the same base or if it starts with an environment variable.
    """
    if source.base == target.base or written.startswith("${env:"):
        return written
    path = source.base / written.replace(_WORKSPACE_VARIABLE, str(source.base))
    return to_portable_path(Path(os.path.normpath(path)), target)
