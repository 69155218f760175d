"""`datapilot doctor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import IdType, connection_options, environment_option
from datapilot_defer.cli.output import current_output
from datapilot_defer.client.connection import Connection, ConnectionOptions

if TYPE_CHECKING:
    from datapilot_defer.doctor import CheckResult


@click.command("doctor", cls=Command)
@click.option(
    "--integration-id",
    type=IdType(),
    help="Also try the host that this one's uploads go to.",
)
@environment_option()
@connection_options
def doctor(integration_id: int | None, environment: str, connection: ConnectionOptions) -> None:
    """Find out what stands in the way of an onboarding.

    Tries each step by itself and says in plain words what does not work.

    The exit code is that of the first step that failed. What is current on the instance stays.
    """
    from datapilot_defer.doctor import check_configuration, run_checks

    output = current_output()
    instance = Connection(connection, environ=os.environ, console=output)
    results = [
        check_configuration(instance.credentials),
        *run_checks(
            instance.open(retry_s=0),
            integration_id=integration_id,
            environment=environment,
            environ=os.environ,
        ),
    ]
    exit_code = next((result.error.exit_code for result in results if result.error), 0)
    data = {
        "ok": exit_code == 0,
        "exit_code": exit_code,
        "steps": [_result_json(result) for result in results],
    }
    output.print_result(data, "\n".join(_format_result(result) for result in results))
    output.exit(exit_code)


def _result_json(result: CheckResult) -> dict[str, object]:
    return {"name": result.check.label, "ok": result.passed, "said": result.detail}


def _format_result(result: CheckResult) -> str:
    mark = "-"
    if result.error is not None:
        mark = "FAILED"
    elif result.passed:
        mark = "ok"
    return f"{mark:7} {result.check.label}: {result.detail}"
