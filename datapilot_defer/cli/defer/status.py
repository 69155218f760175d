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
from datapilot_defer.formatting import as_one_line

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
    """The settings of a project, and what `run` would do with them.

    stored: those in the settings file. settings: the stored ones, overridden by the options of this
    call.
    """

    stored: DeferSettings
    settings: DeferSettings
    project: DbtProject
    dbt: DbtInstallation | None = None
    state: PreparedState | None = None
    problems: list[DatapilotError] = field(default_factory=list)

    @property
    def is_usable(self) -> bool:
        """Return whether defer is on and usable."""
        return self.stored.enabled and self.works

    @property
    def works(self) -> bool:
        """Return whether `run` with the same options would defer."""
        return self.settings.enabled and self.state is not None and not self.problems

    @property
    def exit_code(self) -> int:
        """Return the exit code of `status`."""
        if self.stored.enabled and self.problems:
            return self.problems[0].exit_code
        if self.is_usable:
            return 0
        return UsageError.exit_code


@click.command("status", cls=Command)
@defer_options
def status(options: DeferOptions) -> None:
    """Print whether defer is on and usable.

    Also prints the manifest's source and age, and any problems. With options, reports what `run`
    would do with the same options.

    Exit codes: 0 if defer is on and usable, 2 if it is off, otherwise that of the problem.

    \b
    Examples:
      datapilot dbt defer status
      datapilot dbt defer status --integration-id 7 --json
    """
    session = start_session(options)
    evaluation = _evaluate(session)
    # A name or path has one line. A problem may have several.
    lines = [as_one_line(line) for line in _describe_status(evaluation)]
    for problem in evaluation.problems:
        lines.append(f"Problem: {problem}".replace("\n", "\n  "))
    text = "\n".join(lines)
    session.console.print_result(status_json(evaluation), text)
    session.console.exit(evaluation.exit_code)


def _evaluate(session: DeferSession) -> Evaluation:
    """Do what `run` does before it starts dbt, but continue after a problem.

    A missing dbt is not a problem, because the editor, which uses the same settings, has its own.
    """
    from datapilot_defer.dbt_installation import locate_executable

    stored = session.read_stored_settings()
    settings = session.apply_overrides(stored)
    evaluation = Evaluation(stored, settings, session.project)
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
    """Return the JSON result of `status` and `enable`."""
    settings = evaluation.settings
    data: dict[str, object] = {
        "ok": evaluation.exit_code == 0,
        "exit_code": evaluation.exit_code,
        "enabled": evaluation.stored.enabled,
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
        "project_name": evaluation.project.name,
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


def _describe_status(evaluation: Evaluation) -> list[str]:
    stored = evaluation.stored
    lines = [
        f"Defer is {_on_or_off(stored.enabled)} for {evaluation.project.name} ({stored.file.path})"
    ]
    settings = evaluation.settings
    if settings.enabled and not stored.enabled:
        would_be = "would not be"
        if evaluation.works:
            would_be = "would be"
        lines[0] += f"; with these options it {would_be} usable"
    if settings != stored:
        if stored.mode is not None:
            lines.append(f"Manifest: {_describe_source(stored, None)}")
        lines.append(f"With these options: {_describe_source(settings, evaluation.state)}")
    elif stored.mode is not None:
        lines.append(f"Manifest: {_describe_source(stored, evaluation.state)}")
    if evaluation.state is not None:
        if settings.enabled:
            lines.append(f"Deferring to {evaluation.state.describe()}")
        lines.append(f"State directory: {evaluation.state.describe_directory()}")
    return lines


def _describe_source(settings: DeferSettings, state: PreparedState | None) -> str:
    source = "no manifest"
    if settings.mode == "integration":
        source = _describe_integration(settings, state)
    elif settings.mode == "local":
        source = f"directory {settings.manifest_path}"
    return f"{source}; favor state {_on_or_off(settings.favor_state)}"


def _describe_integration(settings: DeferSettings, state: PreparedState | None) -> str:
    """Return a text with the integration, its name if it is known, and the environment."""
    description = f"integration {settings.integration_id}"
    environment = settings.environment
    if state is not None and state.pulled is not None:
        environment = environment or state.pulled.environment
        if state.integration_name:
            description += f" ({state.integration_name})"
    if environment:
        description += f", environment {environment}"
    return description


def _on_or_off(is_on: bool) -> str:
    return "on" if is_on else "off"
