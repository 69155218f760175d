"""Streams as schedulers hand them over: closed, merged, cut off by the reader."""

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

pytestmark = pytest.mark.skipif(os.name == "nt", reason="writes it down as a shell of POSIX would")


def shell(script: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script, in which $DATAPILOT is our program."""
    program = f'"{sys.executable}" -m datapilot_defer'
    return subprocess.run(
        ["/bin/sh", "-c", script.replace("$DATAPILOT", program)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed: str, instance: RunningInstance) -> None:
    done = shell(f"$DATAPILOT auth status --json {closed}", access(instance))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] is True
    check_output(["auth", "status", "--json"], done.stdout, done.returncode)
    assert shell(f"$DATAPILOT auth status {closed}").returncode == 2


def test_without_stdout_the_work_is_done_all_the_same(instance: RunningInstance) -> None:
    done = shell("$DATAPILOT dbt integrations create --name shop >&-", access(instance))
    assert (done.returncode, done.stderr) == (0, "")
    assert '"shop"' in shell("$DATAPILOT dbt integrations list --json", access(instance)).stdout


def test_a_token_from_a_closed_stdin_is_none(tmp_path: Path) -> None:
    done = shell("$DATAPILOT auth login --token-stdin --instance-name n <&-")
    assert done.returncode == 2
    assert "no token" in done.stderr


def test_a_reader_that_has_enough_causes_no_traceback() -> None:
    done = shell("$DATAPILOT config show --json | head -c 1")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_result_that_can_not_be_written_is_an_error_of_its_own() -> None:
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
