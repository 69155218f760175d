#!/usr/bin/env python3
"""Measure every row of the fault table, for us and for altimate-datapilot-cli 0.3.8, side by side.

    .venv/bin/python scripts/benches/faults.py                 all rows, as a Markdown table
    .venv/bin/python scripts/benches/faults.py TLS redirect    groups of rows only

The rows are those of tests/support/fault_table.py. What does not end within its deadline and 12 s more is killed: "hangs".
Takes ten to twenty minutes.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.support.dbt_project import production  # noqa: E402 - the path has to be set first
from tests.support.environments import require_program  # noqa: E402 - the path has to be set first
from tests.support.fault_runner import World, environ_of, make_world, our_command, proxy_of, run  # noqa: E402 - the path has to be set first
from tests.support.fault_table import GROUPS, Row  # noqa: E402 - the path has to be set first
from tests.support.instances import running_instance  # noqa: E402 - the path has to be set first

KILL_AFTER_S = 12.0
# What this machine needs to reach the internet is none of these rows' business.
NOT_OURS = re.compile(
    r"(?i).*(_proxy|CA_BUNDLE|SSL_CERT_\w+)|(ALTIMATE|DATAPILOT)_(?!TEST_).*|CI|GITHUB_.*"
)


def main() -> None:
    wanted = sys.argv[1:] or list(GROUPS)
    for name in filter(NOT_OURS.fullmatch, list(os.environ)):
        del os.environ[name]
    print(
        "| | fault | exit code | tries | seconds | deadline | holds | 0.3.8: exit code | tries | seconds | holds |"
    )
    print("|---|---|---:|---:|---:|---:|---|---:|---:|---:|---|")
    with (
        tempfile.TemporaryDirectory() as temporary,
        running_instance(Path(temporary) / "instance") as instance,
    ):
        world = make_world(
            instance, production() / "artifacts" / "manifest.json", Path(temporary) / "world"
        )
        for group in wanted:
            for row in GROUPS[group]:
                ours = measured(world, row, ours=True)
                theirs = measured(world, row, ours=False) if row.command == "onboard" else ["-"] * 4
                ours.insert(3, f"{row.timeout_s:g}")
                print("|", " | ".join([group, row.name, *ours, *theirs]), "|", flush=True)


def measured(world: World, row: Row, *, ours: bool) -> list[str]:
    """Exit code, requests that got as far as the fault, seconds, and what the instance holds afterwards."""
    integration = world.integration(f"{row.name}, {'ours' if ours else 'theirs'}")
    with proxy_of(world, row) as proxy:
        environ = environ_of(world, row, proxy, world.folder / "home")
        command = (
            our_command(world, row, integration)
            if ours
            else _their_command(world, proxy.url, integration)
        )
        ended = run(
            command,
            {**environ, "NO_COLOR": "1"},
            kill_after_s=(row.timeout_s if ours else 0) + KILL_AFTER_S,
        )
        tries = proxy.count(row.fault.call) if row.fault else proxy.connections
    code = "hangs" if ended.exit_code is None else str(ended.exit_code)
    if "Traceback" in ended.output:
        code += " (traceback)"
    return [code, str(tries), f"{ended.seconds:.1f}", world.holds(integration)]


def _their_command(world: World, url: str, integration: int) -> list[str]:
    """The same act by the options of altimate-datapilot-cli, which takes a token on the command line only."""
    access = {
        "--token": world.instance.token,
        "--instance-name": world.instance.instance_name,
        "--backend-url": url,
    }
    where = {
        "--dbt_core_integration_id": str(integration),
        "--dbt_core_integration_environment": "PROD",
    }
    options = {**access, **where, "--manifest-path": str(world.new)}
    name = os.fspath(require_program("altimate", "datapilot"))
    return [name, "dbt", "onboard", *(word for option in options.items() for word in option)]


if __name__ == "__main__":
    main()
