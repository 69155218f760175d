"""Validation of a valid and of a broken manifest, next to json.loads, plain jsonschema and the neighbour's loader.

    scripts/bench validate [--runs N] [--without-jsonschema]

CPU seconds and peak memory above the bare interpreter's, each in a process of its own, imports included; medians.
Plain jsonschema takes minutes for 60 MB: it is measured with 6 MB only, once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support import large_manifest
from tests.support.environments import require_program

SIZES = {"6 MB": (500, 20), "60 MB": (5000, 20)}  # models, columns
MILLION = 1_000_000

# Runs in a fresh interpreter: prints CPU seconds and the growth of peak memory in MB.
FRAME = """
import json, resource, sys, time

def peak_mb():
    try:  # what Linux tells of a process's peak elsewhere begins with that of its parent
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

before, started = peak_mb(), time.process_time()
path = sys.argv[1]
{code}
print(json.dumps([time.process_time() - started, peak_mb() - before, said]))
"""
OURS = """
from datapilot_defer.artifact import read
from datapilot_defer.validation import validate
verdict = validate(read(path))
said = "accepted" if verdict.accepted else verdict.problems[0].message
"""
LOADS = """
try:
    said = f"{len(json.loads(open(path, 'rb').read()))} keys"
except ValueError as error:
    said = str(error)
"""
JSONSCHEMA = """
import jsonschema
from datapilot_defer.validation import known
schema = known.published("manifest", 12, "1.11.16").document
said = str(jsonschema.Draft202012Validator(schema).is_valid(json.loads(open(path, 'rb').read())))
"""
NEIGHBOUR = """
from datapilot.core.platforms.dbt.utils import load_manifest
said = type(load_manifest(path)).__name__
"""


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--without-jsonschema", action="store_true", help="leave out what takes a minute"
    )
    options = parser.parse_args(words)
    neighbour = str(require_program("altimate", "python"))
    with tempfile.TemporaryDirectory() as name:
        for label, path in files(Path(name)).items():
            size = path.stat().st_size / 1e6
            print(f"\n{label} ({size:.1f} MB){'':20}CPU s      MB  per file MB")
            row("json.loads", sys.executable, LOADS, path, options.runs)
            row("datapilot dbt validate", sys.executable, OURS, path, options.runs)
            if label in SIZES:  # a broken one of 60 MB takes it more memory than the machine has
                row("altimate-datapilot-cli", neighbour, NEIGHBOUR, path, 1)
            if label == "6 MB" and not options.without_jsonschema:
                row("plain jsonschema", sys.executable, JSONSCHEMA, path, 1)


def files(folder: Path) -> dict[str, Path]:
    made = {}
    for label, (models, columns) in SIZES.items():
        made[label] = folder / f"{label}.json"
        large_manifest.write(made[label], models, columns)
    text = made["60 MB"].read_text(encoding="utf-8")
    broken: dict[str, Callable[[], str]] = {
        "a million errors in 6,300 models": lambda: damaged(large_manifest.text(6300, 20)),
        "a million broken nodes": lambda: nodes(text),
        "an error in the last character": lambda: text[:-1] + "x",
    }
    for label, make in broken.items():
        made[label] = folder / f"{label}.json"
        made[label].write_text(make(), encoding="utf-8")
    return made


def damaged(text: str) -> str:
    """Eight errors in each column."""
    for old, new in (
        ('"meta": {"pii": false}', '"meta": null'),
        ('"constraints": []', '"constraints": 5'),
        ('"doc_blocks": []', '"doc_blocks": 5'),
        ('"tags": []', '"tags": null'),
        ('"granularity": null', '"granularity": "never"'),
        ('"name": "column_', '"title": "column_'),
    ):
        text = text.replace(old, new)
    return text


def nodes(text: str) -> str:
    """As many nodes as errors, with nothing in them."""
    head = text[: text.index('"nodes": {') + len('"nodes": {')]
    tail = text[text.index(', "parent_map"') :]
    broken = ", ".join(
        f'"model.warehouse.m{number}": {{"resource_type": "model"}}' for number in range(MILLION)
    )
    return f"{head}{broken}}}{tail}"


def row(label: str, python: str, code: str, path: Path, runs: int) -> None:
    """One line of the table."""
    costs = [measured(python, code, path) for _ in range(runs)]
    cpu_s, used = (statistics.median(cost[at] for cost in costs) for at in (0, 1))
    print(
        f"  {label:34}{cpu_s:8.2f}{used:8.0f}{used * 1e6 / path.stat().st_size:9.2f}   {str(costs[0][2])[:50]}"
    )


def measured(python: str, code: str, path: Path) -> tuple[float, float, str]:
    done = subprocess.run(
        [python, "-c", FRAME.format(code=code), str(path)],
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
    )
    cpu_s, used, said = json.loads(done.stdout.splitlines()[-1])
    return cpu_s, used, said


if __name__ == "__main__":
    main(sys.argv[1:])
