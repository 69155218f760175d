"""Pulling, and what `defer run` costs before dbt starts, as whole processes against one real instance on loopback.

    scripts/bench pull [--runs N]

Per command and manifest: CPU seconds and wall seconds of the process, and its peak memory; medians of N runs in turn.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import large_manifest
from tests.support.commands import access
from tests.support.instance_calls import make_integration, onboard
from tests.support.instances import RunningInstance, running_instance

_MEASURING = runpy.run_path(str(Path(__file__).with_name("onboard.py")))
SIZES, alternately, ours, row = (
    _MEASURING[name] for name in ("SIZES", "alternately", "ours", "row")
)


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench pull", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args(argv).runs
    with (
        tempfile.TemporaryDirectory() as place,
        running_instance(Path(place) / "instance") as instance,
    ):
        folder = Path(place)
        os.environ |= {**access(instance), "XDG_CACHE_HOME": str(folder / "cache")}
        commands = {"datapilot dbt pull --help": [*ours(), "dbt", "pull", "--help"]}
        for label, (models, columns) in SIZES.items():
            found = of_size(instance, folder, models, columns)
            commands |= {f"{name}, {label}": words for name, words in found.items()}
        print(f"{'':28}{'cpu s':>8}{'wall s':>8}{'MB':>8}  exit codes")
        for label, costs in alternately(commands, runs).items():
            print(row(f"{label:28}", costs), flush=True)


def of_size(
    instance: RunningInstance, folder: Path, models: int, columns: int
) -> Mapping[str, list[str]]:
    """The commands for a manifest of so many models. dbt is a program that does nothing."""
    state = folder / f"{models}"
    project = folder / f"project-{models}"
    (project / "models").mkdir(parents=True)
    state.mkdir()
    large_manifest.write(state / "manifest.json", models, columns)
    (project / "dbt_project.yml").write_text(f"name: {large_manifest.PROJECT}\n", encoding="utf-8")
    integration = make_integration(instance, f"warehouse {models}")
    onboard(instance, integration, (state / "manifest.json").read_bytes())
    dbt = folder / "dbt"
    dbt.write_text("#!/bin/sh\necho installed: 1.11.16\n", encoding="utf-8")
    dbt.chmod(0o755)
    pull = [*ours(), "dbt", "pull", "--integration-id", str(integration), "--readable-by", "1.11"]
    run = [*ours(), "dbt", "defer", "run", "--project-dir", str(project), "--dbt", str(dbt)]
    return {
        "pull": [*pull, "--force", "--output", str(folder / f"pulled-{models}")],
        "unchanged": pull,
        "offline": [*pull, "--offline"],
        "defer run": [*run, "--integration-id", str(integration), "build"],
        "defer run, local": [*run, "--manifest-path", str(state), "build"],
    }


if __name__ == "__main__":
    main(sys.argv[1:])
