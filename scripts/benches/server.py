"""An instance in its own process, on SQLite and a directory, with clients on the same machine.

    scripts/bench server [SUBJECT ...] [--checkout DIRECTORY] [--quick]

verify      duration of verify_upload, one at a time, for a manifest of 655 kB
onboard     complete onboardings per second, by 4 and by 8 parallel clients
reads       fetch_artifact_url, pulls and the list of integrations with 1,000,000 uploads stored
history     an environment with 1,000,000 uploads: API and page
memory      memory of the server and of its children while eight clients upload 100 MB each, twice
lock        reads while another process holds the write lock of the database for 30 s
retention   onboardings while retention deletes 200,000 uploads (takes two minutes)
kill        SIGKILL every 2 s while clients onboard and pull
crash       SIGKILL at 120 moments of an upload and its verification, then of a child only

Every upload has different bytes. --checkout measures another checkout of this project with its own
`.venv`. --quick uses a hundredth of the numbers. Exits with 1 if any call failed.
"""

from __future__ import annotations

import argparse
import math
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.support import many_uploads
from tests.support.crash_points import crash_children, crash_server
from tests.support.dbt_project import RECORDED
from tests.support.health_probe import HealthProbe
from tests.support.manifest_variants import LargeManifest, renew
from tests.support.raw_client import Client
from tests.support.server_process import (
    Checkout,
    ChildSampler,
    ServerProcess,
    descendants,
    serving,
    status_mb,
)
from tests.support.torture import Plan, torture

TEMPLATE = (RECORDED / "manifest.json").read_bytes()
CLIENTS = 8


@dataclass(frozen=True)
class Bench:
    """What to measure. scale: 1, or less for a quick run."""

    checkout: Checkout
    scale: float
    directory: Path

    def count(self, full: int, least: int = 1) -> int:
        """Return a number for this run, `full` unless the run is quick."""
        return max(least, round(full * self.scale))

    def data(self, name: str) -> Path:
        """Return a new data directory."""
        return self.directory / name


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", metavar="SUBJECT", choices=[*SUBJECTS, []], nargs="*")
    parser.add_argument("--checkout", type=Path, default=Checkout().directory)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    scale = 0.01 if options.quick else 1.0
    exit_code = 0
    for subject in options.subjects or SUBJECTS:
        with tempfile.TemporaryDirectory() as directory:
            bench = Bench(Checkout(options.checkout.resolve()), scale, Path(directory))
            exit_code |= run_subject(subject, bench)
    return exit_code


def run_subject(name: str, bench: Bench) -> int:
    """Run one measurement and print its figures. Return 1 if it failed."""
    load = os.getloadavg()[0]
    try:
        figures = SUBJECTS[name](bench)
    except Exception as error:  # noqa: BLE001  # the other subjects are measured all the same
        print(f"{name}: FAILED: {type(error).__name__}: {error}", flush=True)
        return 1
    for figure in figures:
        print(f"{name}: {figure}", flush=True)
    print(f"{name}: load of the machine before: {load:.2f}", flush=True)
    return 0


def measure_verify(bench: Bench) -> list[str]:
    durations_ms = []
    with serving(bench.checkout, bench.data("data")) as server, Client(server) as client:
        integration = client.create_integration("shop")
        for _ in range(bench.count(150, 10) + 5):
            content = renew(TEMPLATE)
            file_id, _ = client.upload(integration, content, len(content))
            time.sleep(0.05)  # the server is idle again
            started = time.perf_counter()
            client.verify(file_id)
            durations_ms.append((time.perf_counter() - started) * 1000)
    return [f"verify_upload {percentiles(durations_ms[5:])} (p50 at most 60 ms is required)"]


def measure_onboard(bench: Bench) -> list[str]:
    figures = []
    with serving(bench.checkout, bench.data("data")) as server:
        with Client(server) as client:
            integrations = [client.create_integration(f"shop {n}") for n in range(CLIENTS)]
            for integration in integrations:
                client.onboard(integration, renew(TEMPLATE))
        for clients in (4, CLIENTS):
            figures.append(onboard_in_parallel(bench, server, integrations[:clients]))
    return figures


def onboard_in_parallel(bench: Bench, server: ServerProcess, integrations: list[int]) -> str:
    """Onboard from one connection for each integration and return the rate as text."""
    seconds = bench.count(20, 2)

    def onboard_repeatedly(integration: int) -> list[float]:
        durations_ms = []
        until = time.monotonic() + seconds
        with Client(server) as client:
            while time.monotonic() < until:
                onboarded = client.onboard(integration, renew(TEMPLATE))
                durations_ms.append(onboarded.total_s * 1000)
        return durations_ms

    cpu_before = server.cpu_s()
    own_before = time.process_time()
    started = time.monotonic()
    with ChildSampler(server.pid) as children:
        durations = in_parallel(onboard_repeatedly, integrations)
    elapsed_s = time.monotonic() - started
    durations_ms = [duration for each in durations for duration in each]
    own_s = time.process_time() - own_before
    server_s = server.cpu_s() - cpu_before
    return (
        f"{len(integrations)} clients: {len(durations_ms) / elapsed_s:.1f} onboardings/s "
        f"(20 are required), each {percentiles(durations_ms)}; CPU seconds per second: server "
        f"{server_s / elapsed_s:.2f}, children {children.cpu_s / elapsed_s:.2f}, "
        f"clients and sampling {own_s / elapsed_s:.2f}"
    )


