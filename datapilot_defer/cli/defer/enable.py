"""`datapilot dbt defer enable` and `disable`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import (
    DeferOptions,
    choose_stored_file,
    defer_options,
    find_project,
    start_session,
    warn_of_problem,
)
from datapilot_defer.cli.defer.status import Evaluation, status_json
from datapilot_defer.cli.options import project_dir_option, start_deadline
from datapilot_defer.cli.output import Output, current_output

if TYPE_CHECKING:
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.deadline import Deadline
    from datapilot_defer.defer.project_settings import DeferSettings
    from datapilot_defer.defer.settings_file import SettingsFile, SettingsFiles


@click.command("enable", cls=Command)
@click.option(
    "--user",
    is_flag=True,
    help="Change your own settings instead of the workspace's .vscode/settings.json.",
)
@defer_options
def enable(user: bool, options: DeferOptions) -> None:
    """Turn defer on for the dbt project.

    Checks the manifest first. Writes the same settings as the VS Code extension's panel
    (.vscode/settings.json), so the editor shows the change. Without a directory .vscode, it writes
    your own settings file.

    Without --integration-id, --integration-name or --manifest-path, the previously stored source is
    used.

    \b
    Examples:
      datapilot dbt defer enable --integration-name shop
      datapilot dbt defer enable --manifest-path ../production --favor-state
    """
    from datapilot_defer.defer.project_settings import relocate_path

    deadline = start_deadline(options.connection.timeout_s)
    session = start_session(options)
    project = session.project
    files = session.settings_files
    target = _choose_target(files, user=user)
    stored = session.read_stored_settings(user=user)
    settings = replace(session.apply_overrides(stored), enabled=True, file=target)
    if settings.manifest_path and not options.overrides.manifest_path:
        manifest_path = relocate_path(settings.manifest_path, stored.file, target)
        settings = replace(settings, manifest_path=manifest_path)
    dbt = session.find_dbt_or_warn()
    state = session.prepare_state(settings, dbt)
    target.update(_settings_changes(settings, stored), deadline)
    session.console.note(
        f"Defer is on for {project.name}, in {target.path}. Deferring to {state.describe()}"
    )
    _remove_duplicate_settings(session.console, project, files, target, deadline)
    data = status_json(Evaluation(settings, settings, project, dbt, state))
    session.console.print_result(data, "")


@click.command("disable", cls=Command)
@click.option(
    "--user",
    is_flag=True,
    help="Change your own settings instead of the workspace's .vscode/settings.json.",
)
@project_dir_option
def disable(user: bool, project_dir: str | None) -> None:
    """Turn defer off for the dbt project.

    The source of the manifest stays stored.

    \b
    Example:
      datapilot dbt defer disable
    """
    from datapilot_defer.defer.settings_file import read_settings_files

    console = current_output()
    project = find_project(project_dir)
    files = read_settings_files(project.folder, os.environ)
    file = choose_stored_file(files, user=user)
    warn_of_problem(console, files, file)
    message = f"Defer is off for {project.name}"
    if file.has_project:
        file.update({"deferToProduction": False})
        message += f"; set in {file.path}"
    console.note(message)
    console.print_result({"ok": True, "enabled": False, "settings_file": str(file.path)}, "")


def _choose_target(files: SettingsFiles, *, user: bool) -> SettingsFile:
    """Return the settings file to write.

    Raises UsageError if the file cannot be read, or if writing it would have no effect.
    """
    if user:
        return choose_stored_file(files, user=True)
    return files.shared


def _settings_changes(settings: DeferSettings, stored: DeferSettings) -> dict[str, object]:
    """Return the settings to write, in the format of the extension's panel.

    Settings of the other mode are kept.
    """
    changes: dict[str, object] = {
        "deferToProduction": True,
        "favorState": settings.favor_state,
    }
    if settings.mode != "integration":
        changes["manifestPathType"] = "local"
        changes["manifestPathForDeferral"] = _written_manifest_path(settings, stored)
        return changes
    changes["manifestPathType"] = "remote"
    changes["dbtCoreIntegrationId"] = settings.integration_id
    if settings.environment or "environment" in settings.file.entry:
        changes["environment"] = settings.environment
    return changes


def _written_manifest_path(settings: DeferSettings, stored: DeferSettings) -> str:
    from datapilot_defer.defer.project_settings import to_portable_path

    path = settings.manifest_path or ""
    if "${" in path or path == stored.manifest_path:
        return path
    return to_portable_path(Path(path), settings.file)


def _remove_duplicate_settings(
    console: Output,
    project: DbtProject,
    files: SettingsFiles,
    target: SettingsFile,
    deadline: Deadline,
) -> None:
    """Remove the user's own settings for the project if they were written to the workspace.

    Prints a note if there is no workspace, because VS Code then reads neither file.
    """
    workspace = files.workspace
    if workspace is None:
        console.note(
            "VS Code does not use this setting, because there is no .vscode directory in "
            f"{project.folder} or above it. To share the setting with VS Code, create one "
            "and run `enable` again"
        )
    elif target.path == workspace.path != files.user.path:
        files.user.remove_project(deadline)
