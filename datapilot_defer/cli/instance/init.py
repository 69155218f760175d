"""`datapilot instance init`."""

from __future__ import annotations

from pathlib import Path

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.instance.admin_token import load_first_token
from datapilot_defer.cli.instance.options import (
    admin_token_file_option,
    command_line_actor,
    data_option,
    format_token_command,
    open_storage_or_explain,
)
from datapilot_defer.cli.output import current_output
from datapilot_defer.errors import UsageError


@click.command("init", cls=Command)
@data_option
@click.option(
    "--instance-name",
    metavar="NAME",
    required=True,
    help="Name of the instance, which clients send in the header x-tenant.",
)
@admin_token_file_option
def init(data: Path, instance_name: str, admin_token_file: Path | None) -> None:
    """Create an instance and its first admin token.

    A data directory can contain several instances. Each has its own integrations and tokens.

    \b
    Example:
      datapilot instance init --data /srv/datapilot --instance-name acme
    """
    first_token = load_first_token(admin_token_file)
    with open_storage_or_explain(data) as storage:
        from datapilot_defer.instance.services import instances

        with instances.creating_instance(
            storage, instance_name, token=first_token.token, actor=command_line_actor()
        ) as is_new:
            if not is_new:
                command = format_token_command(data, instance_name)
                raise UsageError(
                    f"{data} already contains the instance {instance_name}. "
                    f"To create another token for it, run `{command}`."
                )
            first_token.save()
            text = f"Created instance {instance_name} in {data}.\n{first_token.description}"
            result = {"ok": True, "instance_name": instance_name, **first_token.result}
            output = current_output()
            output.shows_tokens = True
            output.print_result(result, text)
