"""`datapilot dbt defer status`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import (
    DeferOptions,
    DeferSession,
    defer_options,
    start_session,
)
from datapilot_defer.errors import DatapilotError, UsageError

if TYPE_CHECKING:
    from datapilot_defer.dbt_installation import DbtInstallation
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.defer.project_settings import DeferSettings
    from datapilot_defer.defer.state import PreparedState

_MANIFEST_FIELDS = (
    "dbt_version",
    "schema_version",
    "project_name",
    "generated_at",
    "commit",
    "sha256",
)


@dataclass
class Evaluation:
    """The settings of a project, and what `run` would do with them."""

    settings: DeferSettings
    project: DbtProject
    dbt: DbtInstallation | None = None
    state: PreparedState | None = None
    problems: list[DatapilotError] = field(default_factory=list)

    @property
    def is_usable(self) -> bool:
        """Return whether defer is on and works."""
        return self.settings.enabled and self.state is not None and not self.problems


@click.command("status", cls=Command)
@defer_options
def status(options: DeferOptions) -> None:
    """Say whether defer is on and usable.

    Says also where it leads, how old the manifest is and what is wrong.

    Exit code 0: on and usable. Otherwise that of the problem; 2 when it is off.
    """
    session = start_session(options)
    evaluation = _evaluate(session)
    text = "\n".join(_format_status(evaluation))
    session.console.print_result(status_json(evaluation), text)
    if not evaluation.is_usable:
        exit_code = UsageError.exit_code
        if evaluation.problems:
            exit_code = evaluation.problems[0].exit_code
        session.console.exit(exit_code)


def _evaluate(session: DeferSession) -> Evaluation:
    """Do what `run` does before it starts dbt, but continue after a problem.

    A missing dbt is not a problem: the editor, which shares the switch, uses its own.
    """
    from datapilot_defer.dbt_installation import locate_executable

    settings = session.read_settings()
    evaluation = Evaluation(settings, session.project)
    try:
        if locate_executable(None, os.environ):
            evaluation.dbt = session.find_dbt()
        else:
            evaluation.dbt = session.find_dbt_or_warn()
    except DatapilotError as error:
        evaluation.problems.append(error)
    if not settings.enabled and settings.mode is None:
        return evaluation
    try:
        evaluation.state = session.prepare_state(settings, evaluation.dbt)
    except DatapilotError as error:
        evaluation.problems.append(error)
    return evaluation


def status_json(evaluation: Evaluation) -> dict[str, object]:
    """Return the result of `status` and `enable`."""
    settings = evaluation.settings
    data: dict[str, object] = {
        "enabled": settings.enabled,
        "usable": evaluation.is_usable,
        "mode": settings.mode,
        "favor_state": settings.favor_state,
        "state_dir": None,
        "problems": [str(problem) for problem in evaluation.problems],
        "integration_id": None,
        "integration_name": None,
        "environment": None,
        "manifest_path": None,
        "settings_file": str(settings.file.path),
        "project": evaluation.project.name,
        "project_dir": str(evaluation.project.folder),
        "dbt": None,
        "installed_dbt_version": None,
        "manifest": None,
        "age_seconds": None,
        "offline": False,
    }
    if settings.mode == "integration":
        data["integration_id"] = settings.integration_id
        data["environment"] = settings.environment
    elif settings.mode == "local":
        data["manifest_path"] = settings.manifest_path
    if evaluation.dbt is not None:
        data["dbt"] = str(evaluation.dbt.path)
        data["installed_dbt_version"] = evaluation.dbt.version
    if evaluation.state is not None:
        data |= _state_json(evaluation.state)
    return data


def _state_json(state: PreparedState) -> dict[str, object]:
    facts = state.artifact.to_json()
    return {
        "state_dir": str(state.directory),
        "integration_name": state.integration_name,
        "manifest": {name: facts[name] for name in _MANIFEST_FIELDS},
        "age_seconds": state.artifact.age_seconds,
        "offline": state.pulled is not None and state.pulled.offline,
    }


def _format_status(evaluation: Evaluation) -> list[str]:
    settings = evaluation.settings
    switch = _on_or_off(settings.enabled)
    favor = f"favor state {_on_or_off(settings.favor_state)}"
    lines = [f"Defer is {switch} for {evaluation.project.name} ({settings.file.path})"]
    if settings.mode == "integration":
        lines.append(f"Manifest: {_describe_integration(evaluation)}; {favor}")
    elif settings.mode == "local":
        lines.append(f"Manifest: folder {settings.manifest_path}; {favor}")
    if evaluation.state is not None:
        if settings.enabled:
            lines.append(f"Deferring to {evaluation.state.describe()}")
        lines.append(f"State directory: {evaluation.state.describe_directory()}")
    lines += [f"Problem: {problem}" for problem in evaluation.problems]
    return lines


def _describe_integration(evaluation: Evaluation) -> str:
    """Return the integration with its name, as far as it is known, and the environment."""
    settings = evaluation.settings
    description = f"integration {settings.integration_id}"
    environment = settings.environment
    state = evaluation.state
    if state is not None and state.pulled is not None:
        environment = environment or state.pulled.environment
        if state.integration_name:
            description += f" ({state.integration_name})"
    if environment:
        description += f", environment {environment}"
    return description


def _on_or_off(is_on: bool) -> str:
    return "on" if is_on else "off"
