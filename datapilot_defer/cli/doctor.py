"""`datapilot doctor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    connection_options,
    dbt_option,
    environment_option,
    max_age_option,
    optional_integration_options,
    project_dir_option,
    require_integration,
)
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.client.connection import Connection, ConnectionOptions
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.defer.project_settings import DeferSettings
    from datapilot_defer.doctor.instance_checks import InstanceFindings
    from datapilot_defer.doctor.steps import Step

_MARKS = {"passed": "ok", "failed": "FAILED", "warning": "warning", "skipped": "-"}


@click.command("doctor", cls=Command)
@optional_integration_options
@environment_option(default=None)
@max_age_option
@project_dir_option
@dbt_option
@connection_options
def doctor(
    integration_id: int | None,
    integration_name: str | None,
    environment: str | None,
    max_age: float | None,
    project_dir: str | None,
    dbt_path: str | None,
    connection: ConnectionOptions,
) -> None:
    """Diagnose the connection, credentials and dbt.

    Runs every check that is possible and exits with the exit code of the first one that failed.
    Changes nothing on the instance.

    Without credentials, the exit code is 2. If you do not specify an integration, checks the one
    that the dbt project defers to. A token may allow only reading or only uploading; the result
    shows which. A missing manifest is a failure, unless the token can upload one.

    \b
    Examples:
      datapilot doctor
      datapilot doctor --integration-id 7 --json
    """
    from datapilot_defer.doctor.instance_checks import InstanceChecks, skip_instance_checks
    from datapilot_defer.doctor.machine_checks import MachineChecks
    from datapilot_defer.doctor.network_checks import check_way

    output = current_output()
    output.may_ask = False  # the steps report what is missing
    integration = None
    if integration_id is not None or integration_name:
        integration = require_integration(integration_id, integration_name)
    instance = Connection(connection, environ=os.environ, console=output)
    machine = MachineChecks(
        instance,
        project_dir=project_dir,
        dbt_path=dbt_path,
        max_age_s=max_age,
        environ=os.environ,
        console=output,
    )
    steps = [*machine.run(), *check_way(instance)]
    findings = skip_instance_checks()
    if integration is None:
        integration, environment = _select_integration(machine.settings, environment)
    client = machine.client or _open_without_token(instance)
    if client is not None:
        checks = InstanceChecks(
            client, integration, environment, max_age_s=max_age, outdated=machine.outdated
        )
        findings = checks.run()
    _print_steps(output, [*steps, *findings.steps], findings)


def _open_without_token(instance: Connection) -> InstanceClient | None:
    """Return a client for the steps that need no token; None without a usable URL."""
    try:
        return instance.open_without_token()
    except UsageError:
        return None


def _select_integration(
    settings: DeferSettings | None, environment: str | None
) -> tuple[int | None, str | None]:
    """Return the integration that the project defers to, or None, and the environment."""
    if settings is None or not settings.enabled or settings.mode != "integration":
        return None, environment
    return settings.integration_id, environment or settings.environment


def _print_steps(output: Output, steps: Sequence[Step], findings: InstanceFindings) -> None:
    exit_code = next((step.error.exit_code for step in steps if step.error), 0)
    data = {
        "ok": exit_code == 0,
        "exit_code": exit_code,
        "may_read": findings.may_read,
        "may_upload": findings.may_upload,
        "steps": [step.to_json() for step in steps],
    }
    text = "\n".join(_format_step(step) for step in steps)
    _annotate_steps(output, steps)
    if exit_code:
        output.summarize("failed", text)
    output.print_result(data, text)
    output.exit(exit_code)


def _annotate_steps(output: Output, steps: Sequence[Step]) -> None:
    """Add annotations to a GitHub job for failed steps and for a token that expires soon."""
    for step in steps:
        if step.error is not None:
            output.annotate_error(f"{_format_label(step)}: {step.detail}")
        elif (step.name.value, step.status.value) == ("credentials", "warning"):
            output.annotate_warning(f"{_format_label(step)}: {step.detail}")


def _format_step(step: Step) -> str:
    return f"{_MARKS[step.status]:7} {_format_label(step)}: {step.detail}"


def _format_label(step: Step) -> str:
    return step.name.value.replace("_", " ")
