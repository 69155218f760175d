"""Closed, interrupted and unwritable standard streams."""

from __future__ import annotations

import json
import os
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
    for words in ("config show", "config show --json"):
        done = shell(f"$DATAPILOT {words} > /dev/full")
        assert done.returncode == 2
        assert (
            done.stderr
            == "Error: can't write the result to standard output: No space left on device\n"
        )
    done = shell("$DATAPILOT auth status --json > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no instance name and no token")
    assert "Traceback" not in done.stderr
