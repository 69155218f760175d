"""What the `defer` commands share: options, and the way from them to a checked state directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datapilot_defer.cli.options import (
    environment_option,
    integration_options,
    legacy_connection_options,
    require_integration,
)
from datapilot_defer.cli.output import Output
from datapilot_defer.cli.pulling import (
    Access,
    dbt_option,
    max_age_option,
    offline_option,
    project_dir_option,
)
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.dbt_installation import DbtInstallation
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.defer.project_settings import DeferSettings
    from datapilot_defer.defer.state import PreparedState
    from datapilot_defer.pull.update import PullOptions, PullResult

F = TypeVar("F", bound=Callable[..., Any])


def defer_options(command: F) -> F:
    """Add the options that say where the manifest is and how it is used; passed on as `**options`."""
    for option in reversed(_ORIGIN):
        command = option(command)
    return command


_ORIGIN = [
    integration_options,
    environment_option(default=None),
    click.option(
        "--manifest-path", metavar="FOLDER", help="Folder that holds production's manifest.json."
    ),
    click.option(
        "--favor-state/--no-favor-state",
        "favor_state",
        default=None,
        help="Take production's relation even where one exists in development. [default: as set; else no]",
    ),
    max_age_option,
    offline_option,
    project_dir_option,
    dbt_option,
    legacy_connection_options,
]


_GIVEN = (
    *("integration_id", "integration_name", "environment", "manifest_path", "favor_state"),
    *("max_age", "offline", "project_dir", "dbt_path"),
)


@dataclass
class Origin:
    """The options of `origin_options`, and what they lead to."""

    report: Output
    options: dict[str, Any]

    def __post_init__(self) -> None:
        self.given = {name: self.options.pop(name) for name in _GIVEN}
        self._access: Access | None = None

    @property
    def access(self) -> Access:
        """The way to the instance; credentials are looked for when it is first needed."""
        self._access = self._access or Access(self.report, self.options)
        return self._access

    def project(self) -> DbtProject:
        """The dbt project."""
        from datapilot_defer import dbt_project

        given = self.given["project_dir"]
        return dbt_project.find_project(Path(given) if given else None, os.environ)

    def dbt(self) -> DbtInstallation:
        """The user's dbt."""
        from datapilot_defer import dbt_installation

        return dbt_installation.find_dbt(self.given["dbt_path"], os.environ)

    def stored(self, project: DbtProject) -> DeferSettings:
        """The settings of the project as they are stored."""
        from datapilot_defer.defer import project_settings

        return project_settings.read_settings(project.folder, os.environ)

    def settings(self, project: DbtProject) -> DeferSettings:
        """The stored settings, with what was given as options in their place."""
        from datapilot_defer.defer.project_settings import manifest_directory

        stored, given = self.stored(project), self.given
        if given["favor_state"] is not None:
            stored = replace(stored, favor_state=given["favor_state"])
        named = given["integration_id"] is not None or given["integration_name"]
        if named and given["manifest_path"]:
            raise UsageError("give an integration or --manifest-path, not both")
        if named:
            integration = require_integration(given["integration_id"], given["integration_name"])
            found = self.access.integration_id(integration, offline=given["offline"])
            return replace(
                stored,
                enabled=True,
                mode="integration",
                integration_id=found,
                environment=given["environment"],
            )
        if given["manifest_path"]:
            path = given["manifest_path"]
            path = (
                path
                if "${" in path
                else str(manifest_directory(Path(os.path.normpath(Path.cwd() / path))))
            )
            return replace(stored, enabled=True, mode="local", manifest_path=path)
        if given["environment"]:
            stored = replace(stored, environment=given["environment"])
        return stored

    def switched_on(self, project: DbtProject) -> DeferSettings:
        """The same, or UsageError when defer is off."""
        settings = self.settings(project)
        if not settings.enabled:
            raise UsageError(
                f"defer is off for {project.name} ({settings.place.file}): turn it on with "
                "`datapilot dbt defer enable`, or say for this once where the manifest is, with --integration-id, "
                "--integration-name or --manifest-path"
            )
        return settings

    def pull(self, wish: PullOptions) -> PullResult:
        """Bring the state directory of an integration up to date."""
        from datapilot_defer.pull.update import pull

        return pull(self.access.source(wish), wish, offline=self.given["offline"])

    def state(
        self, settings: DeferSettings, project: DbtProject, dbt: DbtInstallation | None
    ) -> PreparedState:
        """The checked state of these settings."""
        from datapilot_defer.defer import state

        return state.prepare_state(
            settings,
            project,
            dbt=dbt,
            max_age_s=self.given["max_age"],
            pull=self.pull,
            environ=os.environ,
        )


def described(state: PreparedState) -> str:
    """Where a state comes from and how old it is, in one line."""
    from datapilot_defer.pull.update import age

    manifest = state.manifest
    by = f"written by dbt {manifest.dbt_version}, " if manifest.dbt_version else ""
    return f"{state.folder} ({by}{age(manifest)})"
