"""Closed, interrupted and unwritable standard streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import access
from tests.support.instances import RunningInstance
from tests.support.json_contract import check_output

pytestmark = pytest.mark.skipif(os.name == "nt", reason="uses a POSIX shell")


def shell(script: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script in which $DATAPILOT stands for our program."""
    program = f'"{sys.executable}" -m datapilot_defer'
    return subprocess.run(
        ["/bin/sh", "-c", script.replace("$DATAPILOT", program)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams_do_not_change_exit_code(closed: str, instance: RunningInstance) -> None:
    done = shell(f"$DATAPILOT auth status --json {closed}", access(instance))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] is True
    check_output(["auth", "status", "--json"], done.stdout, done.returncode)
    assert shell(f"$DATAPILOT auth status {closed}").returncode == 2


def test_command_succeeds_without_stdout(instance: RunningInstance) -> None:
    done = shell("$DATAPILOT dbt integrations create --name shop >&-", access(instance))
    assert (done.returncode, done.stderr) == (0, "")
    assert '"shop"' in shell("$DATAPILOT dbt integrations list --json", access(instance)).stdout


def test_closed_stdin_has_no_token(tmp_path: Path) -> None:
    done = shell("$DATAPILOT auth login --token-stdin --instance-name n <&-")
    assert done.returncode == 2
    assert "no token" in done.stderr


def test_closed_pipe_causes_no_traceback() -> None:
    done = shell("$DATAPILOT config show --json | head -c 1")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_unwritable_result_is_reported() -> None:
    for words in ("--help", "--version", "dbt onboard --help"):
        done = shell(f"$DATAPILOT {words} > /dev/full")
        assert done.returncode == 2
        assert done.stderr == "Error: cannot write to standard output: No space left on device\n"
    for words in ("config show", "config show --json"):
        done = shell(f"$DATAPILOT {words} > /dev/full")
        assert done.returncode == 2
        assert (
            done.stderr
            == "Error: cannot write the result to standard output: No space left on device\n"
        )
    done = shell("$DATAPILOT auth status --json > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no instance name and no token")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("words", ["", "--bogus", "--log-format json"])
def test_messages_that_can_not_be_written_change_no_exit_code(words: str) -> None:
    done = shell(f"$DATAPILOT dbt onboard --json {words} 2> /dev/full")
    assert done.returncode == 2
    check_output(["dbt", "onboard", "--json"], done.stdout, done.returncode)
    assert shell(f"$DATAPILOT dbt onboard {words} 2> /dev/full").returncode == 2


@pytest.mark.parametrize("lost", ["2> /dev/full", "2>&1 > result | true"])
def test_messages_that_can_not_be_written_stop_no_work(
    lost: str, instance: RunningInstance, tmp_path: Path
) -> None:
    script = f'cd "{tmp_path}"; $DATAPILOT dbt integrations create -v --name shop {lost}'
    shell(script, access(instance))
    assert '"shop"' in shell("$DATAPILOT dbt integrations list --json", access(instance)).stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_usage_error_that_can_not_be_written_causes_no_traceback() -> None:
    done = shell("$DATAPILOT dbt validate --json > /dev/full")
    assert done.returncode == 2
    assert "Missing argument" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_result_is_json_in_an_old_encoding_too(tmp_path: Path) -> None:
    name = "é😀.json"
    (tmp_path / name).write_text("{", encoding="utf-8")
    script = f'cd "{tmp_path}"; $DATAPILOT dbt validate --json {name}'
    done = subprocess.run(
        ["/bin/sh", "-c", script.replace("$DATAPILOT", f'"{sys.executable}" -m datapilot_defer')],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        stdout=subprocess.PIPE,
    )
    assert json.loads(done.stdout.decode("cp1252"))["files"][0]["path"] == name


def test_ctrl_c_during_the_start_causes_no_traceback(tmp_path: Path) -> None:
    # An import that takes long, as from a slow disk.
    (tmp_path / "click.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n", encoding="utf-8"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "datapilot_defer"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=30)
    assert (process.returncode, messages) == (-signal.SIGINT, "")
