"""Onboarding processes compared with altimate-datapilot-cli 0.3.8 and curl.

    scripts/bench onboard [--runs N]

All commands use one real instance on loopback. The results for each command and manifest are CPU
seconds, wall-clock seconds and peak memory of the process, as medians of N alternating runs. The
exit code is 1 if any run failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import large_manifest
from tests.support.environments import require_program
from tests.support.instance_calls import make_integration
from tests.support.instances import RunningInstance, running_instance

SIZES = {"6 MB": (500, 20), "60 MB": (5000, 20)}  # models, columns
RSS_UNITS_PER_MB = 1024
if sys.platform == "darwin":
    RSS_UNITS_PER_MB = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    """Resources that one process used. memory_mb: its peak memory."""

    cpu_s: float
    wall_s: float
    memory_mb: float
    exit_code: int


# The peak memory of a process starts with that of its parent, so a process smaller than all
# measured commands starts them.
STARTER = """
import json, os, sys, time
started = time.monotonic()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall_s = time.monotonic() - started
cpu_s = usage.ru_utime + usage.ru_stime
cost = [cpu_s, wall_s, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]
sys.stderr.write("\\n" + json.dumps(cost))
"""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench onboard", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args(argv).runs
    with (
        tempfile.TemporaryDirectory() as directory,
        running_instance(Path(directory) / "instance") as instance,
    ):
        commands = {
            "datapilot --help": [*our_program(), "--help"],
            "altimate --help": [*their_program(), "--help"],
        }
        for label, (models, columns) in SIZES.items():
            manifest = Path(directory) / f"{models}.json"
            large_manifest.write(manifest, models, columns)
            # The instance rejects a manifest that is much smaller than the current one, so each
            # size has its own integration.
            integration = make_integration(instance, f"warehouse {models}")
            for name, command in upload_commands(instance, integration, manifest).items():
                commands[f"{name}, {label}"] = command
        return print_costs(commands, runs, label_width=24)


def upload_commands(
    instance: RunningInstance, integration: int, manifest: Path
) -> dict[str, list[str]]:
    """Return the commands that upload this manifest. curl only copies its bytes."""
    arguments = ["dbt", "onboard"]
    arguments += ["--token", instance.token]
    arguments += ["--instance-name", instance.instance_name]
    arguments += ["--backend-url", instance.url]
    arguments += ["--dbt_core_integration_id", str(integration)]
    arguments += ["--dbt_core_integration_environment", "PROD"]
    arguments += ["--manifest-path", str(manifest)]
    commands = {
        "datapilot": [*our_program(), *arguments],
        "altimate": [*their_program(), *arguments],
    }
    curl = shutil.which("curl")
    if curl:
        commands["curl"] = [curl, "--silent", "-o", os.devnull, manifest.as_uri()]
    return commands


def our_program() -> list[str]:
    return [sys.executable, "-m", "datapilot_defer"]


def their_program() -> list[str]:
    return [str(require_program("altimate", "datapilot"))]


def print_costs(commands: Mapping[str, Sequence[str]], runs: int, *, label_width: int) -> int:
    """Measure the commands and print a table. Return 1 if any run failed, else 0."""
    print(f"{'':{label_width}}{'cpu s':>8}{'wall s':>8}{'MB':>8}  exit codes")
    exit_codes: set[int] = set()
    for label, costs in measure_alternately(commands, runs).items():
        print(f"{label:{label_width}}{format_medians(costs)}", flush=True)
        exit_codes |= {cost.exit_code for cost in costs}
    return int(exit_codes != {0})


def measure_alternately(commands: Mapping[str, Sequence[str]], runs: int) -> dict[str, list[Cost]]:
    """Run all commands in turn, so that slow phases of the machine affect all of them."""
    costs: dict[str, list[Cost]] = {label: [] for label in commands}
    for _ in range(runs):
        for label, command in commands.items():
            costs[label].append(measure(command))
    return costs


def measure(command: Sequence[str]) -> Cost:
    """Run one process until it exits."""
    starter = [sys.executable, "-I", "-S", "-c", STARTER, *command]
    result = subprocess.run(starter, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    cpu_s, wall_s, peak, exit_code = json.loads(result.stderr.splitlines()[-1])
    return Cost(cpu_s, wall_s, peak / RSS_UNITS_PER_MB, exit_code)


def format_medians(costs: Sequence[Cost]) -> str:
    """Return the columns of one row of the table without its label."""
    cpu_s = statistics.median(cost.cpu_s for cost in costs)
    wall_s = statistics.median(cost.wall_s for cost in costs)
    memory_mb = statistics.median(cost.memory_mb for cost in costs)
    exit_codes = sorted({cost.exit_code for cost in costs})
    return f"{cpu_s:8.2f}{wall_s:8.2f}{memory_mb:8.0f}  {exit_codes}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
