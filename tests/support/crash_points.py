"""Kill a server or its children at many moments of an upload, then compare the stored data.

    outcome = crash_server(Checkout(), directory, manifest, points=100)
    assert outcome.wrong == []

Each point is one SIGKILL. Together they cover the duration of an upload evenly. After each point,
the server starts again with the same data directory, and every stored upload must be complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.manifest_variants import renew
from tests.support.raw_client import CallFailed, Client
from tests.support.server_process import (
    Checkout,
    ServerProcess,
    descendants,
    serving,
    surviving,
)

# The last points are after the response, because they exceed the usual duration.
_MARGIN = 1.3
_CHECKED_UPLOADS = 3


@dataclass
class CrashOutcome:
    """Results of a series of crashes. `wrong` lists the violated guarantees.

    answers: results of the interrupted uploads. current: the current manifest after each crash.
    incomplete_files: partial uploads in the data directory, which a later sweep deletes.
    children: the number of child processes when the server was killed.
    """

    points: int = 0
    upload_s: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    current: Counter[str] = field(default_factory=Counter)
    children: int = 0
    incomplete_files: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class _InterruptedUpload:
    """An upload in its own thread. result: "accepted", "cut off" or an error response."""

    server: ServerProcess
    integration: int
    content: bytes
    result: str = ""

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self) -> str:
        """Wait for the end of the upload and return its result."""
        self._thread.join()
        return self.result

    def _run(self) -> None:
        self.result = _onboard(self.server, self.integration, self.content)


def crash_server(checkout: Checkout, directory: Path, manifest: bytes, points: int) -> CrashOutcome:
    """Kill the server at moments spread over an upload."""
    temporary = directory / "temporary"
    temporary.mkdir(parents=True)
    checkout = replace(checkout, temporary=temporary)
    data = directory / "data"
    outcome = CrashOutcome()
    with serving(checkout, data) as server, Client(server) as client:
        token = server.token
        integration = client.create_integration("shop")
        client.onboard(integration, renew(manifest))
    outcome.upload_s = _second_upload_s(checkout, data, token, integration, manifest)
    previous = b""
    content = b""
    answer = ""
    for point in range(points + 1):
        with serving(checkout, data, "--keep", "9999", token=token) as server:
            if point:
                _check(server, integration, outcome, previous, content, answer)
            if point == points:
                break
            previous = renew(manifest)
            _require_accepted(server, integration, previous, outcome)
            content = renew(manifest)
            delay_s = _MARGIN * outcome.upload_s * (point + 0.5) / points
            answer = _crash_during_upload(server, integration, content, delay_s, outcome)
    _check_files(data, temporary, outcome)
    return outcome


def crash_children(
    checkout: Checkout, directory: Path, manifest: bytes, points: int
) -> CrashOutcome:
    """Kill the children of one server at moments spread over uploads, one upload for each point."""
    data = directory / "data"
    outcome = CrashOutcome()
    with serving(checkout, data) as server, Client(server) as client:
        integration = client.create_integration("shop")
        durations_s = []
        for _ in range(3):
            durations_s.append(client.onboard(integration, renew(manifest)).total_s)
        outcome.upload_s = statistics.median(durations_s)
        for point in range(points):
            previous = renew(manifest)
            _require_accepted(server, integration, previous, outcome)
            content = renew(manifest)
            upload = _InterruptedUpload(server, integration, content)
            time.sleep(_MARGIN * outcome.upload_s * (point + 0.5) / points)
            children = descendants(server.pid)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            outcome.points += 1
            outcome.children += len(children)
            answer = upload.wait()
            outcome.answers[answer] += 1
            _check(server, integration, outcome, previous, content, answer)
    return outcome


def _second_upload_s(
    checkout: Checkout, data: Path, token: str, integration: int, manifest: bytes
) -> float:
    """Return the seconds of the second upload of a new process, the median of three processes."""
    durations_s = []
    for _ in range(3):
        with serving(checkout, data, token=token) as server, Client(server) as client:
            client.onboard(integration, renew(manifest))
            durations_s.append(client.onboard(integration, renew(manifest)).total_s)
    return statistics.median(durations_s)


def _crash_during_upload(
    server: ServerProcess, integration: int, content: bytes, delay_s: float, outcome: CrashOutcome
) -> str:
    upload = _InterruptedUpload(server, integration, content)
    time.sleep(delay_s)
    children = descendants(server.pid)
    server.process.kill()
    server.process.wait()
    answer = upload.wait()
    outcome.points += 1
    outcome.children += len(children)
    outcome.answers[answer] += 1
    if answer not in ("accepted", "cut off"):
        outcome.wrong.append(f"point {outcome.points}: {answer}")
    survivors = surviving(children)
    if survivors:
        outcome.wrong.append(f"point {outcome.points}: children {survivors} outlived the server")
    return answer


def _onboard(server: ServerProcess, integration: int, content: bytes) -> str:
    try:
        with Client(server) as client:
            file_id, _ = client.upload(integration, content, len(content))
            client.verify(file_id)
    except CallFailed as error:
        return str(error)[:200]
    except (OSError, http.client.HTTPException):
        return "cut off"
    return "accepted"


def _require_accepted(
    server: ServerProcess, integration: int, content: bytes, outcome: CrashOutcome
) -> None:
    answer = _onboard(server, integration, content)
    if answer != "accepted":
        outcome.wrong.append(f"an upload after point {outcome.points}: {answer}")


def _check(
    server: ServerProcess,
    integration: int,
    outcome: CrashOutcome,
    previous: bytes,
    content: bytes,
    answer: str,
) -> None:
    """Compare the current manifest and the newest uploads with the uploaded content."""

    def expect(is_right: bool, problem: str) -> None:
        if not is_right:
            outcome.wrong.append(f"after point {outcome.points}: {problem}")

    names = {content: "new", previous: "previous"}
    with Client(server) as client:
        expect(client.send("GET", "/health")[0] == 200, "/health failed")
        current = names.get(client.pull(integration), "neither")
        outcome.current[current] += 1
        expect(current != "neither", "another manifest is current")
        expect(current == "new" or answer != "accepted", "a confirmed upload is lost")
        for upload in client.show(integration)["history"][:_CHECKED_UPLOADS]:
            _check_upload(client, integration, upload, expect)


def _check_upload(
    client: Client,
    integration: int,
    upload: dict[str, str],
    expect: Callable[[bool, str], None],
) -> None:
    file_id = int(upload["dbt_core_integration_file_id"])
    try:
        stored = client.pull(integration, file_id)
    except CallFailed as error:
        expect(False, f"file {file_id} is in the history: {error}")
        return
    expect(hashlib.sha256(stored).hexdigest() == upload["sha256"], f"file {file_id} differs")


def _check_files(data: Path, temporary: Path, outcome: CrashOutcome) -> None:
    remaining = [path for path in temporary.rglob("*") if path.is_file()]
    if remaining:
        outcome.wrong.append(f"temporary files remain: {remaining[:5]}")
    incoming = data.rglob("incoming/*")
    outcome.incomplete_files = sum(1 for path in incoming if path.is_file())
