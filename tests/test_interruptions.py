"""Killed on either side, at any moment: nothing is half done, and the next onboarding works."""

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
from tests.support.fault_runner import Ended, World, environ_of, our_command, run
from tests.support.fault_table import PUT, SIGNED_URL, VERIFY, Row
from tests.support.json_contract import find_problems

ENDS_WITHIN_S = 30  # 2 s are promised; this is about whether, on any machine

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="Windows knows neither SIGTERM nor SIGKILL for other processes"
)


@contextmanager
def started(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
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


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until something is so; fails when the process has ended before."""
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


MOMENTS = {
    "while the instance is silent": (At(SIGNED_URL, act.stall), SIGNED_URL),
    "while it uploads": (At(PUT, act.stall_request(1000)), PUT),
    "while it waits for the confirmation": (At(VERIFY, act.stall_answer(0)), VERIFY),
    "while it waits to try again": (At(PUT, act.answer(503, headers={"Retry-After": "100"})), PUT),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_an_onboarding(
    world: World, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    fault, call = MOMENTS[moment]
    integration = world.integration("shop")
    row = Row(moment, fault, 128 + number, "", timeout_s=3600)
    with fault_proxy(world.instance.url, fault) as proxy:
        environ = environ_of(world, row, proxy, tmp_path / "home")
        with started(our_command(world, row, integration), environ) as process:
            wait_until(lambda: proxy.count(call) > 0, process)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=ENDS_WITHIN_S)
    _ended_by(number, process.returncode, stdout, stderr)
    if call is not VERIFY:  # that one had arrived, and the instance goes by it
        assert world.holds(integration) == "old"
    world.put(integration, world.new)
    assert world.holds(integration) == "new"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_reading_of_an_artifact(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    integration = world.integration("shop")
    pipe = tmp_path / "manifest.json"
    os.mkfifo(pipe)
    row = Row("pipe", None, 128 + number, "")
    with fault_proxy(world.instance.url) as proxy:
        environ = environ_of(world, row, proxy, tmp_path / "home")
        command = our_command(replace(world, new=pipe), row, integration)
        with (
            started(command, environ) as process,
            pipe.open("wb") as writer,
        ):  # which opens when the command does
            writer.write(b'{"metadata": ')
            writer.flush()
            stdout, stderr = _interrupt(process, number)
        assert proxy.calls == []
    _ended_by(number, process.returncode, stdout, stderr)


def _interrupt(process: subprocess.Popen[str], number: signal.Signals) -> tuple[str, str]:
    """Send a signal and return the output.

    Send it again if nothing happens: Python cannot notice a signal that arrives between two reads.
    """
    process.send_signal(number)
    try:
        return process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return process.communicate(timeout=ENDS_WITHIN_S)


def _ended_by(number: signal.Signals, code: int, stdout: str, stderr: str) -> None:
    assert code == 128 + number
    said = json.loads(stdout.splitlines()[-1])
    assert find_problems("dbt.onboard", said) == []
    assert (said["ok"], said["exit_code"]) == (False, 128 + number)
    assert f"ended by {number.name}" in stderr
    assert "Traceback" not in stderr


@contextmanager
def served(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield an instance as a process of its own, and its URL."""
    command = [sys.executable, "-m", "datapilot_defer", "instance", "serve", "--data", str(data)]
    with started([*command, "--port", "0", "--json"], dict(os.environ)) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]


def test_an_instance_killed_during_an_upload_holds_what_it_held(
    world: World, tmp_path: Path
) -> None:
    integration = world.integration("shop")
    row = Row("killed", None, 5, "", timeout_s=3)
    with served(world.instance.data) as (server, url):

        def kill_halfway(exchange: Exchange) -> None:
            with exchange.upstream() as upstream:
                upstream.sendall(exchange.forwarded_head() + exchange.body(300_000))
                server.kill()
                server.wait()
            exchange.reset()

        with fault_proxy(url, At(PUT, kill_halfway, 1)) as proxy:
            ended = _run(world, row, integration, proxy, tmp_path)
    assert ended.exit_code == 5, ended.output
    assert "uploading the manifest" in ended.output
    _is_sound_after_a_restart(world, integration, tmp_path)


def test_an_instance_killed_as_it_confirms_holds_the_old_or_the_new(
    world: World, tmp_path: Path
) -> None:
    integration = world.integration("shop")
    row = Row("killed", None, 5, "", timeout_s=3)
    with served(world.instance.data) as (server, url):

        def kill_at_once(exchange: Exchange) -> None:
            with exchange.upstream() as upstream:
                upstream.sendall(exchange.forwarded_head() + exchange.body())
                server.kill()
                server.wait()
            exchange.reset()

        with fault_proxy(url, At(VERIFY, kill_at_once, 1)) as proxy:
            ended = _run(world, row, integration, proxy, tmp_path)
    assert ended.exit_code == 5, ended.output
    _is_sound_after_a_restart(world, integration, tmp_path)


def _is_sound_after_a_restart(world: World, integration: int, tmp_path: Path) -> None:
    """Check an instance started again: the old manifest or the new one, and the next upload."""
    assert world.holds(integration) in ("old", "new")
    with served(world.instance.data) as (_, url), fault_proxy(url) as proxy:
        row = Row("again", None, 0, "")
        again = _run(world, row, integration, proxy, tmp_path)
    assert again.exit_code == 0, again.output
    assert world.holds(integration) == "new"


def _run(world: World, row: Row, integration: int, proxy: FaultProxy, tmp_path: Path) -> Ended:
    environ = environ_of(world, row, proxy, tmp_path / "home")
    return run(our_command(world, row, integration), environ, kill_after_s=60)
