"""`datapilot dbt defer enable`, `disable`, `status` and `env`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import Origin, defer_options, described
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.cli.pulling import project_dir_option
from datapilot_defer.errors import DatapilotError, UsageError

if TYPE_CHECKING:
    from datapilot_defer.dbt_installation import DbtInstallation
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.defer.project_settings import DeferSettings, SettingsFile
    from datapilot_defer.defer.state import PreparedState


@click.command("enable", cls=Command)
@click.option(
    "--user", is_flag=True, help="Keep the settings in a file of your own, not in the workspace."
)
@defer_options
def enable(user: bool, **options: Any) -> None:
    """Turn defer on for this project, after checking that it will work.

    Without an integration or a folder, what was set before is turned on again. The settings are those of the VS Code
    extension's panel (.vscode/settings.json), so that the editor shows the same switch.
    """
    from datapilot_defer.defer import project_settings as defer_settings

    report = current_output()
    origin = Origin(report, options)
    project = origin.project()
    stored = origin.stored(project)
    place = _choose_settings_file(project, stored, user=user)
    wanted = replace(origin.settings(project), enabled=True, place=place)
    if wanted.manifest_path and not origin.given["manifest_path"]:
        wanted = replace(
            wanted,
            manifest_path=defer_settings.relocate_path(wanted.manifest_path, stored.place, place),
        )
    dbt = find_dbt_or_warn(origin)
    state = origin.state(wanted, project, dbt)
    defer_settings.write(place, _settings_changes(wanted, stored, place))
    report.note(f"Defer is on for {project.name}: {described(state)}; set in {place.file}")
    _remove_duplicate_settings(report, project, place)
    report.print_result({"ok": True, **_as_json(wanted, project, dbt, state, [])}, "")


@click.command("disable", cls=Command)
@project_dir_option
def disable(project_dir: str | None) -> None:
    """Turn defer off for this project.

    Where the manifest comes from stays set.
    """
    from datapilot_defer import dbt_project
    from datapilot_defer.defer import project_settings as defer_settings

    report = current_output()
    project = dbt_project.find_project(Path(project_dir) if project_dir else None, os.environ)
    settings = defer_settings.read_settings(project.folder, os.environ)
    if settings.place.exists:
        defer_settings.write(settings.place, {"deferToProduction": False})
    report.note(
        f"Defer is off for {project.name}"
        + (f"; set in {settings.place.file}" if settings.enabled else "")
    )
    report.print_result(
        {"ok": True, "enabled": False, "settings_file": str(settings.place.file)}, ""
    )


@click.command("status", cls=Command)
@defer_options
def status(**options: Any) -> None:
    """Say whether defer is on and usable.

    Says also where it leads, how old the manifest is and what is wrong.

    Exit code 0: on and usable. Otherwise that of the problem; 2 when it is off.
    """
    report = current_output()
    origin = Origin(report, options)
    project = origin.project()
    settings = origin.settings(project)
    problems: list[DatapilotError] = []
    dbt, state = _evaluate(origin, project, settings, problems)
    data = _as_json(settings, project, dbt, state, [str(problem) for problem in problems])
    report.print_result(data, "\n".join(_format_status(settings, project, state, problems)))
    if not data["usable"]:
        report.exit(problems[0].exit_code if problems else UsageError.exit_code)


@click.command("env", cls=Command)
@click.option(
    "--shell",
    type=click.Choice(["bash", "zsh", "fish", "powershell", "github", "dotenv"]),
    help="For which shell; github: lines for $GITHUB_ENV. [default: the shell that you use]",
)
@click.option("--unset", is_flag=True, help="Take them away again.")
@defer_options
def env(shell: str | None, unset: bool, **options: Any) -> None:
    """Print dbt's variables for deferring.

    They are environment variables; your shell takes them with: eval "$(datapilot dbt defer env)".

    dbt then defers also when something else runs it. The checks of `defer run` are made once, now. A bare `dbt retry`
    looks for the last run in DBT_STATE: retry with `datapilot dbt defer run retry`.
    """
    from datapilot_defer.defer import shell_variables

    report = current_output()
    shell = shell or shell_variables.detect_shell(os.environ)
    if unset:
        values: dict[str, str] = {}
    else:
        origin = Origin(report, options)
        project = origin.project()
        settings = origin.switched_on(project)
        state = origin.state(settings, project, origin.dbt())
        report.note(f"Deferring to {described(state)}")
        values = shell_variables.defer_variables(state.folder, favor_state=settings.favor_state)
    removed = shell_variables.conflicting_variables(os.environ, values)
    text = shell_variables.format_script(shell, values, removed)
    report.print_result({"ok": True, "set": values, "unset": removed, "script": text}, text)


def _choose_settings_file(
    project: DbtProject, stored: DeferSettings, *, user: bool
) -> SettingsFile:
    from datapilot_defer.defer.project_settings import user_settings_file, workspace_settings_file

    if not user:
        return workspace_settings_file(project.folder, os.environ) or stored.place
    own = user_settings_file(project.folder)
    if stored.place.exists and stored.place.file != own.file:
        raise UsageError(
            f"{stored.place.file} has settings for this project, and they win over your own: leave --user out, or "
            "remove them there"
        )
    return own


def _remove_duplicate_settings(report: Output, project: DbtProject, place: SettingsFile) -> None:
    """Remove the user's own settings of the project once the workspace has them; say when VS Code sees neither."""
    from datapilot_defer.defer.project_settings import (
        remove,
        user_settings_file,
        workspace_settings_file,
    )

    shared = workspace_settings_file(project.folder, os.environ)
    if shared is None:
        report.note(
            f"VS Code does not see this: there is no .vscode folder in {project.folder} or above it; `mkdir .vscode` "
            "and enable again to share the switch"
        )
    elif place.file == shared.file != user_settings_file(project.folder).file:
        remove(user_settings_file(project.folder))