def measure_reads(bench: Bench) -> list[str]:
    figures = []
    sizes = [(CLIENTS, 0), (bench.count(10_000, 10), bench.count(1_000_000))]
    for integrations, uploads in sizes:
        data = bench.data(f"data-{uploads}")
        token = bench.checkout.create_instance(data)
        many_uploads.add_integrations(data, integrations)
        many_uploads.add_uploads(
            data, uploads, environments=integrations, uploaded_ago=timedelta(days=1)
        )
        with serving(bench.checkout, data, "--keep", "999", token=token) as server:
            figures += [
                f"{integrations:,} integrations, {uploads:,} uploads: {figure}"
                for figure in measure_stored(bench, server)
            ]
    return figures


def measure_stored(bench: Bench, server: ServerProcess) -> list[str]:
    with Client(server) as client:
        for integration in range(1, CLIENTS + 1):
            client.onboard(integration, renew(TEMPLATE))
        fetched = [timed_ms(lambda: client.fetch(1)) for _ in range(bench.count(1000, 20))]
        listed = timed_ms(lambda: client.call("GET", "/dbt/v1/project_integrations"))

    def pull_repeatedly(integration: int) -> int:
        pulls = bench.count(60, 2)
        with Client(server) as puller:
            for _ in range(pulls):
                puller.pull(integration)
        return pulls

    started = time.monotonic()
    pulls = sum(in_parallel(pull_repeatedly, range(1, CLIENTS + 1)))
    return [
        f"fetch_artifact_url {percentiles(fetched)}",
        f"{pulls / (time.monotonic() - started):.0f} pulls/s by {CLIENTS} clients",
        f"list of integrations {listed:.0f} ms",
    ]


def measure_history(bench: Bench) -> list[str]:
    uploads = bench.count(1_000_000)
    data = bench.data("data")
    token = bench.checkout.create_instance(data)
    many_uploads.add_integrations(data, 1)
    many_uploads.add_uploads(data, uploads)
    with (
        serving(bench.checkout, data, "--keep", "2000000", token=token) as server,
        Client(server) as client,
    ):
        path = "/settings/integrations/1/PROD"
        cookie = client.sign_in(server.token)
        shown = [timed_ms(lambda: client.show(1)) for _ in range(15)]
        pages = [timed_ms(lambda: client.page(path, cookie)) for _ in range(15)]
    return [
        f"{uploads:,} uploads: show {percentiles(shown)} (at most 20 ms is required)",
        f"{uploads:,} uploads: page {percentiles(pages)} (at most 20 ms is required)",
    ]


def measure_memory(bench: Bench) -> list[str]:
    manifest = LargeManifest(bench.directory / "large.json", bench.count(100))
    with serving(bench.checkout, bench.data("data")) as server:
        with Client(server) as client:
            integrations = [client.create_integration(f"shop {n}") for n in range(CLIENTS)]
            warm_up = client.create_integration("warm-up")
            client.onboard(warm_up, renew(TEMPLATE))
        idle_mb = server.peak_mb()
        idle_children_mb = [status_mb(child, "VmHWM") for child in descendants(server.pid)]

        def onboard_twice(integration: int) -> list[float]:
            with Client(server) as client:
                rounds = []
                for _ in range(2):
                    content = manifest.variant()
                    rounds.append(client.onboard(integration, content, manifest.size_bytes))
            return [each.total_s for each in rounds]

        with ChildSampler(server.pid) as children, HealthProbe(server) as probe:
            durations_s = in_parallel(onboard_twice, integrations)
        peak_mb = server.peak_mb()
    longest_s = max(duration for each in durations_s for duration in each)
    return [
        f"{len(durations_s)} clients, 2 x {manifest.size_bytes / 1e6:.0f} MB each: server "
        f"{peak_mb - idle_mb:.0f} MB above idle ({idle_mb:.0f} MB; at most 64 MB is required)",
        f"largest child {children.peak_mb:.0f} MB (idle: {idle_children_mb}), "
        f"{children.most_children} at once",
        f"longest onboarding {longest_s:.1f} s; /health {probe.summary()} (0.5 s is required)",
    ]


