"""An instance with a large or locked SQLite database, or during retention.

    scripts/bench database [SUBJECT ...] [--checkout DIRECTORY] [--quick]

reads       fetch_artifact_url, pulls and the list of integrations with 1,000,000 uploads stored
history     an environment with 1,000,000 uploads: API and page
lock        reads while another process holds the write lock of the database for 30 s
retention   onboardings while retention deletes 200,000 uploads (takes up to three minutes)

--checkout and --quick work as in `scripts/bench server`. The exit code is 1 if any call failed.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
import time
from contextlib import closing
from datetime import timedelta

from tests.support import many_uploads
from tests.support.bench_frame import (
    TEMPLATE,
    Bench,
    in_parallel,
    percentiles,
    run_benches,
    timed_ms,
)
from tests.support.health_probe import HealthProbe
from tests.support.manifest_variants import renew
from tests.support.raw_client import Client
from tests.support.server_process import ServerProcess, serving

CLIENTS = 8


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


def measure_lock(bench: Bench) -> list[str]:
    seconds = bench.count(30, 2)
    data = bench.data("data")
    with serving(bench.checkout, data) as server:
        with Client(server) as client:
            integration = client.create_integration("shop")
            client.onboard(integration, renew(TEMPLATE))
        tokens = [bench.checkout.create_token(data, f"reader {n}") for n in range(4)]
        end = threading.Event()

        def read_repeatedly(token: str) -> list[float]:
            durations_ms = []
            with Client(server, token=token) as reader:
                while not end.is_set():
                    durations_ms.append(timed_ms(lambda: reader.fetch(integration)))
                    durations_ms.append(timed_ms(lambda: reader.show(integration)))
                    time.sleep(0.02)
            return durations_ms

        with closing(sqlite3.connect(many_uploads.database_file(data), timeout=30)) as locker:
            locker.execute("BEGIN IMMEDIATE")
            threading.Timer(seconds, end.set).start()
            with HealthProbe(server) as probe:
                durations = in_parallel(read_repeatedly, tokens)
            locker.rollback()
    durations_ms = [duration for each in durations for duration in each]
    return [
        f"{len(durations_ms)} reads with 4 new tokens within {seconds} s: "
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
    started = time.monotonic()
    deleted_after_s = None
    with (
        serving(bench.checkout, data, "--keep", "50", token=token) as server,
        Client(server) as client,
        HealthProbe(server) as probe,
    ):
        while time.monotonic() - started < bench.count(300, 150):
            try:
                durations_ms.append(timed_ms(lambda: client.onboard(2, renew(TEMPLATE))))
            except Exception as error:  # noqa: BLE001  # The bench fails below.
                failures.append(str(error))
            remaining = many_uploads.count_uploads(data, 1)
            if remaining <= 51 and deleted_after_s is None:
                deleted_after_s = time.monotonic() - started
            if deleted_after_s and time.monotonic() - started > deleted_after_s + 5:
                break
            time.sleep(0.1)
    figures = [
        f"{uploads:,} uploads deleted {deleted_after_s or 0:.0f} s after the start, "
        f"{remaining} left; onboardings during that time {percentiles(durations_ms)}",
        f"{len(failures)} onboardings failed: {sorted(set(failures))[:3]}",
        f"/health {probe.summary()}",
    ]
    if failures or deleted_after_s is None:
        raise RuntimeError("; ".join(figures))
    return figures


SUBJECTS = {
    "reads": measure_reads,
    "history": measure_history,
    "lock": measure_lock,
    "retention": measure_retention,
}

if __name__ == "__main__":
    sys.exit(run_benches(sys.argv[1:], __doc__, SUBJECTS))
