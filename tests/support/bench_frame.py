"""The command line and the output of benches that measure an instance from outside.

if __name__ == "__main__":
    sys.exit(run_benches(sys.argv[1:], __doc__, {"reads": measure_reads}))
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.support.dbt_project import RECORDED
from tests.support.server_process import Checkout

TEMPLATE = (RECORDED / "manifest.json").read_bytes()
T = TypeVar("T")
A = TypeVar("A")


@dataclass(frozen=True)
class Bench:
    """Options of a run. scale: 1, or less for a quick run. seconds: the duration of a flood."""

    checkout: Checkout
    directory: Path
    scale: float
    seconds: float

    def count(self, full: int, minimum: int = 1) -> int:
        """Return a number of repetitions, which is `full` unless the run is quick."""
        return max(minimum, round(full * self.scale))

    def data(self, name: str = "data") -> Path:
        """Return a new data directory."""
        return self.directory / name


Subjects = Mapping[str, Callable[[Bench], Iterable[str]]]


def run_benches(argv: Sequence[str], description: str | None, subjects: Subjects) -> int:
    """Run the selected subjects or all of them. Return 1 if any of them failed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", metavar="SUBJECT", nargs="*")
    parser.add_argument("--checkout", type=Path, default=Checkout().directory)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args(argv)
    unknown = set(options.subjects) - set(subjects)
    if unknown:
        parser.error(f"unknown subject {unknown.pop()!r}; use one of {', '.join(subjects)}")
    scale = 1.0
    if options.quick:
        scale = 0.01
    exit_code = 0
    for name in options.subjects or subjects:
        with tempfile.TemporaryDirectory() as directory:
            checkout = Checkout(options.checkout.resolve())
            bench = Bench(checkout, Path(directory), scale, options.seconds)
            exit_code |= _run_subject(name, subjects[name], bench)
    return exit_code


def _run_subject(name: str, measure: Callable[[Bench], Iterable[str]], bench: Bench) -> int:
    """Run one measurement and print its figures. Return 1 if it failed."""
    print(f"{name}: load average before: {os.getloadavg()[0]:.2f}", flush=True)
    try:
        for figure in measure(bench):
            print(f"{name}: {figure}", flush=True)
    except Exception as error:  # noqa: BLE001  # Measure the other subjects.
        print(f"{name}: FAILED: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def in_parallel(action: Callable[[A], T], arguments: Sequence[A]) -> list[T]:
    """Call an action in one thread per argument and return the results.

    Raise the exception of a failed call.
    """
    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(action, arguments))


def timed_ms(action: Callable[[], object]) -> float:
    """Return the duration of a call in milliseconds."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def percentiles(durations_ms: Sequence[float]) -> str:
    """Return the distribution of durations as text."""
    ordered = sorted(durations_ms)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return (
        f"min {ordered[0]:.1f} ms, p50 {statistics.median(ordered):.1f} ms, p95 {p95:.1f} ms, "
        f"p99 {p99:.1f} ms, max {ordered[-1]:.1f} ms, n={len(ordered)}"
    )
