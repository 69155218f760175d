"""Commands of altimate-datapilot-cli, which also installs the program `datapilot`."""

from __future__ import annotations

from typing import Any

import click

from datapilot_defer.cli.command import Group

# The console script of altimate-datapilot-cli, as its metadata names it.
_SCRIPT = "datapilot.cli.main:datapilot"


class DelegatingGroup(Group):
    """A group that delegates unknown commands to the same group of altimate-datapilot-cli.

    That package takes seconds to import. It is imported only when an unknown command is called,
    never for the list of commands in --help.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return our own command, else that of altimate-datapilot-cli, else None."""
        command = super().get_command(ctx, cmd_name)
        if command is not None or ctx.resilient_parsing:
            return command
        return _load_foreign_command(_group_path(ctx), cmd_name)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Mention the commands of altimate-datapilot-cli if it is installed."""
        super().format_epilog(ctx, formatter)
        if _is_installed():
            formatter.write_paragraph()
            formatter.write_text(
                "Commands of altimate-datapilot-cli"
                " (dbt project-health, mcp, knowledge) work here too."
            )


def _group_path(ctx: click.Context) -> list[str]:
    """Return the names of the groups from the root to this one, without the root."""
    path: list[str] = []
    current: click.Context | None = ctx
    while current is not None and current.parent is not None:
        path.insert(0, current.command.name or "")
        current = current.parent
    return path


def _is_installed() -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("altimate-datapilot-cli")
    except PackageNotFoundError:
        return False
    return True


def _load_foreign_command(path: list[str], name: str) -> click.Command | None:
    if not _is_installed():
        return None
    command: Any = _load_foreign_root()
    for step in (*path, name):
        subcommands = getattr(command, "commands", {})
        command = subcommands.get(step)
    if isinstance(command, click.Command):
        return command
    return None


def _load_foreign_root() -> Any:
    """Import the root group of altimate-datapilot-cli.

    Raises click.UsageError if that fails.
    """
    from importlib.metadata import EntryPoint

    try:
        return EntryPoint("datapilot", _SCRIPT, "console_scripts").load()
    except (ImportError, AttributeError) as error:
        raise click.UsageError(
            f"altimate-datapilot-cli is installed but cannot be imported: {error}"
        ) from None
