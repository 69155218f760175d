"""Costs of `dbt pull`, and of `defer run` before dbt starts.

    scripts/bench pull [--runs N]

All commands use one real instance on loopback. The results for each command and manifest are CPU
seconds, wall-clock seconds and peak memory of the process, as medians of N alternating runs. The
exit code is 1 if any run failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from onboard import SIZES, our_program, print_costs

from tests.support import large_manifest
from tests.support.commands import access
from tests.support.instance_calls import make_integration, onboard
from tests.support.instances import running_instance


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench pull", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args(argv).runs
    with (
        tempfile.TemporaryDirectory() as directory,
        running_instance(Path(directory) / "instance") as instance,
    ):
        work_directory = Path(directory)
        os.environ |= {**access(instance), "XDG_CACHE_HOME": str(work_directory / "cache")}
        dbt = write_dbt(work_directory)
        commands = {"datapilot dbt pull --help": [*our_program(), "dbt", "pull", "--help"]}
        for label, (models, columns) in SIZES.items():
            state = work_directory / f"{models}"
            state.mkdir()
            large_manifest.write(state / "manifest.json", models, columns)
            integration = make_integration(instance, f"warehouse {models}")
            onboard(instance, integration, (state / "manifest.json").read_bytes())
            for name, command in pull_commands(dbt, state, integration).items():
                commands[f"{name}, {label}"] = command
        return print_costs(commands, runs, label_width=28)


def write_dbt(directory: Path) -> Path:
    """Write an executable that only prints dbt's version. Return its path."""
    dbt = directory / "dbt"
    dbt.write_text("#!/bin/sh\necho installed: 1.11.16\n", encoding="utf-8")
    dbt.chmod(0o755)
    return dbt


def pull_commands(dbt: Path, state: Path, integration: int) -> dict[str, list[str]]:
    """Return the commands for an integration whose manifest is in the state directory."""
    project = state.with_name(f"project-{state.name}")
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text(f"name: {large_manifest.PROJECT}\n", encoding="utf-8")
    output = state.with_name(f"pulled-{state.name}")
    integration_options = ["--integration-id", str(integration)]
    pull = [*our_program(), "dbt", "pull", *integration_options, "--readable-by", "1.11"]
    run = [*our_program(), "dbt", "defer", "run", "--project-dir", str(project), "--dbt", str(dbt)]
    return {
        "pull": [*pull, "--force", "--output", str(output)],
        "unchanged": pull,
        "offline": [*pull, "--offline"],
        "defer run": [*run, *integration_options, "build"],
        "defer run, local": [*run, "--manifest-path", str(state), "build"],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
