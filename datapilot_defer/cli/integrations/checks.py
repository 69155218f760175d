"""`datapilot dbt integrations checks`."""

from __future__ import annotations

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.integrations.selection import open_integration
from datapilot_defer.cli.options import (
    UPLOAD_CHECKS,
    connection_options,
    environment_option,
    integration_options,
)
from datapilot_defer.cli.output import current_output, format_table
from datapilot_defer.client.connection import ConnectionOptions
from datapilot_defer.errors import UsageError


@click.command("checks", cls=Command)
@integration_options
@environment_option()
@click.option(
    "--disable",
    type=click.Choice(tuple(UPLOAD_CHECKS)),
    multiple=True,
    help="Disable this check for the environment. Can be repeated.",
)
@click.option(
    "--enable",
    type=click.Choice(tuple(UPLOAD_CHECKS)),
    multiple=True,
    help="Enable this check for the environment. Can be repeated.",
)
@connection_options
def checks(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    disable: tuple[str, ...],
    enable: tuple[str, ...],
    connection: ConnectionOptions,
) -> None:
    """Print, disable or enable safety checks of an environment.

    A disabled check does not reject uploads to this environment. To skip a check for one upload,
    use `datapilot dbt onboard --allow CHECK`.

    \b
    Examples:
      datapilot dbt integrations checks --integration-id 7
      datapilot dbt integrations checks --integration-id 7 --disable relations
    """
    from datapilot_defer.client import integration_calls

    contradictions = sorted({*disable} & {*enable})
    if contradictions:
        raise UsageError(f"--disable and --enable name the same check: {contradictions[0]}")
    client, found_id = open_integration(integration_id, integration_name, connection)
    disabled = integration_calls.read_disabled_checks(client, found_id, environment)
    if disable or enable:
        disabled = integration_calls.write_disabled_checks(
            client, found_id, environment, (disabled | {*disable}) - {*enable}
        )
    data = {
        "ok": True,
        "integration_id": found_id,
        "environment": environment,
        "disabled_checks": sorted(disabled),
    }
    rows = [_check_row(check, check in disabled) for check in UPLOAD_CHECKS]
    text = format_table(("check", "state", "rejects a manifest when"), rows)
    current_output().print_result(data, text)


def _check_row(check: str, is_disabled: bool) -> tuple[str, str, str]:
    state = "disabled" if is_disabled else "enabled"
    return (check, state, UPLOAD_CHECKS[check])
