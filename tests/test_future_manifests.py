"""A manifest from the future: a few minutes count as now, more is an error that names both clocks.

Tests of what reads a manifest. The server rejects such an upload; other instances, earlier
releases and local directories may still hold one.
"""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.commands import Outcome, access, create_integration, datapilot
from tests.support.dbt_project import PROJECT
from tests.support.instances import RunningInstance
from tests.support.protocol_server import ProtocolServer

CLOCK = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a dbt project in a VS Code workspace, the current directory. No dbt on PATH."""
    directory = tmp_path / "project"
    shutil.copytree(PROJECT, directory)
    (directory / ".vscode").mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("PATH", str(tmp_path))
    return directory


def write_manifest(directory: Path, artifacts: Path, *, minutes_ahead: float) -> Path:
    """Write a manifest that dbt wrote so many minutes from now."""
    content = json.loads((artifacts / "manifest.json").read_bytes())
    generated_at = datetime.now(UTC) + timedelta(minutes=minutes_ahead)
    content["metadata"]["generated_at"] = generated_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    directory.mkdir()
    path = directory / "manifest.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def host(hosted: ProtocolServer, manifest: Path) -> None:
    """Make a manifest the current one of the hosted instance, which does not check it."""
    hosted.uploads[1] = manifest.read_bytes()
    hosted.verified.append(1)


def assert_names_both_clocks(outcome: Outcome) -> None:
    assert outcome.exit_code == 1, outcome.output
    message = " ".join(outcome.output.split())
    assert re.search(
        f"the manifest was written in the future: dbt wrote it at {CLOCK}, "
        f"but the clock of this machine shows {CLOCK}. Correct this machine's clock",
        message,
    )


@pytest.mark.parametrize("options", [[], ["--max-age", "52w"], ["--offline"]])
def test_pull_rejects_a_manifest_from_the_future(
    options: list[str], hosted: ProtocolServer, artifacts: Path, tmp_path: Path
) -> None:
    host(hosted, write_manifest(tmp_path / "future", artifacts, minutes_ahead=15))
    pull = ("dbt", "pull", "--integration-id", 7, "--json")
    if options == ["--offline"]:
        datapilot(*pull, env=hosted.access)
    done = datapilot(*pull, *options, env=hosted.access)
    assert_names_both_clocks(done)
    assert done.json["error"]["kind"] == "artifact_refused"


def test_pull_takes_ten_minutes_ahead_for_age_zero(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "ahead", artifacts, minutes_ahead=8)
    integration_id = create_integration(instance)
    onboard = ("dbt", "onboard", "--integration-id", integration_id, "--manifest-path", manifest)
    assert datapilot(*onboard, env=access(instance)).exit_code == 0
    done = datapilot(
        *("dbt", "pull", "--integration-id", integration_id, "--max-age", "1s", "--json"),
        env=access(instance),
    )
    assert done.exit_code == 0, done.output
    assert done.json["age_seconds"] == 0


@pytest.mark.parametrize("minutes_ahead", [15, 60 * 24 * 365 * 70])
def test_defer_rejects_a_manifest_from_the_future_in_a_local_directory(
    minutes_ahead: float, artifacts: Path, tmp_path: Path
) -> None:
    directory = write_manifest(tmp_path / "future", artifacts, minutes_ahead=minutes_ahead).parent
    assert_names_both_clocks(
        datapilot("dbt", "defer", "enable", "--manifest-path", directory, "--json")
    )


def test_defer_status_takes_ten_minutes_ahead_for_age_zero(artifacts: Path, tmp_path: Path) -> None:
    directory = write_manifest(tmp_path / "ahead", artifacts, minutes_ahead=8).parent
    enabled = datapilot("dbt", "defer", "enable", "--manifest-path", directory, "--json")
    assert enabled.exit_code == 0, enabled.output
    done = datapilot("dbt", "defer", "status", "--max-age", "1s", "--json")
    assert done.exit_code == 0, done.output
    assert done.json["age_seconds"] == 0


def test_a_manifest_that_became_the_future_keeps_the_switch_as_it_was(
    project: Path, artifacts: Path, tmp_path: Path
) -> None:
    directory = write_manifest(tmp_path / "future", artifacts, minutes_ahead=15).parent
    done = datapilot("dbt", "defer", "enable", "--manifest-path", directory)
    assert_names_both_clocks(done)
    assert not (project / ".vscode" / "settings.json").exists()
