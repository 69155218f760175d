"""SIGKILL at any moment: confirmed uploads survive and no partial file is served."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.crash_points import crash_children, crash_server
from tests.support.repeated_kills import Plan, kill_repeatedly
from tests.support.server_process import Checkout


@pytest.mark.slow
@pytest.mark.skipif(
    os.name == "nt", reason="the port of a killed process cannot be reused immediately on Windows"
)
def test_an_instance_that_is_killed_repeatedly_keeps_confirmed_uploads(
    tmp_path: Path, artifacts: Path
) -> None:
    plan = Plan(
        (artifacts / "manifest.json").read_bytes(),
        clients=2,
        onboards=6,
        pulls=20,
        seconds_between_kills=2.0,
    )
    outcome = kill_repeatedly(tmp_path / "data", plan)
    assert outcome.wrong == []
    assert outcome.exits[0] > 0
    assert outcome.pulls["complete"] >= 20
    assert set(outcome.exits) <= {0, 5}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds children in /proc")
def test_a_server_killed_at_any_moment_of_an_upload_keeps_complete_uploads(
    tmp_path: Path, artifacts: Path
) -> None:
    manifest = (artifacts / "manifest.json").read_bytes()
    outcome = crash_server(Checkout(), tmp_path, manifest, points=6)
    assert outcome.wrong == []
    assert set(outcome.answers) <= {"accepted", "cut off"}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds children in /proc")
def test_a_server_survives_its_killed_children(tmp_path: Path, artifacts: Path) -> None:
    manifest = (artifacts / "manifest.json").read_bytes()
    outcome = crash_children(Checkout(), tmp_path, manifest, points=6)
    assert outcome.wrong == []
    assert outcome.points == 6
