"""Files with the defer settings of dbt projects.

In a workspace, the settings are `dbt.deferConfigPerProject` in `.vscode/settings.json`, which the
panel of the VS Code extension also uses. The key of a project is its directory relative to the
workspace, "" if they are the same. Outside a workspace, the settings are in a file in the user's
config directory, and the key is the directory of the project.

Source: `insightsPanel.ts` and `deferToProdService.ts` of the extension vscode-dbt-power-user 0.64.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.config import home_directory, user_config_directory
from datapilot_defer.defer import jsonc
from datapilot_defer.defer.jsonc import JsoncValue
from datapilot_defer.defer.settings_lock import lock_settings
from datapilot_defer.errors import UsageError
from datapilot_defer.files import read_small_file, write_atomically

if TYPE_CHECKING:
    from datapilot_defer.deadline import Deadline

SETTINGS_KEY = "dbt.deferConfigPerProject"
_EMPTY = jsonc.parse("")


@dataclass(frozen=True)
class SettingsFile:
    """A settings file, read once, and the key of one project in it.

    base: the directory that paths in the file are relative to. text, root: the content and its
    parsed value; empty if the file does not exist or cannot be read. problem: the error that
    explains why it cannot be read, or None.
    """

    path: Path
    key: str
    base: Path
    text: str = ""
    root: JsoncValue = _EMPTY
    problem: UsageError | None = None

    @property
    def has_project(self) -> bool:
        """Return whether the file has settings of the project."""
        return self.key in _projects(self.root)

    @property
    def entry(self) -> Mapping[str, object]:
        """Return the project's settings, or {}. Raises UsageError if they are not an object."""
        projects = _sections(self.root).get(SETTINGS_KEY, {})
        entry = projects
        if isinstance(projects, dict):
            entry = projects.get(self.key, {})
        if not isinstance(entry, dict):
            raise UsageError(f"{self.location} must be an object, {{…}}. Fix or delete it")
        return entry

    @property
    def location(self) -> str:
        """Return the file and the key, for messages."""
        return f'{self.path}: "{SETTINGS_KEY}"."{self.key}"'

    def update(self, changes: Mapping[str, object], deadline: Deadline | None = None) -> None:
        """Set these keys of the project's settings. Every other byte of the file is preserved.

        deadline: that of the command. Raises UsageError if the file cannot be parsed, which leaves
        it unchanged, or cannot be written. Raises Unavailable if another process keeps it locked.
        """
        try:
            Path(os.path.realpath(self.path)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_writable_error(error) from None
        with lock_settings(self.path, deadline):
            text, root = self._read_again()
            try:
                updated = jsonc.set_members(text, root, [SETTINGS_KEY, self.key], changes)
            except jsonc.NotJsoncError as error:
                raise _unreadable_error(self.path, str(error)) from None
            self._write(updated)

    def remove_project(self, deadline: Deadline | None = None) -> None:
        """Remove the project's settings. Keep those of other projects, with their comments.

        Raises the errors of `update`.
        """
        if not self.has_project:
            return
        with lock_settings(self.path, deadline):
            text, root = self._read_again()
            if self.key in _projects(root):
                self._write(jsonc.remove_member(text, root, [SETTINGS_KEY, self.key]))

    def _read_again(self) -> tuple[str, JsoncValue]:
        """Read the content again: an editor may have written the file in the meantime."""
        text = _read_text(self.path)
        if text == self.text:
            return text, self.root
        return text, _parse(self.path, text)

    def _write(self, text: str) -> None:
        try:
            # A file name may contain a character that UTF-8 cannot encode. It is written as a JSON
            # escape.
            write_atomically(self.path, text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise self._not_writable_error(error) from None

    def _not_writable_error(self, error: OSError) -> UsageError:
        return UsageError(f"cannot write the settings to {self.path}: {error.strerror}")


@dataclass(frozen=True)
class SettingsFiles:
    """The settings files of one project.

    user: the user's own, outside any workspace. workspace: the file that VS Code reads, which may
    not exist; None outside a workspace.
    """

    user: SettingsFile
    workspace: SettingsFile | None

    @property
    def own(self) -> SettingsFile:
        """Return the user's own file. Raises UsageError if it cannot be read."""
        if self.user.problem is not None:
            raise self.user.problem
        return self.user

    @property
    def shared(self) -> SettingsFile:
        """Return the workspace's file, or the user's own outside a workspace.

        Raises UsageError if it cannot be read.
        """
        if self.workspace is None:
            return self.own
        if self.workspace.problem is not None:
            raise UsageError(
                f"{self.workspace.problem}, or use your own settings with `datapilot dbt "
                "defer enable --user`"
            )
        return self.workspace

    @property
    def effective(self) -> SettingsFile:
        """Return the file with the project's settings. The workspace's file takes precedence.

        If neither file contains them, return `shared`, to which they are written. Raises UsageError
        for a file that cannot be read, unless the other one contains the settings.
        """
        if self.workspace is not None and self.workspace.has_project:
            return self.workspace
        if self.own.has_project:
            return self.user
        return self.shared


def read_settings_files(project: Path, environ: Mapping[str, str]) -> SettingsFiles:
    """Read the settings files of the project in this directory.

    Of several workspaces, use the nearest one whose file contains settings of the project or cannot
    be read, otherwise the nearest one.
    """
    user = user_settings_file(project)
    nearest = None
    for directory in _find_workspaces(project, environ):
        file = _in_workspace(directory, project)
        if file.has_project or file.problem is not None:
            return SettingsFiles(user, file)
        nearest = nearest or file
    return SettingsFiles(user, nearest)


def user_settings_file(project: Path) -> SettingsFile:
    """Read the user's own settings file."""
    directory = user_config_directory()
    # Without a home directory, a file in the project persists as long as the project.
    if directory is None:
        return _in_workspace(project, project)
    path = directory / "defer.json"
    try:
        text = _read_text(path)
        root = _parse(path, text)
    except UsageError as error:
        return SettingsFile(path, str(project), project, problem=error)
    return SettingsFile(path, str(project), project, text, root)


def _find_workspaces(project: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return the directories with a `.vscode`, nearest first, up to the root of the git repository.

    The search also stops at the home directory, because its `.vscode` belongs to VS Code itself.
    """
    home = home_directory(environ)
    workspaces = []
    for directory in [project, *project.parents]:
        if home is not None and directory == Path(os.path.realpath(home)):
            break
        if (directory / ".vscode").is_dir():
            workspaces.append(directory)
        if (directory / ".git").exists():
            break
    return workspaces


def _in_workspace(workspace: Path, project: Path) -> SettingsFile:
    path = workspace / ".vscode" / "settings.json"
    try:
        text = _read_text(path)
        root = _parse(path, text)
    except UsageError as error:
        return SettingsFile(path, "", workspace, problem=error)
    key = _project_key(workspace, project, root)
    return SettingsFile(path, key, workspace, text, root)


def _project_key(workspace: Path, project: Path, root: JsoncValue) -> str:
    """Return the key that the extension writes: path.relative(workspace, project).

    If only a key with the path separator of another operating system exists, return that one. A
    colleague may have written it.
    """
    native = os.path.relpath(project, workspace)
    if native == ".":
        native = ""
    foreign = native.replace("/", "\\")
    if os.sep == "\\":
        foreign = native.replace("\\", "/")
    projects = _projects(root)
    if native not in projects and foreign in projects:
        return foreign
    return native


def _projects(root: JsoncValue) -> Mapping[str, object]:
    projects = _sections(root).get(SETTINGS_KEY)
    return projects if isinstance(projects, dict) else {}


def _sections(root: JsoncValue) -> Mapping[str, object]:
    return root.value if isinstance(root.value, dict) else {}


def _parse(path: Path, text: str) -> JsoncValue:
    try:
        root = jsonc.parse(text)
    except jsonc.NotJsoncError as error:
        raise _unreadable_error(path, str(error)) from None
    if root.members is None:
        raise _unreadable_error(path, "it is not an object, {…}")
    return root


def _read_text(path: Path) -> str:
    try:
        return read_small_file(path).decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise _unreadable_error(path, "it is not UTF-8 text") from None
    except OSError as error:
        raise _unreadable_error(path, error.strerror or "it cannot be read") from None


def _unreadable_error(path: Path, reason: str) -> UsageError:
    return UsageError(f"cannot use {path}: {reason}. Fix the file, which was left unchanged")
