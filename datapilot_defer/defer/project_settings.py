"""The defer settings of a project: the ones of the VS Code extension's panel, so that both show the same switch.

They are `dbt.deferConfigPerProject` in the workspace's `.vscode/settings.json`; outside a workspace the same in a
file of our own. The key of a project is its folder relative to the workspace, "" when they are the same.

`environment` is a key of ours inside the project's entry. The panel changes one key of an entry at a time and
keeps the others, and the extension ignores what it does not know, so it survives there, beside what it belongs to.
Source: `insightsPanel.ts` and `deferToProdService.ts` of the extension vscode-dbt-power-user 0.64.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from datapilot_defer.config import CREDENTIAL_VARIABLES, home_directory, user_config_directory
from datapilot_defer.defer import jsonc
from datapilot_defer.errors import UsageError

SETTINGS_KEY = "dbt.deferConfigPerProject"
_MODE_OF_PATH_TYPE = {"local": "local", "remote": "integration"}
_SECRET_VARIABLES = set(CREDENTIAL_VARIABLES["token"])

T = TypeVar("T")


@dataclass(frozen=True)
class SettingsFile:
    """Where the settings of one project are kept. base: what relative paths in them are relative to."""

    file: Path
    key: str
    base: Path
    exists: bool


@dataclass(frozen=True)
class DeferSettings:
    """A project's settings. mode: "local" (of manifest_path, as written) or "integration" (of integration_id)."""

    place: SettingsFile
    enabled: bool = False
    favor_state: bool = False
    mode: str | None = None
    manifest_path: str | None = None
    integration_id: int | None = None
    environment: str | None = None


def read_settings(project: Path, environ: Mapping[str, str]) -> DeferSettings:
    """The settings of the project in this folder; all off when there are none. Raises UsageError for a broken file."""
    place = find_settings_file(project, environ)
    entry = project_entry(_parse(place.file), place)

    def get(name: str, wanted: type[T]) -> T | None:
        value = entry.get(name)
        if value is None:
            return None
        if type(value) is not wanted:
            words = {bool: "true or false", str: "a text in quotes", int: "a number"}[wanted]
            raise UsageError(
                f"{setting_path(place)}.{name} must be {words}; mend it, or run `datapilot dbt defer enable`"
            )
        return value

    kind = get("manifestPathType", str)
    if kind is not None and kind not in _MODE_OF_PATH_TYPE:
        raise UsageError(
            f'{setting_path(place)}.manifestPathType must be "local" or "remote", it is "{kind}"'
        )
    return DeferSettings(
        place,
        enabled=get("deferToProduction", bool) or False,
        favor_state=get("favorState", bool) or False,
        mode=_MODE_OF_PATH_TYPE[kind] if kind else None,
        manifest_path=get("manifestPathForDeferral", str) or None,
        integration_id=get("dbtCoreIntegrationId", int),
        environment=get("environment", str) or None,
    )


def write(place: SettingsFile, changes: Mapping[str, object]) -> None:
    """Set these keys of the project's entry; every other byte of the file stays.

    Raises UsageError when the file can't be parsed (it is left alone) or can't be written.
    """
    text = _read_text(place.file)
    for name, value in changes.items():
        try:
            text = jsonc.set_value(text, [SETTINGS_KEY, place.key, name], value)
        except jsonc.NotJsoncError as error:
            raise _unreadable_error(place.file, str(error)) from None
    _save(place.file, text)


def remove(place: SettingsFile) -> None:
    """Take the project's entry out of the file; the entries of others stay. Raises UsageError as `write` does."""
    projects = _parse(place.file).get(SETTINGS_KEY)
    if isinstance(projects, dict) and place.key in projects:
        others = {key: entry for key, entry in projects.items() if key != place.key}
        _save(place.file, jsonc.set_value(_read_text(place.file), [SETTINGS_KEY], others))


def _save(file: Path, text: str) -> None:
    target = file.resolve()  # the file may be a link into somebody's dotfiles
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(text.encode("utf-8"))
        if target.exists():
            beside.chmod(target.stat().st_mode & 0o777)
        beside.replace(target)
    except OSError as error:
        with suppress(OSError):  # a read-only file system refuses this too
            beside.unlink()
        raise UsageError(f"can't write the settings to {file}: {error.strerror}") from None


def find_settings_file(project: Path, environ: Mapping[str, str]) -> SettingsFile:
    """Where this project's settings are: the workspace that has some, else the user's file that has some, else where
    they would be written."""
    own = user_settings_file(project)
    shared = workspace_settings_file(project, environ) or own
    return own if own.exists and not shared.exists else shared


