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
    from datapilot_defer.defer.state import PreparedState


@click.command(
    "run",
    cls=Command,
    own_signals=True,
    context_settings={"allow_interspersed_args": False},
    no_args_is_help=True,
)
@defer_options
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--] DBT_COMMAND...")
def run(words: tuple[str, ...], options: DeferOptions) -> None:
    """Run dbt so that it defers.

    Write the command as for dbt itself: `datapilot dbt defer run build -s my_model`.

    Pulls what is new, refuses whatever would make dbt silently not defer, and then runs your dbt
    with --defer and --state where its command takes them. Its output, input, signals and exit code
    are dbt's own.
    """
    from datapilot_defer.defer import command_line, dbt_process

    project_dir = command_line.find_option(words, "--project-dir") or options.project_dir
    session = start_session(replace(options, project_dir=project_dir))
    target_path = command_line.find_option(words, "--target-path")
    if target_path:
        target = Path(os.path.normpath(session.project.folder / target_path))
        session = replace(session, project=replace(session.project, target=target))
    line = _prepare_command(session, words)
    session.console.exit(dbt_process.run_dbt(line.words, line.environment))


def _prepare_command(session: DeferSession, words: tuple[str, ...]) -> CommandLine:
    """Return dbt's command line. The manifest is out of memory again when dbt starts."""
    from datapilot_defer.defer import command_line, last_run
    from datapilot_defer.defer.project_settings import require_enabled

    settings = require_enabled(session.read_settings(), session.project)
    dbt = session.find_dbt()
    _, command = command_line.find_command(words)
    if command == command_line.RETRY_COMMAND:
        last_run.check_retry(words, session.project)
    state = session.prepare_state(settings, dbt)
    line = command_line.compose_command(
        words,
        dbt=dbt,
        state=state.directory,
        favor_state=settings.favor_state,
        environ=os.environ,
    )
    _warn_about_variables(session.console, line, state)
    session.console.note(_describe_command(line, state))
    return line


def _describe_command(line: CommandLine, state: PreparedState) -> str:
    from datapilot_defer.defer.command_line import STATE_ONLY_COMMANDS

    command = f"`dbt {' '.join(line.command)}`"
    if line.command in STATE_ONLY_COMMANDS:
        return f"{command} resolves nothing; it gets --state {state.directory}"
    if not line.deferred:
        return f"{command} takes no state: it runs as it is"
    message = f"Deferring to {state.describe()}"
    if line.favor_state:
        message += ", favoring it"
    return message


def _warn_about_variables(console: Output, line: CommandLine, state: PreparedState) -> None:
    """Warn about variables that dbt does not get, unless they have the values of `defer env`."""
    from datapilot_defer.defer import shell_variables

    values = shell_variables.defer_variables(state.directory, favor_state=line.favor_state)
    names = [name for name in line.removed if os.environ[name] not in ("", values.get(name))]
    if len(names) == 1:
        console.warn(f"{names[0]} is set and would decide where dbt defers to; dbt does not get it")
    elif names:
        console.warn(
            f"{', '.join(names)} are set and would decide where dbt defers to; "
            "dbt does not get them"
        )
