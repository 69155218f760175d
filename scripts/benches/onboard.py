"""Onboarding as whole processes, next to altimate-datapilot-cli 0.3.8 and curl, against one real instance on loopback.

    scripts/bench onboard [--runs N]

Per command and manifest: CPU seconds and wall seconds of the process, and its peak memory; medians of N runs in turn.
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


@dataclass(frozen=True)
class Cost:
    """What one process took. memory_mb: its peak."""

    cpu_s: float
    wall_s: float
    memory_mb: float
    exit_code: int


# A process's peak memory counts from the fork on, so each command is started by a process smaller than itself.
STARTER = """
import json, os, sys, time
began = time.monotonic()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
took = [usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]
sys.stderr.write("\\n" + json.dumps(took))
"""


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench onboard", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args(argv).runs
    with (
        tempfile.TemporaryDirectory() as folder,
        running_instance(Path(folder) / "instance") as instance,
    ):
        integration = make_integration(instance, "warehouse")
        commands = {
            "datapilot --help": [*ours(), "--help"],
            "altimate --help": [*theirs(), "--help"],
        }
        for label, (models, columns) in SIZES.items():
            manifest = Path(folder) / f"{models}.json"
            large_manifest.write(manifest, models, columns)
            found = onboardings(instance, integration, manifest)
            commands |= {f"{name}, {label}": words for name, words in found.items()}
        print(f"{'':24}{'cpu s':>8}{'wall s':>8}{'MB':>8}  exit codes")
        for label, costs in alternately(commands, runs).items():
            print(row(label, costs), flush=True)


def onboardings(
    instance: RunningInstance, integration: int, manifest: Path
) -> dict[str, list[str]]:
    """The commands that bring this manifest to the instance; curl only copies its bytes."""
    where = [
        "--dbt_core_integration_id",
        str(integration),
        "--dbt_core_integration_environment",
        "PROD",
    ]
    access = [
        "--token",
        instance.token,
        "--instance-name",
        instance.instance_name,
        "--backend-url",
        instance.url,
    ]
    words = ["dbt", "onboard", *access, *where, "--manifest-path", str(manifest)]
    # The second manifest is of the same project, and not smaller: no guard has a reason to refuse it.
    found = {"datapilot": [*ours(), *words], "altimate": [*theirs(), *words]}
    curl = shutil.which("curl")
    return found | (
        {"curl": [curl, "--silent", "-o", os.devnull, manifest.as_uri()]} if curl else {}
    )


def ours() -> list[str]:
    """Our program."""
    return [sys.executable, "-m", "datapilot_defer"]


def theirs() -> list[str]:
    """The neighbour's program, in its own environment."""
    return [str(require_program("altimate", "datapilot"))]


def alternately(commands: Mapping[str, Sequence[str]], runs: int) -> dict[str, list[Cost]]:
    """Run every command once, and again, so that a machine that slows down slows all of them."""
    costs: dict[str, list[Cost]] = {label: [] for label in commands}
    for _ in range(runs):
        for label, words in commands.items():
            costs[label].append(measured(words))
    return costs


def measured(words: Sequence[str]) -> Cost:
    """Run one process to its end."""
    starter = [sys.executable, "-I", "-S", "-c", STARTER, *words]
    done = subprocess.run(starter, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    cpu_s, wall_s, peak, exit_code = json.loads(done.stderr.splitlines()[-1])
    return Cost(
        cpu_s, wall_s, peak / (1024 if sys.platform != "darwin" else 1024 * 1024), exit_code
    )


def row(label: str, costs: Sequence[Cost]) -> str:
    """One line of the table: medians."""
    cpu_s, wall_s, memory = (
        statistics.median(getattr(cost, name) for cost in costs)
        for name in ("cpu_s", "wall_s", "memory_mb")
    )
    return f"{label:24}{cpu_s:8.2f}{wall_s:8.2f}{memory:8.0f}  {sorted({cost.exit_code for cost in costs})}"


if __name__ == "__main__":
    main(sys.argv[1:])