def workspace_settings_file(project: Path, environ: Mapping[str, str]) -> SettingsFile | None:
    """Where this project's settings are, or would be, in a workspace, which VS Code reads; None outside any."""
    places = [_in_workspace(folder, project) for folder in _find_workspaces(project, environ)]
    return next((place for place in places if place.exists), next(iter(places), None))


def user_settings_file(project: Path) -> SettingsFile:
    """Where this project's settings are when they are the user's own, outside any workspace."""
    folder = user_config_directory()
    if folder is None:  # no home: what is beside the project persists as long as the project does
        return _in_workspace(project, project)
    file, key = folder / "defer.json", str(project)
    return SettingsFile(file, key, project, _has_project(file, key))


def resolve_manifest_directory(settings: DeferSettings, environ: Mapping[str, str]) -> Path:
    """The folder of local mode, variables filled in, absolute. A path of a manifest.json means its folder.

    Raises UsageError when none is set or an environment variable in it is not.
    """
    place, written = settings.place, settings.manifest_path
    if not written:
        raise UsageError(
            f"{setting_path(place)}.manifestPathForDeferral is missing: say which folder holds manifest.json"
        )

    def fill(found: re.Match[str]) -> str:
        name = found.group(1)
        if name in _SECRET_VARIABLES or not environ.get(name):
            reason = "holds a token" if name in _SECRET_VARIABLES else "is not set"
            raise UsageError(
                f"{setting_path(place)}.manifestPathForDeferral names environment variable {name}, which {reason}"
            )
        return environ[name]

    path = re.sub(r"\$\{env:([^}]*)\}", fill, written).replace(
        "${workspaceFolder}", str(place.base)
    )
    return manifest_directory(Path(os.path.normpath(place.base / path)))


def manifest_directory(path: Path) -> Path:
    """The folder that a path of a manifest means: itself, or the one that holds the manifest.json that it names."""
    return path.parent if path.name == "manifest.json" and not path.is_dir() else path


def to_portable_path(path: Path, place: SettingsFile) -> str:
    """The path as a shared settings file should have it: relative to the workspace where it lies inside."""
    inside = path.is_relative_to(place.base)
    return "${workspaceFolder}/" + path.relative_to(place.base).as_posix() if inside else str(path)


def relocate_path(written: str, source: SettingsFile, target: SettingsFile) -> str:
    """A path of local mode that is written at one place, as it should be at another."""
    if source.base == target.base:
        return written
    path = source.base / written.replace("${workspaceFolder}", str(source.base))
    return (
        written
        if written.startswith("${env:")
        else to_portable_path(Path(os.path.normpath(path)), target)
    )


def _find_workspaces(project: Path, environ: Mapping[str, str]) -> list[Path]:
    """The folders with a `.vscode`, nearest first, up to the git root; the home folder's is VS Code's own."""
    home = home_directory(environ)
    found = []
    for folder in [project, *project.parents]:
        if home is not None and folder == home.resolve():
            break
        if (folder / ".vscode").is_dir():
            found.append(folder)
        if (folder / ".git").exists():
            break
    return found


def _in_workspace(folder: Path, project: Path) -> SettingsFile:
    """As the extension does: path.relative(workspace, project), with the separators of the operating system."""
    file = folder / ".vscode" / "settings.json"
    relative = os.path.relpath(project, folder)
    native = "" if relative == "." else relative
    other = native.replace("\\", "/") if os.sep == "\\" else native.replace("/", "\\")
    key = other if not _has_project(file, native) and _has_project(file, other) else native
    return SettingsFile(file, key, folder, _has_project(file, key))


def _has_project(file: Path, key: str) -> bool:
    projects = _parse(file).get(SETTINGS_KEY)
    return isinstance(projects, dict) and key in projects


def project_entry(values: Mapping[str, object], place: SettingsFile) -> Mapping[str, object]:
    projects = values.get(SETTINGS_KEY, {})
    entry = projects.get(place.key, {}) if isinstance(projects, dict) else projects
    if not isinstance(entry, dict):
        raise UsageError(f"{setting_path(place)} must be an object, {{…}}; mend or delete it")
    return entry


def _parse(file: Path) -> Mapping[str, object]:
    try:
        value = jsonc.parse(_read_text(file)).value
    except jsonc.NotJsoncError as error:
        raise _unreadable_error(file, str(error)) from None
    if not isinstance(value, dict):
        raise _unreadable_error(file, "it is not an object, {…}")
    return value


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise _unreadable_error(file, "it is not UTF-8 text") from None
    except OSError as error:
        raise _unreadable_error(file, error.strerror or "it can't be read") from None


def _unreadable_error(file: Path, reason: str) -> UsageError:
    return UsageError(f"{file}: {reason}; mend it (it was left as it is)")


def setting_path(place: SettingsFile) -> str:
    return f'{place.file}: "{SETTINGS_KEY}"."{place.key}"'
