"""Options of the `defer` commands, and the steps that these commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from datapilot_defer.cli.options import (
    connection_options,
    dbt_option,
    environment_option,
    max_age_option,
    offline_option,
    optional_integration_options,
    project_dir_option,
    require_integration,
)
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.client.connection import Connection, ConnectionOptions
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.dbt_installation import DbtInstallation
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.defer.project_settings import DeferSettings, SettingsOverrides
    from datapilot_defer.defer.settings_file import SettingsFile, SettingsFiles
    from datapilot_defer.defer.state import PreparedState

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class DeferOptions:
    """Options of a `defer` command: the source of the manifest, and how to use it."""

    overrides: SettingsOverrides
    connection: ConnectionOptions
    max_age_s: float | None
    offline: bool
    project_dir: str | None
    dbt_path: str | None


def defer_options(command: F) -> F:
    """Add the options of the `defer` commands, passed on as `options: DeferOptions`."""

    @wraps(command)
    def wrapper(
        *,
        integration_id: int | None,
        integration_name: str | None,
        environment: str | None,
        manifest_path: str | None,
        favor_state: bool | None,
        max_age: float | None,
        offline: bool,
        project_dir: str | None,
        dbt_path: str | None,
        connection: ConnectionOptions,
        **others: Any,
    ) -> Any:
        from datapilot_defer.defer.project_settings import SettingsOverrides

        integration = None
        if integration_id is not None or integration_name:
            integration = require_integration(integration_id, integration_name)
        overrides = SettingsOverrides(integration, environment, manifest_path, favor_state)
        options = DeferOptions(overrides, connection, max_age, offline, project_dir, dbt_path)
        return command(options=options, **others)

    decorated = cast("F", wrapper)
    for option in reversed(_DEFER_OPTIONS):
        decorated = option(decorated)
    return decorated


_DEFER_OPTIONS = [
    optional_integration_options,
    environment_option(default=None),
    click.option(
        "--manifest-path",
        metavar="FOLDER",
        help="Directory that contains production's manifest.json.",
    ),
    click.option(
        "--favor-state/--no-favor-state",
        "favor_state",
        default=None,
        help="Use production's relation even if the relation also exists in development. "
        "[default: the stored setting, or off]",
    ),
    max_age_option,
    offline_option,
    project_dir_option,
    dbt_option,
    connection_options,
]


@dataclass(frozen=True)
class DeferSession:
    """One command for one dbt project, with the connection to the instance."""

    options: DeferOptions
    console: Output
    project: DbtProject
    connection: Connection

    @cached_property
    def settings_files(self) -> SettingsFiles:
        """Return the settings files of the project, as they were at the first access."""
        from datapilot_defer.defer.settings_file import read_settings_files

        return read_settings_files(self.project.folder, os.environ)

    def read_settings(self) -> DeferSettings:
        """Return the stored settings, overridden by the options of this call."""
        return self.apply_overrides(self.read_stored_settings())

    def read_stored_settings(self, *, user: bool = False) -> DeferSettings:
        """Return the stored settings without the options of this call.

        user: use the file that --user selects. If the options select the manifest, a file that
        cannot be read is treated as empty, with a warning. Otherwise raises UsageError for it.
        """
        from datapilot_defer.defer.project_settings import DeferSettings, read_settings

        files = self.settings_files
        try:
            file = choose_stored_file(files, user=user)
            stored = read_settings(file)
        except UsageError as error:
            if not self.options.overrides.has_source:
                raise
            self.console.warn(f"{error}. Ignoring the stored settings")
            return DeferSettings(files.workspace or files.user)
        warn_of_problem(self.console, files, file)
        return stored

    def apply_overrides(self, stored: DeferSettings) -> DeferSettings:
        """Return these settings, overridden by the options of this call."""
        from datapilot_defer.defer.project_settings import apply_overrides

        return apply_overrides(
            stored,
            self.options.overrides,
            connection=self.connection,
            offline=self.options.offline,
        )

    def find_dbt(self) -> DbtInstallation:
        """Return the user's dbt. Raises UsageError if it cannot be used."""
        from datapilot_defer import dbt_installation

        return dbt_installation.find_dbt(self.options.dbt_path, os.environ)

    def find_dbt_or_warn(self) -> DbtInstallation | None:
        """Return the user's dbt. Warn and return None if it cannot be used.

        Defer can be enabled before dbt is installed. Raises UsageError if the dbt that was given as
        an option cannot be used.
        """
        try:
            return self.find_dbt()
        except UsageError as error:
            if self.options.dbt_path:
                raise
            self.console.warn(f"{error}. Skipping the check that dbt can read the manifest")
            return None

    def prepare_state(
        self,
        settings: DeferSettings,
        dbt: DbtInstallation | None,
        dbt_options: Sequence[str] = (),
    ) -> PreparedState:
        """Return the state of these settings, after checking it.

        dbt_options: the options of the dbt command to run.
        """
        from datapilot_defer.defer import state

        return state.prepare_state(
            self.project,
            settings,
            dbt=dbt,
            connection=self.connection,
            console=self.console,
            max_age_s=self.options.max_age_s,
            offline=self.options.offline,
            environ=os.environ,
            dbt_options=dbt_options,
        )


def start_session(options: DeferOptions) -> DeferSession:
    """Return a session for a command. Raises UsageError if there is no dbt project."""
    console = current_output()
    connection = Connection(options.connection, environ=os.environ, console=console)
    return DeferSession(options, console, find_project(options.project_dir), connection)


def choose_stored_file(files: SettingsFiles, *, user: bool) -> SettingsFile:
    """Return the settings file to use. user: whether --user was given.

    Raises UsageError for a file that cannot be read, and for --user if the workspace's file takes
    precedence.
    """
    if not user:
        return files.effective
    workspace = files.workspace
    if workspace is not None and workspace.has_project and workspace.path != files.user.path:
        raise UsageError(
            f"{workspace.path} has settings for this project, which take precedence over "
            "your own. Omit --user, or remove them there"
        )
    return files.own


def warn_of_problem(console: Output, files: SettingsFiles, used: SettingsFile) -> None:
    """Warn if one of the settings files cannot be read and only the other one is used."""
    for file in (files.workspace, files.user):
        if file is not None and file.problem is not None and file.path != used.path:
            console.warn(f"{file.problem}. Only the settings in {used.path} are used")


def find_project(project_dir: str | None) -> DbtProject:
    """Return the dbt project in this directory.

    None selects the project of DBT_PROJECT_DIR, or else of the current directory. Raises UsageError
    when there is none.
    """
    from datapilot_defer import dbt_project

    start = None
    if project_dir is not None:
        start = Path(project_dir)
    return dbt_project.find_project(start, os.environ)
