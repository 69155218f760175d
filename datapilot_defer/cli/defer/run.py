"""`datapilot dbt defer run`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import Origin, defer_options, described
from datapilot_defer.cli.output import Output, current_output

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
def run(words: tuple[str, ...], **options: Any) -> None:
    """Run dbt so that it defers.

    Write the command as for dbt itself: `datapilot dbt defer run build -s my_model`.

    Pulls what is new, refuses whatever would make dbt silently not defer, and then runs your dbt with --defer and
    --state where its command takes them. Its output, input, signals and exit code are dbt's own.
    """
    from datapilot_defer.defer import command_line, dbt_process

    report = current_output()
    origin = Origin(report, options)
    origin.given["project_dir"] = (
        command_line.find_option(words, "--project-dir") or origin.given["project_dir"]
    )
    project = origin.project()
    target = command_line.find_option(words, "--target-path")
    if target:
        project = replace(project, target=Path(os.path.normpath(project.folder / target)))
    settings = origin.switched_on(project)
    dbt = origin.dbt()
    _, command = command_line.find_command(words)
    if command == command_line.RETRY_COMMAND:
        command_line.check_retry(words, project)
    state = origin.state(settings, project, dbt)
    line = command_line.compose_command(
        words, dbt=dbt, state=state.folder, favor_state=settings.favor_state, environ=os.environ
    )
    _warn_about_variables(report, line, state)
    if line.deferred:
        favor = ", favoring it" if line.favor_state else ""
        report.note(f"Deferring to {described(state)}{favor}")
    elif command in command_line.STATE_ONLY_COMMANDS:
        report.note(f"`dbt {' '.join(command)}` resolves nothing; it gets --state {state.folder}")
    else:
        report.note(f"`dbt {' '.join(command)}` takes no state: it runs as it is")
    report.exit(dbt_process.run_dbt(line.words, line.environment))


def _warn_about_variables(report: Output, line: CommandLine, state: PreparedState) -> None:
    """Name those that dbt does not get, unless they say the same: those of `defer env` do."""
    from datapilot_defer.defer import shell_variables

    same = shell_variables.defer_variables(state.folder, favor_state=line.favor_state)
    names = [name for name in line.removed if os.environ[name] not in ("", same.get(name))]
    if names:
        are, them = ("is", "it") if len(names) == 1 else ("are", "them")
        report.warn(
            f"{', '.join(names)} {are} set and would decide where dbt defers to; dbt does not get {them}"
        )
