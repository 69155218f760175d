"""Output that names the manifest's source: integration and environment instead of a directory."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.commands import Outcome, access, create_integration, datapilot
from tests.support.dbt_project import PROJECT
from tests.support.instances import RunningInstance
from tests.support.protocol_server import ProtocolServer
from tests.support.recorded_dbt import RecordedDbt, recorded_dbt

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="the program that replaces dbt is a shell script"
)


@pytest.fixture
def dbt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedDbt:
    """Return a program that replaces dbt; the project shop is the current directory."""
    shutil.copytree(PROJECT, tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    dbt = recorded_dbt(tmp_path / "bin")
    monkeypatch.setenv("DATAPILOT_DBT", str(dbt.path))
    return dbt


@pytest.fixture
def instance(
    instance: RunningInstance, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningInstance:
    """Return an instance with the manifest of integration 1, shop."""
    for name, value in access(instance).items():
        monkeypatch.setenv(name, value)
    create_integration(instance)
    manifest = artifacts / "manifest.json"
    done = datapilot("dbt", "onboard", "--integration-id", 1, "--manifest-path", manifest)
    assert done.exit_code == 0, done.output
    return instance


@pytest.fixture
def hosted(
    hosted: ProtocolServer, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> ProtocolServer:
    """Return a server with a manifest whose response does not name the integration."""
    for name, value in hosted.access.items():
        monkeypatch.setenv(name, value)
    hosted.uploads[1] = (artifacts / "manifest.json").read_bytes()
    hosted.verified.append(1)
    return hosted


def defer(*arguments: object) -> Outcome:
    done = datapilot("dbt", "defer", *arguments)
    assert done.exit_code == 0, done.output
    # The artifacts were written an hour before the tests began.
    shown = [
        re.sub(r"built \d+ min ago", "built 1 h ago", text) for text in (done.stdout, done.stderr)
    ]
    return Outcome(done.exit_code, *shown)


@pytest.mark.parametrize("offline", [False, True])
def test_run_and_enable_name_integration_environment_and_age(
    offline: bool, instance: RunningInstance, dbt: RecordedDbt
) -> None:
    done = defer("enable", "--integration-id", 1)
    assert re.search(
        r"^Defer is on for shop, in .*\. Deferring to shop PROD \(built 1 h ago\)",
        done.stderr,
        re.MULTILINE,
    )
    more = ("--offline",) if offline else ()
    done = defer("run", *more, "build")
    assert done.stderr == "Deferring to shop PROD (built 1 h ago)\n"
    assert dbt.words[0] == "build"


def test_status_names_integration_and_directory_on_separate_lines(
    instance: RunningInstance, dbt: RecordedDbt
) -> None:
    defer("enable", "--integration-name", "shop")
    status = defer("status", "--json").json
    assert status["integration_name"] == "shop"
    lines = defer("status").stdout.splitlines()
    assert "Manifest: integration 1 (shop), environment PROD; favor state off" in lines
    assert "Deferring to shop PROD (built 1 h ago)" in lines
    [directory] = [line for line in lines if line.startswith("State directory: ")]
    assert status["state_dir"] in directory
    assert "written by dbt 1.11" in directory
    assert [line for line in lines if status["state_dir"] in line] == [directory]


def test_verbose_output_has_directory(instance: RunningInstance, dbt: RecordedDbt) -> None:
    done = defer("run", "-v", "--integration-id", 1, "build")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("State directory: ")]
    assert str(Path.home()) in line


def test_source_names_commit(instance: RunningInstance, dbt: RecordedDbt, artifacts: Path) -> None:
    number = create_integration(instance, "reports", "STAGING")
    origin = ("--integration-id", number, "--environment", "STAGING")
    manifest = artifacts / "manifest.json"
    job = {"CI": "true", "GITLAB_CI": "true", "CI_COMMIT_SHA": "0123456789abcdef"}
    done = datapilot("dbt", "onboard", *origin, "--manifest-path", manifest, env=job)
    assert done.exit_code == 0, done.output
    done = defer("run", "--integration-id", number, "build")
    assert "Deferring to reports STAGING (built 1 h ago, commit 0123456789)" in done.stderr


def test_source_without_name_has_id(hosted: ProtocolServer, dbt: RecordedDbt) -> None:
    done = defer("run", "--integration-id", 7, "--environment", "PROD", "build")
    assert "Deferring to integration 7 PROD (built 1 h ago)" in done.stderr
    status = datapilot("dbt", "defer", "status", "--integration-id", 7, "--json")
    assert status.json["integration_name"] is None


def test_resolved_name_is_cached(hosted: ProtocolServer, dbt: RecordedDbt) -> None:
    name = str(hosted.integrations[0]["name"])
    done = defer("enable", "--integration-name", name)
    assert f"Deferring to {name} (built" in done.stderr
    before = len(hosted.calls)
    assert f"Deferring to {name} (built" in defer("run", "build").stderr
    assert hosted.calls[before:] == ["GET /dbt/v1/fetch_artifact_url"]


def test_integration_name_is_printed_on_one_line(hosted: ProtocolServer, dbt: RecordedDbt) -> None:
    hosted.integrations[0]["name"] = "shop\n::error::owned"
    defer("enable", "--integration-name", "shop\ufffd::error::owned")
    assert "Deferring to shop\ufffd::error::owned (built" in defer("run", "build").stderr
    assert "integration 7 (shop\ufffd::error::owned)" in defer("status").stdout


def test_local_source_names_directory(artifacts: Path, dbt: RecordedDbt) -> None:
    done = defer("run", "--manifest-path", artifacts, "build")
    assert f"Deferring to {artifacts} (built 1 h ago)" in done.stderr


def test_command_that_only_selects_by_state_names_source(
    artifacts: Path, instance: RunningInstance, dbt: RecordedDbt
) -> None:
    done = defer("run", "--integration-id", 1, "ls")
    assert (
        done.stderr == "`dbt ls` resolves no references. Its --state is shop PROD (built 1 h ago)\n"
    )
    done = defer("run", "--integration-id", 1, "ls", "--state", artifacts)
    assert done.stderr == "`dbt ls` resolves no references. Running it with your --state\n"


def test_retry_does_not_report_favor_state(artifacts: Path, dbt: RecordedDbt) -> None:
    write_last_run(Path("target"), artifacts, favor_state=False)
    defer("enable", "--manifest-path", artifacts, "--favor-state")
    assert "favor state on" in defer("run", "build").stderr
    done = defer("run", "retry")
    assert f"Deferring to {artifacts} (built" in done.stderr
    assert "favor state on" not in done.stderr
    defer("run", "--no-favor-state", "retry")


@pytest.mark.parametrize("option", ["--favor-state", "--no-favor-state"])
def test_retry_with_other_favor_state_is_rejected(
    option: str, artifacts: Path, dbt: RecordedDbt
) -> None:
    write_last_run(Path("target"), artifacts, favor_state=option == "--no-favor-state")
    done = datapilot("dbt", "defer", "run", "--manifest-path", artifacts, option, "retry")
    assert done.exit_code == 2
    assert "which had the other setting of --favor-state" in done.stderr


def write_last_run(target: Path, state: Path, *, favor_state: bool) -> None:
    """Write the run results of a run that deferred."""
    target.mkdir()
    arguments = {"which": "run", "defer": True, "state": str(state), "favor_state": favor_state}
    (target / "run_results.json").write_text(json.dumps({"args": arguments}), encoding="utf-8")
