"""`datapilot instance migrate`: migrate the database without serving it."""

from __future__ import annotations

from pathlib import Path

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.instance.options import data_option, open_storage_or_explain
from datapilot_defer.cli.output import current_output


@click.command("migrate", cls=Command)
@data_option
def migrate(data: Path) -> None:
    """Migrate the database of a data directory to this version.

    `datapilot instance serve` does this on start, too. The previous release can still use a
    migrated database.
    """
    with open_storage_or_explain(data, create=False) as storage:
        before, after = storage.database.migration
    text = f"The database is up to date (migration {after})."
    if after != before:
        text = f"Migrated the database from migration {before} to {after}."
    current_output().print_result({"from": before, "to": after, "migrated": after != before}, text)
