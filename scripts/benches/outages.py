"""Commands during an outage of an instance, with and without a terminal.

    scripts/bench outages [SUBJECT ...] [--checkout DIRECTORY] [--quick]

job        20 onboardings without a terminal, during outages of 5, 30 and 60 s
terminal   the same at a pseudo-terminal
defer      `defer run compile` of real dbt with and without a cached manifest (5 minutes)

The server process ends, 20 commands start at the same time, and a new server listens at the same
port later. --checkout measures the client of another checkout. --quick starts two commands each.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.bench_frame import TEMPLATE, Bench, in_parallel, run_benches
from tests.support.dbt_project import copy_shop
from tests.support.raw_client import Client
from tests.support.server_process import (
    INSTANCE_NAME,
    Checkout,
    ServerProcess,
    serving,
    stop,
)

COMMANDS = 20
AWAY_S = (5, 30, 60)
_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def measure_job(bench: Bench) -> Iterator[str]:
    yield from measure_onboardings(bench, at_terminal=False)


def measure_terminal(bench: Bench) -> Iterator[str]:
    yield from measure_onboardings(bench, at_terminal=True)


def measure_onboardings(bench: Bench, *, at_terminal: bool) -> Iterator[str]:
    for away_s in AWAY_S:
        data = bench.data(f"data-{at_terminal}-{away_s}")
        commands, server = prepare_onboardings(bench, data)
        environ = access(server, bench.checkout)
        if at_terminal:
            commands = [[sys.executable, "-c", _TERMINAL, *command] for command in commands]
        with returning(data, server, away_s):
            results = in_parallel(partial(run, environ=environ), commands)
        count = len(commands)
        exit_codes = Counter(exit_code for exit_code, _ in results)
        codes = ", ".join(f"{n} of {count} exit {code}" for code, n in sorted(exit_codes.items()))
        longest_s = max(seconds for _, seconds in results)
        yield f"outage of {away_s} s: {codes}; the longest took {longest_s:.0f} s"


def prepare_onboardings(bench: Bench, data: Path) -> tuple[list[list[str]], ServerProcess]:
    """Return one command per integration, and the server, which has ended."""
    manifest = bench.directory / "manifest.json"
    manifest.write_bytes(TEMPLATE)
    arguments = ("dbt", "onboard", "--manifest-path", str(manifest), "--integration-id")
    commands = []
    with serving(Checkout(), data) as server, Client(server) as client:
        for number in range(bench.count(COMMANDS, 2)):
            integration = client.create_integration(f"shop {number}")
            commands.append(bench.checkout.command(*arguments, str(integration)))
    return commands, server


def measure_defer(bench: Bench) -> Iterator[str]:
    shop = copy_shop(bench.directory / "shop")
    cache = bench.directory / "cache"
    with serving(Checkout(), bench.data()) as server:
        with Client(server) as client:
            integration = client.create_integration("shop")
            client.onboard(integration, (shop.prod_artifacts / "manifest.json").read_bytes())
        environ = {
            **shop.environment,
            **access(server, bench.checkout),
            "XDG_CACHE_HOME": str(cache),
        }
        options = ("--integration-id", str(integration), "--dbt", str(shop.dbt))
        words = ("dbt", "defer", "run", "--project-dir", str(shop.project), *options)
        command = bench.checkout.command(*words, "compile", "-s", "revenue_by_country")
        enable = ("dbt", "defer", "enable", "--project-dir", str(shop.project), *options[:2])
        yield describe("enable", run(bench.checkout.command(*enable), environ))
        yield describe("with the instance", run(command, environ))
    yield describe("outage, with a cached manifest", run(command, environ))
    shutil.rmtree(cache)
    yield describe("outage, without a cached manifest", run(command, environ))


def describe(label: str, result: tuple[int, float]) -> str:
    """Return the exit code and duration of one command as text."""
    exit_code, seconds = result
    return f"{label}: exit {exit_code} after {seconds:.1f} s"


def access(server: ServerProcess, checkout: Checkout) -> dict[str, str]:
    """Return the environment variables of a client."""
    return {
        **checkout.environ(),
        "ALTIMATE_URL": server.url,
        "ALTIMATE_INSTANCE_NAME": INSTANCE_NAME,
        "ALTIMATE_API_KEY": server.token,
    }


@contextmanager
def returning(data: Path, server: ServerProcess, away_s: float) -> Iterator[None]:
    """Start the server again at the same port after some seconds, while the block runs."""
    delayed = f"import time, os, sys; time.sleep({away_s}); os.execv(sys.argv[1], sys.argv[1:])"
    port = server.host_and_port[1]
    command = Checkout().command("instance", "serve", "--data", str(data), "--port", str(port))
    process = subprocess.Popen(
        [sys.executable, "-c", delayed, *command],
        env=Checkout().environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        stop(process)


def run(command: list[str], environ: Mapping[str, str]) -> tuple[int, float]:
    """Run a command. Return its exit code and duration in seconds."""
    started = time.monotonic()
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return done.returncode, time.monotonic() - started


SUBJECTS = {"job": measure_job, "terminal": measure_terminal, "defer": measure_defer}

if __name__ == "__main__":
    sys.exit(run_benches(sys.argv[1:], __doc__, SUBJECTS))
