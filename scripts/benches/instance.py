"""An instance in its own process, on SQLite and a directory, with clients on the same machine.

    scripts/bench instance [speed | memory | kill] [--records N] [--integrations N] [--calls N]

speed    sequential fetch_artifact_url (p50, p99), pulls and uploads per second by 8 parallel
         clients, with 10 integrations, and again with --integrations and --records file records
memory   peak memory of the process while it receives eight 100 MB manifests at once
kill     300 uploads by 8 clients and 1,000 pulls; SIGKILL ends the instance every 2 s
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
class Served:
    """A running instance, with the headers that authenticate a request."""

    url: str
    headers: dict[str, str]
    pid: int


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="scripts/bench instance", description=__doc__)
    parser.add_argument("measure", choices=["speed", "memory", "kill"], nargs="?", default="speed")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--integrations", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        if options.measure == "kill":
            _kill(Path(directory))
        elif options.measure == "memory":
            _memory(Path(directory))
        else:
            _speed(Path(directory) / "small", 10, 0, options.calls)
            _speed(Path(directory) / "large", options.integrations, options.records, options.calls)


def _speed(data: Path, integrations: int, records: int, calls: int) -> None:
    template = (production() / "artifacts" / "manifest.json").read_bytes()
    token = _filled(data, integrations, records)
    with _served(data, token) as served:
        for integration_id in range(1, CLIENTS + 1):
            _upload(requests.Session(), served, integration_id, _later(template, 0))
        session, seconds = requests.Session(), []
        for call in range(calls):
            begun = time.perf_counter()
            assert _fetch(session, served, 1 + call % CLIENTS).status_code == 200
            seconds.append((time.perf_counter() - begun) * 1000)
        p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]
        pulls = _together(served, calls // 4, lambda s, i, _: _pull(s, served, i))
        uploads = _together(
            served, calls // 8, lambda s, i, turn: _upload(s, served, i, _later(template, 1 + turn))
        )
        begun = time.perf_counter()
        listed = requests.get(
            f"{served.url}/dbt/v1/project_integrations", headers=served.headers, timeout=60
        ).json()
        listing = time.perf_counter() - begun
    print(
        f"{integrations:,} integrations, {records:,} file records, "
        f"manifests of {len(template):,} bytes: "
        f"fetch_artifact_url p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
        f"{pulls:.0f} pulls/s, {uploads:.0f} uploads/s; "
        f"listing {len(listed):,} integrations {listing:.2f} s",
        flush=True,
    )


def _memory(directory: Path) -> None:
    content = _large()
    token = _filled(directory / "data", CLIENTS, 0)
    with _served(directory / "data", token) as served:
        before = _peak_mb(served.pid)
        begun = time.perf_counter()
        _together(served, CLIENTS, lambda s, i, _: _upload(s, served, i, content))
        took = time.perf_counter() - begun
        print(
            f"{CLIENTS} uploads of {len(content) / 1e6:.0f} MB at once: "
            f"peak {_peak_mb(served.pid):.0f} MB "
            f"(before: {before:.0f} MB), {took:.1f} s"
        )


def _kill(directory: Path) -> None:
    template = (production() / "artifacts" / "manifest.json").read_bytes()
    outcome = torture(directory / "data", Plan(template, CLIENTS, 304, 1000, 2.0))
    print(
        f"{outcome.kills} kills in {outcome.seconds:.0f} s; "
        f"onboards by exit code {dict(outcome.exits)}, "
        f"the longest {outcome.longest_onboard_s:.1f} s; pulls {dict(outcome.pulls)}, the longest "
        f"{outcome.longest_pull_s:.1f} s; promises broken: {outcome.wrong or 'none'}"
    )


def _filled(data: Path, integrations: int, records: int) -> str:
    """Create an instance with integrations, and file records spread over them."""
    with open_storage(data) as storage:
        token = str(instances.create_instance(storage, "acme"))
        times = {"created_at": utc_now(), "last_modified_at": utc_now()}
        made = [
            {"id": n, "instance_id": 1, "name": f"i{n}", "integration_type": "dbt_core", **times}
            for n in range(1, integrations + 1)
        ]
        environments = [
            {
                "id": n,
                "integration_id": n,
                "name": "PROD",
                "folded": "prod",
                "created_at": utc_now(),
            }
            for n in range(1, integrations + 1)
        ]
        with storage.database.write() as connection:
            connection.execute(tables.integrations.insert(), made)
            connection.execute(tables.environments.insert(), environments)
        for first in range(1, records + 1, 50_000):
            _fill(storage.database, range(first, min(first + 50_000, records + 1)), integrations)
    return token


def _fill(records: Database, ids: range, integrations: int) -> None:
    places = {n: {"environment_id": 1 + n % integrations, "kind": "manifest"} for n in ids}
    past = {"token_id": 1, "created_at": utc_now(), "uploaded_at": utc_now(), "size_bytes": 1}
    with records.write() as connection:
        connection.execute(
            tables.files.insert(),
            [{"id": n, **places[n], **past, "sha256": f"{n:064x}"} for n in ids],
        )
        connection.execute(
            tables.publications.insert(),
            [{"file_id": n, **places[n], "since": utc_now()} for n in ids],
        )


@contextmanager
def _served(data: Path, token: str) -> Iterator[Served]:
    words = [
        "instance",
        "serve",
        "--data",
        str(data),
        "--port",
        "0",
        "--requests-per-minute",
        "0",
        "--json",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "datapilot_defer", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            yield Served(url, {"Authorization": f"Bearer {token}", "x-tenant": "acme"}, process.pid)
        finally:
            process.terminate()


def _together(
    served: Served, calls: int, act: Callable[[requests.Session, int, int], None]
) -> float:
    """Run an action `calls / CLIENTS` times in each client; return actions per second."""

    def work(integration_id: int) -> None:
        with requests.Session() as session:
            for turn in range(max(1, calls // CLIENTS)):
                act(session, integration_id, turn)

    threads = [threading.Thread(target=work, args=(1 + number,)) for number in range(CLIENTS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(1, calls // CLIENTS) * CLIENTS / (time.perf_counter() - begun)


def _fetch(session: requests.Session, served: Served, integration_id: int) -> requests.Response:
    query: dict[str, str | int] = {
        "artifact_type": "manifest",
        "dbt_core_integration_id": integration_id,
    }
    return session.get(
        f"{served.url}/dbt/v1/fetch_artifact_url", params=query, headers=served.headers, timeout=60
    )


def _pull(session: requests.Session, served: Served, integration_id: int) -> None:
    assert (
        session.get(_fetch(session, served, integration_id).json()["url"], timeout=60).status_code
        == 200
    )


def _upload(session: requests.Session, served: Served, integration_id: int, content: bytes) -> None:
    query: dict[str, str | int] = {
        "dbt_core_integration_id": integration_id,
        "file_type": "manifest",
    }
    query["dbt_core_integration_environment_type"] = "PROD"
    announced = session.get(
        f"{served.url}/dbt/v1/signed_url", params=query, headers=served.headers, timeout=60
    ).json()
    assert session.put(announced["url"], data=content, timeout=600).status_code == 200
    body = {"dbt_core_integration_file_id": announced["dbt_core_integration_file_id"]}
    answer = session.post(
        f"{served.url}/dbt/v1/verify_upload", json=body, headers=served.headers, timeout=600
    )
    assert answer.status_code == 200, answer.text


def _later(template: bytes, turn: int) -> bytes:
    """Return the manifest with other bytes and the same timestamp."""
    return template.rstrip() + b"\n" * (1 + turn)


def _large() -> bytes:
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
    """Return the peak memory of a process; on Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0
