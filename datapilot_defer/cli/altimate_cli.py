"""The commands of altimate-datapilot-cli, when it is installed too: it and we install a program of the same name."""

from __future__ import annotations

from typing import Any

import click

_SCRIPT = "datapilot.cli.main:datapilot"  # the console script of altimate-datapilot-cli, as its metadata names it


class DelegatingGroup(click.Group):
    """A group that hands the commands which it lacks to the group of the same path in altimate-datapilot-cli.

    That package takes seconds to import, so it is imported only when one of its commands is asked for, and the
    list of commands in --help does not ask.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Our own command, else the neighbour's."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or ctx.resilient_parsing:
            return own
        return _load_foreign_command(_group_path(ctx), cmd_name)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say that there are more commands, where there are."""
        super().format_epilog(ctx, formatter)
        if _is_installed():
            formatter.write_paragraph()
            formatter.write_text(
                "Commands of altimate-datapilot-cli (dbt project-health, mcp, knowledge) work here too."
            )


def _group_path(ctx: click.Context) -> list[str]:
    """The groups from the root to this one, without the root."""
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
    from importlib.metadata import EntryPoint

    try:
        found: Any = EntryPoint("datapilot", _SCRIPT, "console_scripts").load()
    except (ImportError, AttributeError) as error:
        raise click.UsageError(
            f"altimate-datapilot-cli is installed, but does not load: {error}"
        ) from None
    for step in (*path, name):
        commands = getattr(found, "commands", {})
        if step not in commands:
            return None
        found = commands[step]
    return found if isinstance(found, click.Command) else None