def find_dbt_or_warn(origin: Origin) -> DbtInstallation | None:
    """The dbt, or None with a warning: defer can be set up before dbt is installed."""
    try:
        return origin.dbt()
    except UsageError as error:
        if origin.given["dbt_path"]:
            raise
        origin.report.warn(f"{error}; so it is not checked that this dbt can read the manifest")
        return None


def _settings_changes(
    wanted: DeferSettings, stored: DeferSettings, place: SettingsFile
) -> dict[str, object]:
    """The keys to set, as the panel writes them; those of the other mode stay."""
    from datapilot_defer.defer.project_settings import to_portable_path

    changes: dict[str, object] = {"deferToProduction": True, "favorState": wanted.favor_state}
    if wanted.mode == "integration":
        changes |= {"manifestPathType": "remote", "dbtCoreIntegrationId": wanted.integration_id}
        if wanted.environment or stored.environment:
            changes["environment"] = wanted.environment
        return changes
    path = wanted.manifest_path or ""
    written = (
        path
        if "${" in path or path == stored.manifest_path
        else to_portable_path(Path(path), place)
    )
    return {**changes, "manifestPathType": "local", "manifestPathForDeferral": written}


def _evaluate(
    origin: Origin, project: DbtProject, settings: DeferSettings, problems: list[DatapilotError]
) -> tuple[DbtInstallation | None, PreparedState | None]:
    """What `run` would come to, without ending at the first problem.

    That no dbt is on PATH is none: the editor, which shares the switch, brings its own.
    """
    from datapilot_defer.dbt_installation import locate_executable

    dbt = state = None
    try:
        dbt = origin.dbt() if locate_executable(None, os.environ) else find_dbt_or_warn(origin)
    except DatapilotError as error:
        problems.append(error)
    if not settings.enabled and settings.mode is None:
        return dbt, None
    try:
        state = origin.state(settings, project, dbt)
    except DatapilotError as error:
        problems.append(error)
    return dbt, state


def _as_json(
    settings: DeferSettings,
    project: DbtProject,
    dbt: DbtInstallation | None,
    state: PreparedState | None,
    problems: list[str],
) -> dict[str, object]:
    manifest = state.manifest if state else None
    about = ("dbt_version", "schema_version", "project_name", "generated_at", "commit", "sha256")
    return {
        "enabled": settings.enabled,
        "usable": settings.enabled and state is not None and not problems,
        "mode": settings.mode,
        "favor_state": settings.favor_state,
        "state_dir": str(state.folder) if state else None,
        "problems": problems,
        "integration_id": settings.integration_id if settings.mode == "integration" else None,
        "environment": settings.environment if settings.mode == "integration" else None,
        "manifest_path": settings.manifest_path if settings.mode == "local" else None,
        "settings_file": str(settings.place.file),
        "project": project.name,
        "project_dir": str(project.folder),
        "dbt": str(dbt.path) if dbt else None,
        "installed_dbt_version": dbt.version if dbt else None,
        "manifest": {name: getattr(manifest, name) for name in about} if manifest else None,
        "age_seconds": round(manifest.age_s) if manifest and manifest.age_s is not None else None,
        "offline": bool(state and state.pulled and state.pulled.offline),
    }


def _format_status(
    settings: DeferSettings,
    project: DbtProject,
    state: PreparedState | None,
    problems: list[DatapilotError],
) -> list[str]:
    favor = "on" if settings.favor_state else "off"
    lines = [
        f"Defer is {'on' if settings.enabled else 'off'} for {project.name} ({settings.place.file})"
    ]
    if settings.mode == "integration":
        environment = f", environment {settings.environment}" if settings.environment else ""
        lines.append(
            f"Manifest: integration {settings.integration_id}{environment}; favor state {favor}"
        )
    elif settings.mode == "local":
        lines.append(f"Manifest: folder {settings.manifest_path}; favor state {favor}")
    if state:
        lines.append(f"State directory: {described(state)}")
    return [*lines, *(f"Problem: {problem}" for problem in problems)]
