"""Validation of valid and broken manifests, compared with json.loads, jsonschema and a loader.

    scripts/bench validate [--runs N] [--without-jsonschema]

The results are medians of CPU seconds and peak memory above those of the bare interpreter,
including imports. Each measurement has its own process. jsonschema takes minutes for 60 MB, so it
is measured once with 6 MB. The other loader is that of altimate-datapilot-cli.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import large_manifest
from tests.support.environments import require_program

SIZES = {"6 MB": (500, 20), "60 MB": (5000, 20)}  # models, columns
MILLION = 1_000_000


class Cost(NamedTuple):
    """Resources that one process used, above those of the bare interpreter, and its result."""

    cpu_s: float
    memory_mb: float
    result: str


# Runs in a new interpreter. Prints CPU seconds and the growth of peak memory in MB.
FRAME = """
import json, resource, sys, time

def peak_mb():
    try:  # ru_maxrss on Linux starts with the peak of the parent process
        with open("/proc/self/status") as status:
            peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
            return peak_kib * 1024 / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

peak_before, started = peak_mb(), time.process_time()
path = sys.argv[1]
{code}
print(json.dumps([time.process_time() - started, peak_mb() - peak_before, result]))
"""
OURS = """
from datapilot_defer.artifact import read_artifact
from datapilot_defer.validation import validate
validation = validate(read_artifact(path))
result = "accepted" if validation.is_accepted else validation.problems[0].message
"""
JSON_LOADS = """
try:
    result = f"{len(json.loads(open(path, 'rb').read()))} keys"
except ValueError as error:
    result = str(error)
"""
JSONSCHEMA = """
import jsonschema
from datapilot_defer.validation import bundled_schemas
schema = bundled_schemas.published_schema("manifest", 12, "1.11.16").document
manifest = json.loads(open(path, 'rb').read())
result = str(jsonschema.Draft202012Validator(schema).is_valid(manifest))
"""
THEIRS = """
from datapilot.core.platforms.dbt.utils import load_manifest
result = type(load_manifest(path)).__name__
"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--without-jsonschema", action="store_true", help="omit jsonschema, which takes a minute"
    )
    options = parser.parse_args(argv)
    their_python = str(require_program("altimate", "python"))
    with tempfile.TemporaryDirectory() as directory:
        for label, path in write_manifests(Path(directory)).items():
            size_mb = path.stat().st_size / 1e6
            print(f"\n{label} ({size_mb:.1f} MB){'':20}CPU s      MB  per file MB")
            print_row("json.loads", sys.executable, JSON_LOADS, path, options.runs)
            print_row("datapilot dbt validate", sys.executable, OURS, path, options.runs)
            if label in SIZES:  # The other files need more memory than most machines have.
                print_row("altimate-datapilot-cli", their_python, THEIRS, path, 1)
            if label == "6 MB" and not options.without_jsonschema:
                print_row("plain jsonschema", sys.executable, JSONSCHEMA, path, 1)


def write_manifests(directory: Path) -> dict[str, Path]:
    """Write the valid and the broken manifests. Return their paths by label."""
    paths = {}
    for label, (models, columns) in SIZES.items():
        paths[label] = directory / f"{label}.json"
        large_manifest.write(paths[label], models, columns)
    for label, text in broken_manifests(paths["60 MB"].read_text(encoding="utf-8")):
        paths[label] = directory / f"{label}.json"
        paths[label].write_text(text, encoding="utf-8")
    return paths


def broken_manifests(valid: str) -> Iterator[tuple[str, str]]:
    """Yield label and text of each broken manifest one at a time, because they are large."""
    yield "a million errors in 6,300 models", break_columns(large_manifest.text(6300, 20))
    yield "a million broken nodes", replace_nodes(valid)
    yield "an error in the last character", valid[:-1] + "x"


def break_columns(text: str) -> str:
    """Put eight errors into each column."""
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


def replace_nodes(text: str) -> str:
    """Replace the nodes by a million empty nodes, each of which is an error."""
    head, opening, _ = text.partition('"nodes": {')
    parent_map = text.index(', "parent_map"')
    broken_nodes = ", ".join(
        f'"model.warehouse.m{number}": {{"resource_type": "model"}}' for number in range(MILLION)
    )
    return f"{head}{opening}{broken_nodes}}}{text[parent_map:]}"


def print_row(label: str, python: str, code: str, path: Path, runs: int) -> None:
    """Measure one program `runs` times and print one row of the table."""
    costs = [measure(python, code, path) for _ in range(runs)]
    cpu_s = statistics.median(cost.cpu_s for cost in costs)
    memory_mb = statistics.median(cost.memory_mb for cost in costs)
    memory_per_mb = memory_mb * 1e6 / path.stat().st_size
    result = costs[0].result[:50]
    print(f"  {label:34}{cpu_s:8.2f}{memory_mb:8.0f}{memory_per_mb:9.2f}   {result}")


def measure(python: str, code: str, path: Path) -> Cost:
    process = subprocess.run(
        [python, "-c", FRAME.format(code=code), str(path)],
        stdout=subprocess.PIPE,
        check=True,
        encoding="utf-8",
    )
    last_line = process.stdout.splitlines()[-1]
    return Cost(*json.loads(last_line))


if __name__ == "__main__":
    main(sys.argv[1:])
