"""Manifests with a time in the future, as read by clients.

A few minutes ahead count as now. More is an error that names both clocks. The server rejects such
an upload, but other instances, earlier releases and local directories may have one.
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
    """Write a manifest whose time is `minutes_ahead` in the future and return its path."""
    content = json.loads((artifacts / "manifest.json").read_bytes())
    generated_at = datetime.now(UTC) + timedelta(minutes=minutes_ahead)
    content["metadata"]["generated_at"] = generated_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    directory.mkdir()
    path = directory / "manifest.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def host(hosted: ProtocolServer, manifest: Path) -> None:
    """Make a manifest current on the hosted instance, which does not check its time."""
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
def test_pull_rejects_future_manifest(
    options: list[str], hosted: ProtocolServer, artifacts: Path, tmp_path: Path
) -> None:
    host(hosted, write_manifest(tmp_path / "future", artifacts, minutes_ahead=15))
    pull = ("dbt", "pull", "--integration-id", 7, "--json")
    if options == ["--offline"]:
        datapilot(*pull, env=hosted.access)
    done = datapilot(*pull, *options, env=hosted.access)
    assert_names_both_clocks(done)
    assert done.json["error"]["kind"] == "artifact_refused"


def test_pull_accepts_manifest_ten_minutes_ahead(
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
def test_defer_rejects_future_manifest_in_local_directory(
    minutes_ahead: float, artifacts: Path, tmp_path: Path
) -> None:
    directory = write_manifest(tmp_path / "future", artifacts, minutes_ahead=minutes_ahead).parent
    assert_names_both_clocks(
        datapilot("dbt", "defer", "enable", "--manifest-path", directory, "--json")
    )


def test_defer_status_accepts_manifest_ten_minutes_ahead(artifacts: Path, tmp_path: Path) -> None:
    directory = write_manifest(tmp_path / "ahead", artifacts, minutes_ahead=8).parent
    enabled = datapilot("dbt", "defer", "enable", "--manifest-path", directory, "--json")
    assert enabled.exit_code == 0, enabled.output
    done = datapilot("dbt", "defer", "status", "--max-age", "1s", "--json")
    assert done.exit_code == 0, done.output
    assert done.json["age_seconds"] == 0


def test_enable_with_future_manifest_stores_nothing(
    project: Path, artifacts: Path, tmp_path: Path
) -> None:
    directory = write_manifest(tmp_path / "future", artifacts, minutes_ahead=15).parent
    done = datapilot("dbt", "defer", "enable", "--manifest-path", directory)
    assert_names_both_clocks(done)
    assert not (project / ".vscode" / "settings.json").exists()