def measure_lock(bench: Bench) -> list[str]:
    seconds = bench.count(30, 2)
    data = bench.data("data")
    with serving(bench.checkout, data) as server:
        with Client(server) as client:
            integration = client.create_integration("shop")
            client.onboard(integration, renew(TEMPLATE))
        tokens = [bench.checkout.create_token(data, f"reader {n}") for n in range(4)]
        over = threading.Event()

        def read_repeatedly(token: str) -> list[float]:
            durations_ms = []
            with Client(server, token=token) as reader:
                while not over.is_set():
                    durations_ms.append(timed_ms(lambda: reader.fetch(integration)))
                    durations_ms.append(timed_ms(lambda: reader.show(integration)))
                    time.sleep(0.02)
            return durations_ms

        with closing(sqlite3.connect(many_uploads.database_file(data), timeout=30)) as locker:
            locker.execute("BEGIN IMMEDIATE")
            threading.Timer(seconds, over.set).start()
            with HealthProbe(server) as probe:
                durations = in_parallel(read_repeatedly, tokens)
            locker.rollback()
    durations_ms = [duration for each in durations for duration in each]
    return [
        f"{len(durations_ms)} reads with 4 fresh tokens within {seconds} s: "
        f"{percentiles(durations_ms)} (p99 at most 200 ms is required)",
        f"/health {probe.summary()}",
    ]


def measure_retention(bench: Bench) -> list[str]:
    uploads = bench.count(200_000)
    data = bench.data("data")
    token = bench.checkout.create_instance(data)
    many_uploads.add_integrations(data, 2)
    many_uploads.add_uploads(data, uploads, uploaded_ago=timedelta(days=40))
    durations_ms = []
    failures = []
    begun = time.monotonic()
    deleted_after_s = None
    with (
        serving(bench.checkout, data, "--keep", "50", token=token) as server,
        Client(server) as client,
        HealthProbe(server) as probe,
    ):
        while time.monotonic() - begun < bench.count(180, 90):
            try:
                durations_ms.append(timed_ms(lambda: client.onboard(2, renew(TEMPLATE))))
            except Exception as error:  # noqa: BLE001  # counted, and fails the bench below
                failures.append(str(error))
            remaining = many_uploads.count_uploads(data, 1)
            if remaining <= 51 and deleted_after_s is None:
                deleted_after_s = time.monotonic() - begun
            if deleted_after_s and time.monotonic() - begun > deleted_after_s + 5:
                break
            time.sleep(0.1)
    figures = [
        f"{uploads:,} uploads deleted {deleted_after_s or 0:.0f} s after the start, "
        f"{remaining} left; onboardings meanwhile {percentiles(durations_ms)}",
        f"{len(failures)} onboardings failed: {sorted(set(failures))[:3]}",
        f"/health {probe.summary()}",
    ]
    if failures or deleted_after_s is None:
        raise RuntimeError("; ".join(figures))
    return figures


def measure_kill(bench: Bench) -> list[str]:
    plan = Plan(TEMPLATE, CLIENTS, bench.count(304, CLIENTS), bench.count(1000, 10), 2.0)
    outcome = torture(bench.data("data"), plan, bench.checkout)
    if outcome.wrong:
        raise RuntimeError(f"broken promises: {outcome.wrong}")
    return [
        f"{outcome.kills} kills in {outcome.seconds:.0f} s; "
        f"onboards by exit code {dict(outcome.exits)}, "
        f"the longest {outcome.longest_onboard_s:.1f} s; "
        f"pulls {dict(outcome.pulls)}, the longest {outcome.longest_pull_s:.1f} s"
    ]


def measure_crash(bench: Bench) -> list[str]:
    large = b"".join(LargeManifest(bench.directory / "large.json", bench.count(15, 2)).variant())
    outcomes = {
        "server, 655 kB": crash_server(
            bench.checkout, bench.directory / "small", TEMPLATE, bench.count(80, 3)
        ),
        "server, 15 MB": crash_server(
            bench.checkout, bench.directory / "large", large, bench.count(40, 3)
        ),
        "children, 15 MB": crash_children(
            bench.checkout, bench.directory / "children", large, bench.count(40, 3)
        ),
    }
    figures = [f"{name}: {outcome}" for name, outcome in outcomes.items()]
    if any(outcome.wrong for outcome in outcomes.values()):
        raise RuntimeError("; ".join(figures))
    return figures


def in_parallel(action: Callable[[object], object], arguments: Sequence[object]) -> list[object]:
    """Call an action in one thread for each argument; raise what any of them raised."""
    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(action, arguments))


def timed_ms(action: Callable[[], object]) -> float:
    """Return how long a call takes in milliseconds."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def percentiles(durations_ms: Sequence[float]) -> str:
    """Return the distribution of durations as text."""
    ordered = sorted(durations_ms)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return (
        f"p50 {statistics.median(ordered):.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, "
        f"max {ordered[-1]:.1f} ms, n={len(ordered)}"
    )


SUBJECTS: dict[str, Callable[[Bench], list[str]]] = {
    "verify": measure_verify,
    "onboard": measure_onboard,
    "reads": measure_reads,
    "history": measure_history,
    "memory": measure_memory,
    "lock": measure_lock,
    "retention": measure_retention,
    "kill": measure_kill,
    "crash": measure_crash,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
