"""Measure the duration of `/health` requests from another process.

    with HealthProbe(server) as probe:
        ...
    print(probe.summary())

Every request has its own connection, like those of a load balancer or a supervisor.
"""

from __future__ import annotations

import http.client
import json
import math
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from tests.support.server_process import REPOSITORY, ServerProcess

TIMEOUT_S = 30.0
INTERVAL_S = 0.05


@dataclass
class HealthProbe:
    """Requests to `/health` during a block. durations_s: the durations of all requests."""

    server: ServerProcess
    durations_s: list[float] = field(default_factory=list)
    failures: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> HealthProbe:
        host, port = self.server.host_and_port
        command = [sys.executable, "-m", "tests.support.health_probe", host, str(port)]
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # The process is ready.
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        output = self._process.communicate()[0]
        self.durations_s, self.failures = json.loads(output.splitlines()[-1])

    @property
    def longest_s(self) -> float:
        """Return the longest duration, failed requests included."""
        return max(self.durations_s, default=0.0)

    def summary(self) -> str:
        """Return number, maximum and 99th percentile as text."""
        ordered = sorted(self.durations_s)
        p99_s = ordered[math.ceil(0.99 * len(ordered)) - 1]
        return (
            f"{len(ordered)} requests, max {ordered[-1]:.3f} s, p99 {p99_s:.3f} s, "
            f"{self.failures} failed"
        )


def main(host: str, port: int) -> None:
    """Request `/health` until stdin is closed, then print the durations."""
    over = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    durations_s: list[float] = []
    failures = 0
    print("started", flush=True)
    while not over.is_set():
        started = time.perf_counter()
        is_healthy = _request_health(host, port)
        durations_s.append(time.perf_counter() - started)
        failures += not is_healthy
        over.wait(INTERVAL_S)
    print(json.dumps([durations_s, failures]))


def _request_health(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
