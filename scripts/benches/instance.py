"""An instance in its own process, on SQLite and a directory, with clients on the same machine.

    scripts/bench instance [speed | memory | kill] [--records N] [--integrations N] [--calls N]

speed    fetch_artifact_url sequentially (p50, p99), pulls and uploads per second by 8 parallel
         clients; with 10 integrations, then with --integrations of them and --records file records
memory   peak memory of the process while eight 100 MB manifests are uploaded in parallel
kill     300 uploads by 8 clients and 1,000 pulls while SIGKILL ends the instance every 2 s
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from datapilot_defer.instance.services import instances
from datapilot_defer.storage import open_storage, tables
from datapilot_defer.storage.database import Database, utc_now
from tests.support.dbt_project import production
from tests.support.torture import Plan, torture

CLIENTS = 8


@dataclass(frozen=True)
class ServedInstance:
    """A running instance and the headers that authenticate with it."""

    url: str
    headers: dict[str, str]
    pid: int


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench instance", description=__doc__)
    parser.add_argument("subject", choices=["speed", "memory", "kill"], nargs="?", default="speed")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--integrations", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        if options.subject == "kill":
            _measure_kills(directory)
        elif options.subject == "memory":
            _measure_memory(directory)
        else:
            large = (options.integrations, options.records)
            _measure_speed(directory / "small", 10, 0, options.calls)
            _measure_speed(directory / "large", *large, options.calls)


def _measure_speed(data: Path, integrations: int, records: int, calls: int) -> None:
    template = _production_manifest()
    token = _create_data(data, integrations, records)
    with _serve(data, token) as instance:
        for integration_id in range(1, CLIENTS + 1):
            _upload(requests.Session(), instance, integration_id, _newer_manifest(template, 0))
        fetch_ms = _time_fetches(instance, calls)
        pulls_per_s = _rate(calls // 4, lambda s, i, _: _pull(s, instance, i))
        uploads_per_s = _rate(
            calls // 8,
            lambda s, i, turn: _upload(s, instance, i, _newer_manifest(template, 1 + turn)),
        )
        listed, listing_s = _time_listing(instance)
    p50 = statistics.median(fetch_ms)
    p99 = statistics.quantiles(fetch_ms, n=100)[98]
    print(
        f"{integrations:,} integrations, {records:,} file records, "
        f"manifests of {len(template):,} bytes: "
        f"fetch_artifact_url p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
        f"{pulls_per_s:.0f} pulls/s, {uploads_per_s:.0f} uploads/s; "
        f"listing {listed:,} integrations {listing_s:.2f} s",
        flush=True,
    )


def _time_fetches(instance: ServedInstance, calls: int) -> list[float]:
    """Return the duration of each call of fetch_artifact_url in milliseconds."""
    session = requests.Session()
    durations_ms = []
    for call in range(calls):
        started = time.perf_counter()
        assert _fetch(session, instance, 1 + call % CLIENTS).status_code == 200
        durations_ms.append((time.perf_counter() - started) * 1000)
    return durations_ms


def _time_listing(instance: ServedInstance) -> tuple[int, float]:
    """List all integrations once. Return their number and the duration in seconds."""
    started = time.perf_counter()
    response = requests.get(
        f"{instance.url}/dbt/v1/project_integrations", headers=instance.headers, timeout=60
    )
    listed = len(response.json())
    return listed, time.perf_counter() - started


def _measure_memory(directory: Path) -> None:
    content = _large_manifest()
    token = _create_data(directory / "data", CLIENTS, 0)
    with _serve(directory / "data", token) as instance:
        before_mb = _peak_mb(instance.pid)
        started = time.perf_counter()
        _rate(CLIENTS, lambda s, i, _: _upload(s, instance, i, content))
        duration_s = time.perf_counter() - started
        peak_mb = _peak_mb(instance.pid)
    print(
        f"{CLIENTS} uploads of {len(content) / 1e6:.0f} MB at once: peak {peak_mb:.0f} MB "
        f"(before: {before_mb:.0f} MB), {duration_s:.1f} s"
    )


def _measure_kills(directory: Path) -> None:
    plan = Plan(_production_manifest(), CLIENTS, 304, 1000, 2.0)
    outcome = torture(directory / "data", plan)
    print(
        f"{outcome.kills} kills in {outcome.seconds:.0f} s; "
        f"onboards by exit code {dict(outcome.exits)}, "
        f"the longest {outcome.longest_onboard_s:.1f} s; "
        f"pulls {dict(outcome.pulls)}, the longest {outcome.longest_pull_s:.1f} s; "
        f"promises broken: {outcome.wrong or 'none'}"
    )


def _production_manifest() -> bytes:
    return (production() / "artifacts" / "manifest.json").read_bytes()


def _create_data(data: Path, integrations: int, records: int) -> str:
    """Create an instance with file records spread over its integrations. Return its token."""
    with open_storage(data) as storage:
        token = str(instances.create_instance(storage, "acme"))
        ids = range(1, integrations + 1)
        with storage.database.write() as connection:
            connection.execute(tables.integrations.insert(), [_integration_row(n) for n in ids])
            connection.execute(tables.environments.insert(), [_environment_row(n) for n in ids])
        for first in range(1, records + 1, 50_000):
            batch = range(first, min(first + 50_000, records + 1))
            _insert_files(storage.database, batch, integrations)
    return token


def _integration_row(number: int) -> dict[str, object]:
    return {
        "id": number,
        "instance_id": 1,
        "name": f"i{number}",
        "integration_type": "dbt_core",
        "created_at": utc_now(),
        "last_modified_at": utc_now(),
    }


def _environment_row(number: int) -> dict[str, object]:
    return {
        "id": number,
        "integration_id": number,
        "name": "PROD",
        "folded": "prod",
        "created_at": utc_now(),
    }


def _insert_files(database: Database, ids: range, integrations: int) -> None:
    now = utc_now()
    uploaded = {"token_id": 1, "created_at": now, "uploaded_at": now, "size_bytes": 1}
    files: list[dict[str, object]] = []
    publications: list[dict[str, object]] = []
    for number in ids:
        target = {"environment_id": 1 + number % integrations, "kind": "manifest"}
        files.append({"id": number, **target, **uploaded, "sha256": f"{number:064x}"})
        publications.append({"file_id": number, **target, "since": now})
    with database.write() as connection:
        connection.execute(tables.files.insert(), files)
        connection.execute(tables.publications.insert(), publications)


@contextmanager
def _serve(data: Path, token: str) -> Iterator[ServedInstance]:
    command = [sys.executable, "-m", "datapilot_defer", "instance", "serve", "--data", str(data)]
    command += ["--port", "0", "--requests-per-minute", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        headers = {"Authorization": f"Bearer {token}", "x-tenant": "acme"}
        try:
            yield ServedInstance(url, headers, process.pid)
        finally:
            process.terminate()


def _rate(calls: int, action: Callable[[requests.Session, int, int], None]) -> float:
    """Let each client call the action `calls / CLIENTS` times. Return calls per second."""
    turns = max(1, calls // CLIENTS)

    def run_client(integration_id: int) -> None:
        with requests.Session() as session:
            for turn in range(turns):
                action(session, integration_id, turn)

    threads = [threading.Thread(target=run_client, args=(1 + n,)) for n in range(CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return turns * CLIENTS / (time.perf_counter() - started)


def _fetch(
    session: requests.Session, instance: ServedInstance, integration_id: int
) -> requests.Response:
    query: dict[str, str | int] = {
        "artifact_type": "manifest",
        "dbt_core_integration_id": integration_id,
    }
    return session.get(
        f"{instance.url}/dbt/v1/fetch_artifact_url",
        params=query,
        headers=instance.headers,
        timeout=60,
    )


def _pull(session: requests.Session, instance: ServedInstance, integration_id: int) -> None:
    url = _fetch(session, instance, integration_id).json()["url"]
    assert session.get(url, timeout=60).status_code == 200


def _upload(
    session: requests.Session, instance: ServedInstance, integration_id: int, content: bytes
) -> None:
    query: dict[str, str | int] = {
        "dbt_core_integration_id": integration_id,
        "file_type": "manifest",
        "dbt_core_integration_environment_type": "PROD",
    }
    target = session.get(
        f"{instance.url}/dbt/v1/signed_url", params=query, headers=instance.headers, timeout=60
    ).json()
    assert session.put(target["url"], data=content, timeout=600).status_code == 200
    body = {"dbt_core_integration_file_id": target["dbt_core_integration_file_id"]}
    response = session.post(
        f"{instance.url}/dbt/v1/verify_upload", json=body, headers=instance.headers, timeout=600
    )
    assert response.status_code == 200, response.text


def _newer_manifest(template: bytes, turn: int) -> bytes:
    """Return the same manifest with different bytes."""
    return template.rstrip() + b"\n" * (1 + turn)


def _large_manifest() -> bytes:
    """Return a manifest of 100 MB: many models with long code."""
    metadata = {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json"}
    head = json.dumps({"metadata": metadata, "macros": {}})[:-1].encode() + b', "nodes": {'
    code = "select 1 as one -- " * 500
    nodes = (
        json.dumps({f"model.shop.m{n}": {"resource_type": "model", "raw_code": code}})[1:-1]
        for n in range(10_400)
    )
    return head + ", ".join(nodes).encode() + b"}}"


def _peak_mb(pid: int) -> float:
    """Return the peak memory of a process, on Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main(sys.argv[1:])
