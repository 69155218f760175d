"""`datapilot doctor`."""

from __future__ import annotations

import os
from typing import Any

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    environment_option,
    find_credentials,
    instance_at,
    legacy_connection_options,
)
from datapilot_defer.cli.output import current_output
from datapilot_defer.credentials import Credentials


@click.command("doctor", cls=Command)
@click.option(
    "--integration-id",
    type=click.IntRange(min=1),
    help="Also try the host that this one's uploads go to.",
)
@environment_option()
@legacy_connection_options
def doctor(
    integration_id: int | None, environment: str, timeout: float | None, **access: Any
) -> None:
    """Find out what stands in the way of an onboarding.

    Tries each step by itself and says in plain words what does not work.

    The exit code is that of the first step that failed. What is current on the instance stays.
    """
    from datapilot_defer import doctor as examination

    report = current_output()
    found = find_credentials(report, **access)
    lines = [f"ok      configuration: {_configuration_check(found)['said']}"]
    steps = []
    for step in examination.run_checks(
        instance_at(report, found, timeout, max_tries=1),
        integration=integration_id,
        environment=environment,
        environ=os.environ,
    ):
        steps.append(step)
        mark = "FAILED" if step.error else "ok" if step.tried else "-"
        lines.append(f"{mark:7} {step.name}: {step.detail}")
    code = next((step.error.exit_code for step in steps if step.error), 0)
    data = {
        "ok": code == 0,
        "exit_code": code,
        "steps": [
            _configuration_check(found),
            *(
                {"name": step.name, "ok": step.error is None and step.tried, "said": step.detail}
                for step in steps
            ),
        ],
    }
    report.print_result(data, "\n".join(lines))
    report.exit(code)


def _configuration_check(found: Credentials) -> dict[str, object]:
    """The first step: getting here at all."""
    said = f"{found.url.value} (from {found.url.origin}), token from {found.token.origin}"
    return {"name": "configuration", "ok": True, "said": said}
