"""`datapilot instance rotate-key`: replace the key that signs URLs."""

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
@instance_name_option("Instance, if the data directory contains several.")
def rotate_key(data: Path, instance_name: str | None) -> None:
    """Replace the key that signs the URLs of an instance.

    All URLs that were signed before stop working at once: running uploads and downloads must be
    started again. Tokens and sessions stay valid. A running server uses the new key immediately.
    """
    with open_storage_or_explain(data, create=False) as storage:
        from datapilot_defer.instance.services.signed_urls import rotate_signing_key

        name = rotate_signing_key(storage, instance_name, actor=command_line_actor())
    current_output().print_result(
        {"instance_name": name, "rotated": True},
        f"Replaced the signing key of instance {name}.\n"
        "URLs that were signed before no longer work. Tokens and sessions stay valid.",
    )
