"""`datapilot dbt defer run`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import (
    DeferOptions,
    DeferSession,
    defer_options,
    start_session,
)
from datapilot_defer.cli.output import Output

if TYPE_CHECKING:
    from datapilot_defer.defer.command_line import CommandLine
    from datapilot_defer.defer.dbt_directories import DirectoryOptions
    from datapilot_defer.defer.state import PreparedState


@click.command(
    "run",
    cls=Command,
    own_signals=True,
    context_settings={"allow_interspersed_args": False},
    no_args_is_help=True,
)
@click.option("--profiles-dir", metavar="DIR", help="Directory of profiles.yml.")
@defer_options
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--] DBT_COMMAND...")
def run(words: tuple[str, ...], profiles_dir: str | None, options: DeferOptions) -> None:
    """Run a dbt command that defers to production.

    Downloads the current manifest, checks for anything that would make dbt silently not defer, and
    runs dbt with --defer and --state if the command accepts them. Input, output and signals pass
    through to dbt, and the exit code is dbt's. --project-dir and --profiles-dir can also follow the
    dbt command; the last value counts.

    \b
    Examples:
      datapilot dbt defer run build -s my_model
      datapilot dbt defer run --favor-state compile -s my_model
      datapilot dbt defer run --integration-id 7 -- build --select state:modified+
    """
    from datapilot_defer.defer import command_line, dbt_directories, dbt_process

    directories = dbt_directories.take_directory_options(
        words, project_dir=options.project_dir, profiles_dir=profiles_dir
    )
    if directories.project is not None:
        options = replace(options, project_dir=str(directories.project))
    session = start_session(options)
    target_path = command_line.find_option(words, "--target-path")
    if target_path:
        target = Path(os.path.normpath(session.project.folder / target_path))
        session = replace(session, project=replace(session.project, target=target))
    line = _prepare_command(session, directories)
    session.console.exit(dbt_process.run_dbt(line.words, line.environment))


def _prepare_command(session: DeferSession, directories: DirectoryOptions) -> CommandLine:
    """Return dbt's command line.

    The content of the manifest is freed when this function returns, before dbt starts.
    """
    from datapilot_defer.defer import command_line, last_run
    from datapilot_defer.defer.dbt_directories import directory_flags
    from datapilot_defer.defer.project_settings import require_enabled

    words = directories.words
    settings = require_enabled(session.read_settings(), session.project)
    dbt = session.find_dbt()
    _, command = command_line.find_command(words)
    if command == command_line.RETRY_COMMAND:
        favor_state = session.options.overrides.favor_state
        last_run.check_retry(words, session.project, favor_state=favor_state)
    flags = directory_flags(command, directories, session.project, os.environ)
    state = None
    state_directory = None
    if command_line.takes_state(command):
        state = session.prepare_state(settings, dbt, [*words, *flags])
        state_directory = state.directory
    line = command_line.compose_command(
        words,
        dbt=dbt,
        state=state_directory,
        favor_state=settings.favor_state,
        environ=os.environ,
        directories=flags,
    )
    if state is None:
        session.console.note(f"`dbt {' '.join(command)}` does not use state. Running it unchanged")
        return line
    _warn_about_variables(session.console, line, state)
    session.console.note(_describe_command(line, state))
    session.console.detail(f"State directory: {state.describe_directory()}")
    return line


def _describe_command(line: CommandLine, state: PreparedState) -> str:
    from datapilot_defer.defer.command_line import RETRY_COMMAND, STATE_ONLY_COMMANDS, find_option

    command = f"`dbt {' '.join(line.command)}`"
    if line.command in STATE_ONLY_COMMANDS:
        if find_option(line.words, "--state") != str(state.directory):
            return f"{command} resolves no references. Running it with your --state"
        return f"{command} resolves no references. Its --state is {state.describe()}"
    message = f"Deferring to {state.describe()}"
    if line.favor_state and line.command != RETRY_COMMAND:  # it repeats the last run
        message += ", favor state on"
    return message


def _warn_about_variables(console: Output, line: CommandLine, state: PreparedState) -> None:
    """Warn about removed variables, unless they are empty or have the values of `defer env`."""
    from datapilot_defer.defer import shell_variables

    values = shell_variables.defer_variables(state.directory, favor_state=line.favor_state)
    names = [name for name in line.removed if os.environ[name] not in ("", values.get(name))]
    if len(names) == 1:
        console.warn(
            f"{names[0]} is set and would change where dbt defers to. It is "
            "removed from dbt's environment"
        )
    elif names:
        console.warn(
            f"{', '.join(names)} are set and would change where dbt defers to. They are "
            "removed from dbt's environment"
        )
