"""Comparison with altimate-datapilot-cli 0.3.8 for every row of the fault table.

    scripts/bench faults                 all rows, as a Markdown table
    scripts/bench faults TLS redirect    only these groups of rows

tests/support/fault_table.py contains the rows. A command that exceeds its timeout by 12 s is killed
and reported as "hangs". The bench takes ten to twenty minutes.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from itertools import chain
from pathlib import Path

from tests.support.dbt_project import production
from tests.support.environments import require_program
from tests.support.fault_runner import World, environ_of, make_world, our_command, proxy_of, run
from tests.support.fault_table import GROUPS, Row
from tests.support.instances import running_instance

KILL_AFTER_S = 12.0
# Settings of this machine, such as its proxies, must not change the results.
MACHINE_SETTINGS = re.compile(
    r"(?i).*(_proxy|CA_BUNDLE|SSL_CERT_\w+)|(ALTIMATE|DATAPILOT)_(?!TEST_).*|CI|GITHUB_.*"
)


def main() -> None:
    groups = sys.argv[1:] or list(GROUPS)
    for name in filter(MACHINE_SETTINGS.fullmatch, list(os.environ)):
        del os.environ[name]
    print(
        "| | fault | exit code | tries | seconds | deadline | manifest "
        "| 0.3.8: exit code | tries | seconds | manifest |"
    )
    print("|---|---|---:|---:|---:|---:|---|---:|---:|---:|---|")
    with (
        tempfile.TemporaryDirectory() as directory,
        running_instance(Path(directory) / "instance") as instance,
    ):
        manifest = production() / "artifacts" / "manifest.json"
        world = make_world(instance, manifest, Path(directory) / "world")
        for group in groups:
            for row in GROUPS[group]:
                cells = measure_row(world, row)
                print("|", " | ".join([group, row.name, *cells]), "|", flush=True)


def measure_row(world: World, row: Row) -> list[str]:
    """Return our cells, including the deadline, followed by those of altimate-datapilot-cli."""
    ours = measure(world, row, ours=True)
    ours.insert(3, f"{row.timeout_s:g}")
    theirs = ["-"] * 4
    if row.command == "onboard":
        theirs = measure(world, row, ours=False)
    return [*ours, *theirs]


def measure(world: World, row: Row, *, ours: bool) -> list[str]:
    """Return exit code, number of requests that got the fault, seconds, and current manifest."""
    owner = "theirs"
    timeout_s = 0.0
    if ours:
        owner = "ours"
        timeout_s = row.timeout_s
    integration = world.integration(f"{row.name}, {owner}")
    with proxy_of(world, row) as proxy:
        environ = environ_of(world, row, proxy, world.directory / "home")
        if ours:
            command = our_command(world, row, integration)
        else:
            command = their_command(world, proxy.url, integration)
        result = run(command, {**environ, "NO_COLOR": "1"}, kill_after_s=timeout_s + KILL_AFTER_S)
        tries = proxy.connections
        if row.fault:
            tries = proxy.count(row.fault.call)
    exit_code = "hangs"
    if result.exit_code is not None:
        exit_code = str(result.exit_code)
    if "Traceback" in result.output:
        exit_code += " (traceback)"
    return [exit_code, str(tries), f"{result.seconds:.1f}", world.current_manifest(integration)]


def their_command(world: World, url: str, integration: int) -> list[str]:
    """Return the upload command of altimate-datapilot-cli, which needs the token as an option."""
    options = {
        "--token": world.instance.token,
        "--instance-name": world.instance.instance_name,
        "--backend-url": url,
        "--dbt_core_integration_id": str(integration),
        "--dbt_core_integration_environment": "PROD",
        "--manifest-path": str(world.new),
    }
    arguments = chain.from_iterable(options.items())
    return [os.fspath(require_program("altimate", "datapilot")), "dbt", "onboard", *arguments]


if __name__ == "__main__":
    main()
