"""Interrupted onboardings: signals to the client and a killed server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import fault_actions as act
from tests.support.fault_proxy import At, Exchange, FaultProxy, fault_proxy
from tests.support.fault_runner import CommandResult, World, environ_of, our_command, run
from tests.support.fault_table import PUT, SIGNED_URL, VERIFY, Row
from tests.support.json_contract import find_problems

# The usual time is 2 s. The limit is high because a busy machine may need longer.
ENDS_WITHIN_S = 30

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="Windows has neither SIGTERM nor SIGKILL for other processes"
)


@contextmanager
def running(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Yield a running command."""
    with subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until a condition is true; fail if the process ends before."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


MOMENTS = {
    "while the instance is silent": (At(SIGNED_URL, act.stall), SIGNED_URL),
    "while it uploads": (At(PUT, act.stall_request(1000)), PUT),
    "while it waits for the confirmation": (At(VERIFY, act.stall_answer(0)), VERIFY),
    "while it waits for a retry": (At(PUT, act.answer(503, headers={"Retry-After": "100"})), PUT),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_signal_ends_onboarding(
    world: World, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    fault, call = MOMENTS[moment]
    integration = world.integration("shop")
    row = Row(moment, fault, 128 + number, "", timeout_s=3600)
    with fault_proxy(world.instance.url, fault) as proxy:
        environ = environ_of(world, row, proxy, tmp_path / "home")
        with running(our_command(world, row, integration), environ) as process:
            wait_until(lambda: proxy.count(call) > 0, process)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=ENDS_WITHIN_S)
    _check_end(number, process.returncode, stdout, stderr)
    if call is not VERIFY:  # The instance has received this call and acts on it.
        assert world.current_manifest(integration) == "old"
    world.put(integration, world.new)
    assert world.current_manifest(integration) == "new"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_reading_of_artifact(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    integration = world.integration("shop")
    pipe = tmp_path / "manifest.json"
    os.mkfifo(pipe)
    row = Row("pipe", None, 128 + number, "")
    with fault_proxy(world.instance.url) as proxy:
        environ = environ_of(world, row, proxy, tmp_path / "home")
        command = our_command(replace(world, new=pipe), row, integration)
        # The pipe opens when the command opens it.
        with running(command, environ) as process, pipe.open("wb") as writer:
            writer.write(b'{"metadata": ')
            writer.flush()
            stdout, stderr = _interrupt(process, number)
        assert proxy.calls == []
    _check_end(number, process.returncode, stdout, stderr)


def _interrupt(process: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str]:
    """Send a signal and return the output.

    Send it again if the process continues, because Python misses a signal between two reads.
    """
    process.send_signal(number)
    try:
        return process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return process.communicate(timeout=ENDS_WITHIN_S)


def _check_end(number: signal.Signals, code: int, stdout: str, stderr: str) -> None:
    assert code == 128 + number
    output = json.loads(stdout.splitlines()[-1])
    assert find_problems("dbt.onboard", output) == []
    assert (output["ok"], output["exit_code"]) == (False, 128 + number)
    assert f"ended by {number.name}" in stderr
    assert "Traceback" not in stderr


@contextmanager
def served(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the process of an instance and its URL."""
    command = [sys.executable, "-m", "datapilot_defer", "instance", "serve", "--data", str(data)]
    with running([*command, "--port", "0", "--json"], dict(os.environ)) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]


def test_instance_killed_during_upload_keeps_manifest(world: World, tmp_path: Path) -> None:
    integration = world.integration("shop")
    row = Row("killed", None, 5, "", timeout_s=3)
    with served(world.instance.data) as (server, url):

        def kill_after_half(exchange: Exchange) -> None:
            with exchange.upstream() as upstream:
                upstream.sendall(exchange.forwarded_head() + exchange.body(300_000))
                server.kill()
                server.wait()
            exchange.reset()

        with fault_proxy(url, At(PUT, kill_after_half, 1)) as proxy:
            result = _run(world, row, integration, proxy, tmp_path)
    assert result.exit_code == 5, result.output
    assert "uploading the manifest" in result.output
    _check_after_restart(world, integration, tmp_path)


def test_instance_killed_during_verification_has_old_or_new_manifest(
    world: World, tmp_path: Path
) -> None:
    integration = world.integration("shop")
    row = Row("killed", None, 5, "", timeout_s=3)
    with served(world.instance.data) as (server, url):

        def kill_after_request(exchange: Exchange) -> None:
            with exchange.upstream() as upstream:
                upstream.sendall(exchange.forwarded_head() + exchange.body())
                server.kill()
                server.wait()
            exchange.reset()

        with fault_proxy(url, At(VERIFY, kill_after_request, 1)) as proxy:
            result = _run(world, row, integration, proxy, tmp_path)
    assert result.exit_code == 5, result.output
    _check_after_restart(world, integration, tmp_path)


def _check_after_restart(world: World, integration: int, tmp_path: Path) -> None:
    """Check that an instance has the old or the new manifest and accepts the next upload."""
    assert world.current_manifest(integration) in ("old", "new")
    with served(world.instance.data) as (_, url), fault_proxy(url) as proxy:
        row = Row("again", None, 0, "")
        again = _run(world, row, integration, proxy, tmp_path)
    assert again.exit_code == 0, again.output
    assert world.current_manifest(integration) == "new"


def _run(
    world: World, row: Row, integration: int, proxy: FaultProxy, tmp_path: Path
) -> CommandResult:
    environ = environ_of(world, row, proxy, tmp_path / "home")
    return run(our_command(world, row, integration), environ, kill_after_s=60)
