"""An instance in its own process, with SQLite and clients on the same machine.

    scripts/bench server [SUBJECT ...] [--checkout DIRECTORY] [--quick]

verify      duration of verify_upload, one at a time, for a manifest of 655 kB
onboard     complete onboardings per second, by 4 and by 8 parallel clients
memory      memory of the server and its children while eight clients upload 100 MB each, twice
kill        SIGKILL every 2 s while clients onboard and pull
crash       SIGKILL at 120 moments of an upload and its verification, then of a child only

Every upload has different bytes. --checkout measures another checkout of this project with its own
`.venv`. --quick uses a hundredth of the numbers. The exit code is 1 if any call failed.
"""

from __future__ import annotations

import sys
import time

from tests.support.bench_frame import TEMPLATE, Bench, in_parallel, percentiles, run_benches
from tests.support.crash_points import crash_children, crash_server
from tests.support.health_probe import HealthProbe
from tests.support.manifest_variants import LargeManifest, renew
from tests.support.raw_client import Client
from tests.support.repeated_kills import Plan, kill_repeatedly
from tests.support.server_process import (
    ChildSampler,
    ServerProcess,
    descendants,
    serving,
    status_mb,
)

CLIENTS = 8


def measure_verify(bench: Bench) -> list[str]:
    durations_ms = []
    with serving(bench.checkout, bench.data("data")) as server, Client(server) as client:
        integration = client.create_integration("shop")
        for _ in range(bench.count(150, 10) + 5):
            content = renew(TEMPLATE)
            file_id, _ = client.upload(integration, content, len(content))
            time.sleep(0.05)  # The server is idle again.
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
        f"{children.most_children} at the same time",
        f"longest onboarding {longest_s:.1f} s; /health {probe.summary()} (0.5 s is required)",
    ]


def measure_kill(bench: Bench) -> list[str]:
    plan = Plan(TEMPLATE, CLIENTS, bench.count(304, CLIENTS), bench.count(1000, 10), 2.0)
    outcome = kill_repeatedly(bench.data("data"), plan, bench.checkout)
    if outcome.wrong:
        raise RuntimeError(f"violated guarantees: {outcome.wrong}")
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


SUBJECTS = {
    "verify": measure_verify,
    "onboard": measure_onboard,
    "memory": measure_memory,
    "kill": measure_kill,
    "crash": measure_crash,
}

if __name__ == "__main__":
    sys.exit(run_benches(sys.argv[1:], __doc__, SUBJECTS))
