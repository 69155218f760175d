"""`datapilot instance rotate-key`."""

from __future__ import annotations

from pathlib import Path

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.instance.options import (
    command_line_actor,
    data_option,
    instance_name_option,
    open_storage_or_explain,
)
from datapilot_defer.cli.output import current_output


@click.command("rotate-key", cls=Command)
@data_option
@instance_name_option("Instance whose key is replaced, if the data directory has several.")
def rotate_key(data: Path, instance_name: str | None) -> None:
    """Replace the key that signs the URLs of uploads and downloads.

    Transfers in progress continue. URLs that were signed earlier become invalid immediately, and
    clients must request new ones. Tokens and sessions are not affected. The instance may be
    running.

    \b
    Example:
      datapilot instance rotate-key --data /srv/datapilot
    """
    with open_storage_or_explain(data, create=False) as storage:
        from datapilot_defer.instance.services import instances

        name = instances.rotate_signing_key(storage, instance_name, command_line_actor())
    current_output().print_result(
        {"ok": True, "instance_name": name},
        f"Replaced the signing key of instance {name}.\n"
        "URLs that were signed earlier are no longer valid. Tokens and sessions remain valid.",
    )
