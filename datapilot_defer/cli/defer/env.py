"""`datapilot dbt defer env`."""

from __future__ import annotations

import os

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import DeferOptions, defer_options, start_session
from datapilot_defer.cli.output import current_output
from datapilot_defer.errors import UsageError


@click.command("env", cls=Command)
@click.option(
    "--shell",
    type=click.Choice(["bash", "zsh", "fish", "powershell", "github", "dotenv"]),
    help="Syntax of the output. `github` prints lines for $GITHUB_ENV. [default: the "
    "current shell]",
)
@click.option("--unset", is_flag=True, help="Print what removes the variables again.")
@defer_options
def env(shell: str | None, unset: bool, options: DeferOptions) -> None:
    """Print environment variables that make dbt defer.

    After that, dbt defers no matter which program starts it. The checks of `defer run` are made
    once, when the variables are printed.

    While the variables are set, plain `dbt retry` looks for the results of the previous run in
    DBT_STATE and does not find them. Use `datapilot dbt defer run retry` instead.

    \b
    Examples:
      eval "$(datapilot dbt defer env)"
      datapilot dbt defer env --shell github >> "$GITHUB_ENV"
      eval "$(datapilot dbt defer env --unset)"
    """
    from datapilot_defer.defer import shell_variables

    shell = shell or shell_variables.detect_shell(os.environ)
    values: dict[str, str] = {}
    if not unset:
        values = _prepare_variables(options)
    removed = shell_variables.conflicting_variables(os.environ, values)
    script = shell_variables.format_script(shell, values, removed)
    output = current_output()
    if not output.prints_as_is(script):
        raise UsageError(
            f"the path of the state directory, {values['DBT_STATE']}, contains text that "
            "looks like a secret or a command of a CI system, and is therefore not "
            "printed. Use another directory"
        )
    data = {"ok": True, "set": values, "unset": removed, "script": script}
    output.print_result(data, script)


def _prepare_variables(options: DeferOptions) -> dict[str, str]:
    from datapilot_defer.defer.project_settings import require_enabled
    from datapilot_defer.defer.shell_variables import defer_variables

    session = start_session(options)
    settings = require_enabled(session.read_settings(), session.project)
    state = session.prepare_state(settings, session.find_dbt())
    session.console.note(f"Deferring to {state.describe()}")
    return defer_variables(state.directory, favor_state=settings.favor_state)
