"""Kill an instance repeatedly while clients onboard and pull, then compare the stored data."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from tests.support.raw_client import Client
from tests.support.server_process import (
    INSTANCE_NAME,
    REPOSITORY,
    Checkout,
    descendants,
    serving,
    start_server,
    surviving,
    wait_until_ready,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Plan:
    """Numbers of clients and calls, and the time between kills. template: a manifest of dbt."""

    template: bytes = field(repr=False)
    clients: int
    onboards: int
    pulls: int
    seconds_between_kills: float
    timeout_s: int = 60


@dataclass
class Outcome:
    """Results that clients observed. `wrong` lists the violated guarantees."""

    kills: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    pulls: Counter[str] = field(default_factory=Counter)
    longest_onboard_s: float = 0.0
    longest_pull_s: float = 0.0
    onboarded: dict[int, list[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def kill_repeatedly(data: Path, plan: Plan, checkout: Checkout | None = None) -> Outcome:
    """Run the plan with the server of this checkout or another one."""
    served = checkout or Checkout()
    outcome = Outcome()
    with serving(served, data) as server, Client(server) as client:
        token = server.token
        for number in range(plan.clients):
            client.create_integration(f"c{number}")
    started = time.monotonic()
    with _killing_repeatedly(served, data, plan, outcome) as url:
        clients = _Clients(url, token, plan, outcome, data.parent)
        clients.run()
    with serving(served, data, "--keep", "999", token=token) as server:
        _compare(server.url, token, outcome)
    outcome.seconds = time.monotonic() - started
    return outcome


@dataclass
class _Clients:
    url: str
    token: str
    plan: Plan
    outcome: Outcome
    directory: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        uploading = [
            threading.Thread(target=self._onboard, args=(1 + number,))
            for number in range(self.plan.clients)
        ]
        pulling = [
            threading.Thread(target=self._pull, args=(1 + number,))
            for number in range(self.plan.clients)
        ]
        for thread in uploading + pulling:
            thread.start()
        for thread in uploading:
            thread.join()
        self._done.set()
        for thread in pulling:
            thread.join()

    def _onboard(self, integration_id: int) -> None:
        path = self.directory / f"manifest-{integration_id}.json"
        for turn in range(self.plan.onboards // self.plan.clients):
            content = _manifest(self.plan.template, integration_id, turn)
            path.write_bytes(content)
            started = time.monotonic()
            code = self._command(integration_id, path)
            with self._lock:
                self.outcome.exits[code] += 1
                self.outcome.longest_onboard_s = max(
                    self.outcome.longest_onboard_s, time.monotonic() - started
                )
                if code == 0:
                    sha256 = hashlib.sha256(content).hexdigest()
                    self.outcome.onboarded.setdefault(integration_id, []).append(sha256)

    def _command(self, integration_id: int, path: Path) -> int:
        words = [
            "dbt",
            "onboard",
            "--integration-id",
            integration_id,
            "--manifest-path",
            path,
            "--json",
        ]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "datapilot_defer",
                *map(str, words),
                "--timeout",
                str(self.plan.timeout_s),
            ],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "ALTIMATE_URL": self.url,
                "ALTIMATE_INSTANCE_NAME": INSTANCE_NAME,
                "ALTIMATE_API_KEY": self.token,
            },
            capture_output=True,
            check=False,
            timeout=self.plan.timeout_s + 60,
        )
        if b"Traceback" in done.stderr:
            self.outcome.wrong.append(done.stderr.decode(errors="replace"))
        return done.returncode

    def _pull(self, integration_id: int) -> None:
        """Pull until all uploads are done. Retry without delay while the instance is down."""
        remaining = self.plan.pulls // self.plan.clients
        while remaining > 0 or not self._done.is_set():
            started = time.monotonic()
            result = self._pull_once(integration_id)
            with self._lock:
                self.outcome.pulls[result] += 1
                self.outcome.longest_pull_s = max(
                    self.outcome.longest_pull_s, time.monotonic() - started
                )
            remaining -= result == "complete"
            if result != "complete":
                if self._done.is_set() and result == "nothing yet":
                    return
                time.sleep(0.1)

    def _pull_once(self, integration_id: int) -> str:
        query: dict[str, str | int] = {
            "artifact_type": "manifest",
            "dbt_core_integration_id": integration_id,
        }
        headers = {"Authorization": f"Bearer {self.token}", "x-tenant": INSTANCE_NAME}
        try:
            answer = requests.get(
                f"{self.url}/dbt/v1/fetch_artifact_url",
                params=query,
                headers=headers,
                timeout=self.plan.timeout_s,
            )
            if answer.status_code == 404:
                return "nothing yet"
            location = answer.json()
            download = requests.get(location["url"], timeout=self.plan.timeout_s)
        except (requests.RequestException, ValueError):
            return "cut off"
        is_complete = hashlib.sha256(download.content).hexdigest() == location["sha256"]
        if download.status_code == 200 and is_complete:
            return "complete"
        with self._lock:
            self.outcome.wrong.append(
                f"pull of {integration_id}: {download.status_code}, {len(download.content)} bytes"
            )
        return "wrong"


@contextmanager
def _killing_repeatedly(
    checkout: Checkout, data: Path, plan: Plan, outcome: Outcome
) -> Iterator[str]:
    port = _free_port()
    end = threading.Event()

    def kill() -> None:
        while not end.is_set():
            with start_server(checkout, data, "--keep", "999", port=port) as process:
                wait_until_ready(process)
                end.wait(plan.seconds_between_kills)
                children = descendants(process.pid)
                process.kill()
            outcome.kills += 1
            survivors = surviving(children)
            if survivors:
                outcome.wrong.append(f"children outlived the server: {survivors}")

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        end.set()
        killer.join()


def _compare(url: str, token: str, outcome: Outcome) -> None:
    """Check that each confirmed manifest is in the history and has the original bytes."""
    headers = {"Authorization": f"Bearer {token}", "x-tenant": INSTANCE_NAME}
    for integration_id, expected in outcome.onboarded.items():
        environment_url = f"{url}/dbt/v1/project_integrations/{integration_id}/PROD"
        ids = {}
        for entry in requests.get(environment_url, headers=headers, timeout=60).json()["history"]:
            ids[entry["sha256"]] = entry["dbt_core_integration_file_id"]
        for sha256 in [sha for sha in expected if sha not in ids]:
            outcome.wrong.append(f"integration {integration_id} lost {sha256}")
        for sha256, file_id in ids.items():
            query: dict[str, str | int] = {
                "artifact_type": "manifest",
                "dbt_core_integration_id": integration_id,
            }
            location = requests.get(
                f"{url}/dbt/v1/fetch_artifact_url",
                params={**query, "dbt_core_integration_file_id": file_id},
                headers=headers,
                timeout=60,
            ).json()
            content = requests.get(location["url"], timeout=60).content
            if hashlib.sha256(content).hexdigest() != sha256:
                outcome.wrong.append(
                    f"file {file_id} of integration {integration_id} is not what was onboarded"
                )


def _manifest(template: bytes, integration_id: int, turn: int) -> bytes:
    """Return the template with another time and invocation id."""
    document = json.loads(template)
    document["metadata"]["generated_at"] = f"{BEGIN + timedelta(minutes=turn):%Y-%m-%dT%H:%M:%SZ}"
    document["metadata"]["invocation_id"] = f"{integration_id:08d}-0000-4000-8000-{turn:012d}"
    return json.dumps(document).encode()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
