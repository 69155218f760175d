"""Hostile clients of an instance in its own process, while another client requests /health.

    scripts/bench attacks [SUBJECT ...] [--checkout DIRECTORY] [--seconds N]

silent      1,020 silent connections at a limit of 1,024 open files, then uploads
silent-many 5,000 silent connections at a soft limit of 1,024 and a hard limit of 4,096
headers     5,000 connections that send their headers a byte at a time, at the same limits
body        5,000 connections that send the body of an API call a byte at a time
upload      5,000 connections that send the file of one upload token a byte at a time
chunks      four connections that send chunks of one byte as fast as possible
panic       like silent, with the first upload of the process during the flood
metadata    a manifest with 120 MB of empty lists in its metadata
node        a manifest with the same lists in one model
names       four manifests with model names of 5 MB each, then API and page of the environment

A flood lasts --seconds, by default 60. The exit code is 1 if a measurement failed.
"""

from __future__ import annotations

import http.client
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from tests.support import floods, manifest_variants
from tests.support.bench_frame import TEMPLATE, Bench, run_benches
from tests.support.floods import Flood
from tests.support.health_probe import HealthProbe
from tests.support.manifest_variants import renew, size_of
from tests.support.raw_client import CallFailed, Client
from tests.support.server_process import (
    ChildSampler,
    ServerProcess,
    cpu_s,
    descendants,
    serving,
    status_mb,
)

FEW_FILES = (1024, 1024)
MANY_FILES = (1024, 4096)


def flood(
    bench: Bench,
    kind: str,
    connections: int,
    open_files: tuple[int, int],
    *options: str,
    is_first: bool = False,
    is_upload: bool = False,
) -> Iterator[str]:
    """Yield the measurements of a flood.

    is_first: whether the process handles its first upload during the flood. is_upload: whether slow
    bodies are sent to a signed URL.
    """
    data = bench.data()
    with (
        serving(bench.checkout, data, *options, open_files=open_files) as server,
        Client(server, timeout_s=30) as client,
    ):
        integration = client.create_integration("shop")
        if not is_first:
            client.onboard(integration, renew(TEMPLATE))
        flooded = Flood(server, kind, connections)
        if is_upload:
            flooded.target = client.announce(integration)[0]
        first_upload = None
        if is_first:
            # The connection of the client stays open during the flood.
            first_upload = partial(put, client, client.announce(integration)[0])
        yield from _measure_flood(bench, server, flooded, first_upload)
        yield f"uploads after the flood: {uploads(server, integration, 5)}"
        yield f"the server runs: {server.process.poll() is None}"


def _measure_flood(
    bench: Bench, server: ServerProcess, flooded: Flood, first_upload: Callable[[], str] | None
) -> Iterator[str]:
    log_bytes = server.log.stat().st_size
    cpu_before = server.cpu_s()
    started = time.monotonic()
    first = ""
    with HealthProbe(server) as probe:
        with flooded:
            time.sleep(2.5)
            if first_upload is not None:
                first = first_upload()
            time.sleep(bench.seconds - 2.5)
            open_files = server.open_files()
        elapsed_s = time.monotonic() - started
        used_s = server.cpu_s() - cpu_before
        log_bytes = server.log.stat().st_size - log_bytes
    yield f"{flooded.connections:,} connections for {elapsed_s:.0f} s: {flooded.summary()}"
    yield f"/health {probe.summary()} (at most 1 s is required)"
    yield f"log {log_bytes * 60 / elapsed_s / 1e6:.2f} MB/minute; CPU {used_s / elapsed_s:.2f}"
    yield f"{open_files:,} open files; peak memory {server.peak_mb():.0f} MB"
    if first:
        yield f"first upload of the process, during the flood: {first}"


def put(client: Client, target: str) -> str:
    """Send a manifest to a signed URL and return the result as text."""
    content = renew(TEMPLATE)
    try:
        return f"HTTP {client.put(target, content, len(content))}"
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__


def uploads(server: ServerProcess, integration: int, count: int) -> dict[str, int]:
    """Onboard repeatedly and return how often each result occurred."""
    results: Counter[str] = Counter()
    for _ in range(count):
        with Client(server, timeout_s=30) as client:
            try:
                client.onboard(integration, renew(TEMPLATE))
                results["ok"] += 1
            except (CallFailed, OSError, http.client.HTTPException) as error:
                results[str(error)[:100] or type(error).__name__] += 1
        time.sleep(0.2)
    return dict(results)


def measure_silent(bench: Bench) -> Iterator[str]:
    yield from flood(bench, floods.SILENT, 1020, FEW_FILES, "-q")


def measure_panic(bench: Bench) -> Iterator[str]:
    yield from flood(bench, floods.SILENT, 1020, FEW_FILES, is_first=True)


def measure_silent_many(bench: Bench) -> Iterator[str]:
    yield from flood(bench, floods.SILENT, 5000, MANY_FILES)


