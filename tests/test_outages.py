"""Unavailable instances: durations of retries, and use of a cached manifest."""

from __future__ import annotations

import math
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datapilot_defer.client import connection
from datapilot_defer.client.failures import RequestFailure, failure_from_exception
from datapilot_defer.client.retries import RetryBudget
from datapilot_defer.config import Setting
from datapilot_defer.credentials import Credentials
from datapilot_defer.deadline import Deadline
from tests.support import fault_actions as act
from tests.support.console import RecordingConsole
from tests.support.fault_proxy import Act, At, fault_proxy
from tests.support.fault_runner import World

PERMANENT = RequestFailure("down", retryable=True)


class Clock:
    """A clock that a test advances."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("datapilot_defer.client.retries.time.monotonic", clock.monotonic)
    return clock


def measure_retries(
    budget: RetryBudget, failure: RequestFailure, clock: Clock, try_s: float = 0.0
) -> float:
    """Return how long a request that always fails after `try_s` is retried, in seconds."""
    start = clock.now
    while True:
        clock.now += try_s
        wait_s = budget.next_wait(failure)
        if wait_s is None:
            return clock.now - start
        clock.now += wait_s


@pytest.mark.parametrize(
    ("budget_s", "timeout_s", "try_s", "expected_s"),
    [
        (300, 600, 0, 300),
        (30, 600, 0, 30),
        (0, 600, 0, 0),
        (300, 120, 0, 119),
        (300, 1, 0, 0),
        (300, 600, 0.01, 300),
    ],
)
def test_request_is_retried_until_budget_ends(
    budget_s: float, timeout_s: float, try_s: float, expected_s: float, clock: Clock
) -> None:
    budget = RetryBudget(budget_s, Deadline(timeout_s))
    assert measure_retries(budget, PERMANENT, clock, try_s) == pytest.approx(expected_s, abs=0.5)


def test_budget_starts_with_first_failure(clock: Clock) -> None:
    budget = RetryBudget(30, Deadline(6000))
    clock.now += 3000  # A long upload.
    assert budget.next_wait(PERMANENT) is not None


def test_silent_server_consumes_budget(clock: Clock) -> None:
    budget = RetryBudget(300, Deadline(600))
    budget.start()
    assert budget.max_try_s == math.inf
    clock.now += 60
    assert budget.next_wait(PERMANENT) is not None
    assert budget.max_try_s == 240
    clock.now += 238
    assert budget.max_try_s == 5
    clock.now += 5
    assert budget.next_wait(PERMANENT) is None


def test_retry_after_zero_still_waits(clock: Clock) -> None:
    budget = RetryBudget(300, Deadline(600))
    failure = RequestFailure("down", retryable=True, retry_after_s=0)
    assert measure_retries(budget, failure, clock) == pytest.approx(300, abs=0.5)
    assert budget._failures < 200


def test_unknown_host_is_retried_for_ten_seconds(clock: Clock) -> None:
    import requests

    error = requests.exceptions.ConnectionError(socket.gaierror(-2, "unknown"))
    failure = failure_from_exception(error, "https://h/")
    budget = RetryBudget(300, Deadline(600))
    assert measure_retries(budget, failure, clock) == pytest.approx(10, abs=0.1)


def test_retry_after_is_respected_or_ends_retries(clock: Clock) -> None:
    slow_down = RequestFailure("limits the rate", retryable=True, retry_after_s=20)
    budget = RetryBudget(30, Deadline(600))
    assert budget.next_wait(slow_down) == 20
    clock.now += 20
    assert budget.next_wait(slow_down) is None
    assert budget.describe_end(slow_down) == "; it asks to wait 20 s (tried 2 times in 20 s)"
    assert RetryBudget(30, Deadline(600)).next_wait(PERMANENT) is not None


def test_waits_grow_up_to_limit(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datapilot_defer.client.retries.random.uniform", max)
    budget = RetryBudget(300, Deadline(600))
    waits = []
    for _ in range(60):
        wait_s = budget.next_wait(PERMANENT)
        if wait_s is None:
            break
        waits.append(wait_s)
        clock.now += wait_s
    assert waits[:8] == [0.5, 1, 2, 4, 8, 10, 10, 10]
    assert sum(waits) == pytest.approx(300)


@pytest.mark.parametrize(("attended", "expected_s"), [(True, 30), (False, 300)])
def test_budget_is_shorter_at_terminal(attended: bool, expected_s: float) -> None:
    console = RecordingConsole()
    console.attended = attended
    parts = [Setting(value, "the test") for value in ("http://127.0.0.1:1", "acme", "t")]
    client = connection.open_instance(
        Credentials(*parts), environ={}, console=console, deadline=Deadline(600)
    )
    assert client._transport._limits.retry_s == expected_s


def datapilot(
    *words: str | Path | int, world: World, url: str, home: Path
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a command without a terminal. Return the result and the duration in seconds."""
    environ = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "datapilot_defer", *(str(word) for word in words)],
        env={**environ, **world.access(url)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return done, time.monotonic() - start


def test_job_waits_for_instance_restart(world: World, tmp_path: Path) -> None:
    integration = world.integration("restarts")
    with fault_proxy(world.instance.url, listen_after_s=12) as proxy:
        done, seconds = datapilot(
            *("dbt", "onboard", "--integration-id", integration, "--manifest-path", world.new),
            world=world,
            url=proxy.url,
            home=tmp_path,
        )
    assert done.returncode == 0, done.stderr
    assert seconds > 11
    assert world.current_manifest(integration) == "new"


@pytest.mark.parametrize("fault", [act.cut_request(0), act.answer(503), act.stall])
def test_pull_with_cached_manifest_ends_soon_with_one_warning(
    fault: Act, world: World, tmp_path: Path
) -> None:
    integration = world.integration("cached")
    arguments = ("dbt", "pull", "--integration-id", integration, "--output", tmp_path / "state")
    with fault_proxy(world.instance.url) as proxy:
        done, _ = datapilot(*arguments, world=world, url=proxy.url, home=tmp_path)
        assert done.returncode == 0, done.stderr
        proxy.faults = (At("GET /dbt/", fault),)
        done, seconds = datapilot(*arguments, world=world, url=proxy.url, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 4 < seconds < 30  # A command takes a second, or longer on a busy machine.
    warnings = re.findall(r"Warning: .*Using the artifacts of an earlier pull", done.stderr)
    assert len(warnings) == 1
    assert "--timeout" not in done.stderr


def test_pull_uses_cached_manifest_if_download_stalls(world: World, tmp_path: Path) -> None:
    integration = world.integration("stalls")
    arguments = ("dbt", "pull", "--integration-id", integration, "--output", tmp_path / "state")
    with fault_proxy(world.instance.url) as proxy:
        done, _ = datapilot(*arguments, world=world, url=proxy.url, home=tmp_path)
        assert done.returncode == 0, done.stderr
        world.put(integration, world.new)
        proxy.faults = (At("GET /files/", act.stall),)
        done, seconds = datapilot(*arguments, world=world, url=proxy.url, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert seconds < 40
    assert (tmp_path / "state" / "manifest.json").read_bytes() == world.old.read_bytes()
    assert len(re.findall(r"Warning: .*Using the artifacts of an earlier pull", done.stderr)) == 1
