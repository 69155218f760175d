"""`datapilot instance migrate`."""

from __future__ import annotations

from pathlib import Path

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.instance.options import data_option, open_storage_or_explain
from datapilot_defer.cli.output import current_output


@click.command("migrate", cls=Command)
@data_option
def migrate(data: Path) -> None:
    """Migrate the database to this version of datapilot.

    `serve` also does this when it starts. The previous release also works with the migrated
    database, so you can roll back.

    \b
    Example:
      datapilot instance migrate --data /srv/datapilot
    """
    with open_storage_or_explain(data, create=False) as storage:
        before, after = storage.database.migration
    text = f"The database is already at migration {after:04}."
    if before != after:
        text = f"Migrated the database from migration {before:04} to {after:04}."
    result = {"ok": True, "migrated_from": before, "migrated_to": after}
    current_output().print_result(result, text)