def measure_headers(bench: Bench) -> Iterator[str]:
    yield from flood(bench, floods.HEADERS, 5000, MANY_FILES, "-q")


def measure_body(bench: Bench) -> Iterator[str]:
    yield from flood(bench, floods.BODY, 5000, MANY_FILES, "-q")


def measure_upload(bench: Bench) -> Iterator[str]:
    yield from flood(bench, floods.BODY, 5000, MANY_FILES, "-q", is_upload=True)


def measure_chunks(bench: Bench) -> Iterator[str]:
    yield from flood(bench, floods.CHUNKS, 4, MANY_FILES, "-q")


def measure_metadata(bench: Bench) -> Iterator[str]:
    yield from measure_hostile_manifest(
        bench, lambda: manifest_variants.with_lists_in_metadata(120)
    )


def measure_node(bench: Bench) -> Iterator[str]:
    yield from measure_hostile_manifest(bench, lambda: manifest_variants.with_lists_in_node(120))


def measure_hostile_manifest(bench: Bench, content: Callable[[], Iterator[bytes]]) -> Iterator[str]:
    """Yield the measurements of onboarding one hostile manifest."""
    with serving(bench.checkout, bench.data()) as server, Client(server) as client:
        integration = client.create_integration("shop")
        other = client.create_integration("other")
        client.onboard(other, renew(TEMPLATE))
        time.sleep(3)
        idle_mb = server.peak_mb()
        with ChildSampler(server.pid) as children, HealthProbe(server) as probe:
            results = _onboard_hostile(client, integration, content)
            time.sleep(3)
            wait_for_ingestion(server)
        yield f"onboarding: {results}"
        yield f"/health {probe.summary()} (at most 0.5 s is required)"
        yield f"server {server.peak_mb() - idle_mb:.0f} MB above idle (at most 64 MB is required)"
        yield f"largest child {children.peak_mb:.0f} MB; afterwards {child_memory(server)}"
        yield f"uploads afterwards: {uploads(server, other, 2)}"


def child_memory(server: ServerProcess) -> str:
    """Return the resident memory of the server and its children now."""
    sizes = [f"{status_mb(pid, 'VmRSS'):.0f} MB" for pid in descendants(server.pid)]
    return f"server {status_mb(server.pid, 'VmRSS'):.0f} MB, children {sizes}"


def wait_for_ingestion(server: ServerProcess) -> None:
    """Wait until the server and its children have been idle for a second, at most two minutes."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        before = total_cpu_s(server)
        time.sleep(1)
        if total_cpu_s(server) - before < 0.3:
            return


def total_cpu_s(server: ServerProcess) -> float:
    return sum(map(cpu_s, [server.pid, *descendants(server.pid)]))


def _onboard_hostile(
    client: Client, integration: int, content: Callable[[], Iterator[bytes]]
) -> str:
    started = time.monotonic()
    try:
        client.onboard(integration, content(), size_of(content()))
        result = "accepted"
    except CallFailed as error:
        result = str(error)[:160]
    except (OSError, http.client.HTTPException) as error:
        result = type(error).__name__
    return f"{result} after {time.monotonic() - started:.1f} s"


def measure_names(bench: Bench) -> Iterator[str]:
    with serving(bench.checkout, bench.data()) as server, Client(server) as client:
        integration = client.create_integration("shop")
        client.onboard(client.create_integration("other"), renew(TEMPLATE))
        idle_mb = server.peak_mb()
        cookie = client.sign_in(server.token)
        path = f"/settings/integrations/{integration}/PROD"
        with ChildSampler(server.pid) as children, HealthProbe(server) as probe:
            for letter in "abcd":

                def content(letter: str = letter) -> Iterator[bytes]:
                    return manifest_variants.with_long_names(letter, 24, 5_000_000)

                yield f"upload {letter}: {_onboard_hostile(client, integration, content)}"
                time.sleep(2)
                wait_for_ingestion(server)
            yield f"uploading: {server.peak_mb() - idle_mb:.0f} MB above idle"
            for _ in range(2):
                yield f"show: {_cost(lambda: client.show_bytes(integration))}"
                yield f"page: {_cost(lambda: client.page(path, cookie))}"
        yield f"/health {probe.summary()}"
        yield f"server {server.peak_mb() - idle_mb:.0f} MB above idle"
        yield f"largest child {children.peak_mb:.0f} MB; afterwards {child_memory(server)}"


def _cost(action: Callable[[], bytes]) -> str:
    started = time.monotonic()
    content = action()
    return f"{len(content) / 1e6:.3f} MB in {time.monotonic() - started:.3f} s"


SUBJECTS = {
    "silent": measure_silent,
    "silent-many": measure_silent_many,
    "headers": measure_headers,
    "body": measure_body,
    "upload": measure_upload,
    "chunks": measure_chunks,
    "panic": measure_panic,
    "metadata": measure_metadata,
    "node": measure_node,
    "names": measure_names,
}

if __name__ == "__main__":
    sys.exit(run_benches(sys.argv[1:], __doc__, SUBJECTS))
