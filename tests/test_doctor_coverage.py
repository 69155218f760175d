"""Problems of other commands that `doctor` finds with the current settings."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.commands import Outcome, access, create_integration, datapilot
from tests.support.fault_proxy import fault_proxy
from tests.support.fault_runner import World
from tests.support.instances import RunningInstance
from tests.support.protocol_server import TOKEN, ProtocolServer, Reply


def statuses(done: Outcome) -> dict[str, str]:
    """Return the status of each step by name."""
    return {step["name"]: step["status"] for step in done.json["steps"]}


def details(done: Outcome) -> dict[str, str]:
    """Return the detail of each step by name."""
    return {step["name"]: step["detail"] for step in done.json["steps"]}


@pytest.mark.parametrize(
    "missing",
    [
        {"ALTIMATE_API_KEY": ""},
        {"ALTIMATE_INSTANCE_NAME": ""},
        {"ALTIMATE_API_KEY": "", "ALTIMATE_INSTANCE_NAME": ""},
    ],
)
def test_steps_that_need_only_url_run_without_credentials(
    missing: dict[str, str], hosted: ProtocolServer
) -> None:
    done = datapilot("doctor", "--json", env={**hosted.access, **missing})
    assert (done.exit_code, statuses(done)["configuration"]) == (2, "failed")
    assert {statuses(done)[name] for name in ("proxy", "dns", "connection")} == {"passed"}
    assert "does not state its time" in details(done)["clock"]
    assert details(done)["credentials"] == "not tried: the configuration is not complete"
    assert hosted.calls == ["GET /health"]
    assert "Authorization" not in hosted.requests[0].headers
    assert TOKEN not in done.output


@pytest.mark.parametrize("year", ["9" * 30, "9999", "0"])
def test_impossible_date_header_is_not_a_match(year: str, hosted: ProtocolServer) -> None:
    date = f"Fri, 31 Dec {year} 23:59:59 -2359"
    hosted.answers["GET /health"] = lambda _: Reply({}, headers={"Date": date})
    done = datapilot("doctor", "--json", env=hosted.access)
    assert statuses(done)["clock"] in ("skipped", "failed")
    assert statuses(done)["credentials"] == "passed"


def test_signed_urls_without_tls_fail(
    world: World, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.directory / "ca.pem"))
    integration_id = create_integration(world.instance)

    def accept(client: socket.socket) -> socket.socket:
        return world.contexts["good"].wrap_socket(client, server_side=True)

    with fault_proxy(world.instance.url, scheme="https", accept=accept) as proxy:
        env = {**access(world.instance), "ALTIMATE_URL": proxy.url}
        words = ("--integration-id", integration_id)
        manifest = ("--manifest-path", artifacts / "manifest.json")
        onboarded = datapilot("dbt", "onboard", *words, *manifest, env=env)
        done = datapilot("doctor", *words, "--json", env=env)
    assert (onboarded.exit_code, done.exit_code) == (2, 2), done.output
    assert statuses(done)["storage_host"] == "failed"
    assert f"{proxy.url} returned a URL without TLS" in details(done)["storage_host"]


def test_environment_is_found_by_id(instance: RunningInstance, artifacts: Path) -> None:
    integration_id = create_integration(instance)
    words = ("--integration-id", integration_id, "--environment", 1)
    manifest = ("--manifest-path", artifacts / "manifest.json")
    onboarded = datapilot("dbt", "onboard", *words, *manifest, env=access(instance))
    assert onboarded.exit_code == 0, onboarded.output
    done = datapilot("doctor", *words, "--json", env=access(instance))
    assert (done.exit_code, statuses(done)["integration"]) == (0, "passed"), done.output
    assert "environment PROD" in details(done)["manifest"]
    unknown = datapilot("doctor", *words[:3], 99, "--json", env=access(instance))
    assert (unknown.exit_code, statuses(unknown)["integration"]) == (4, "failed")


@pytest.mark.parametrize(("words", "exit_code"), [(("--integration-name", "shop"), 3), ((), 0)])
def test_integration_name_fails_without_list_of_integrations(
    words: tuple[str, ...], exit_code: int, hosted: ProtocolServer
) -> None:
    hosted.answers["GET /dbt/v1/project_integrations/"] = lambda _: Reply({"detail": "no"}, 403)
    done = datapilot("doctor", *words, "--json", env=hosted.access)
    assert done.exit_code == exit_code, done.output
    if words:
        assert "cannot look up 'shop'" in details(done)["integration"]
    assert details(done)["reading"] == (
        "not tried: the integrations could not be listed. Use --integration-id"
    )


def test_missing_project_of_variable_fails(hosted: ProtocolServer, tmp_path: Path) -> None:
    env = {**hosted.access, "DBT_PROJECT_DIR": str(tmp_path / "nothing")}
    done = datapilot("doctor", "--json", env=env)
    assert (done.exit_code, statuses(done)["project"]) == (2, "failed")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize("create", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_project_file_that_is_not_a_file_is_reported(
    create: Callable[[Path], None],
    hosted: ProtocolServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    create(tmp_path / "dbt_project.yml")
    done = datapilot("doctor", "--json", env=hosted.access)
    assert (done.exit_code, statuses(done)["project"]) == (2, "failed")


# Age of the manifest, which is an hour old or more in these tests


def test_max_age_applies_to_local_manifest(
    hosted: ProtocolServer, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "prod"
    state.mkdir()
    shutil.copy(artifacts / "manifest.json", state)
    enabled = datapilot("dbt", "defer", "enable", "--manifest-path", state)
    assert enabled.exit_code == 0, enabled.output
    done = datapilot("doctor", "--json", env={**hosted.access, "DATAPILOT_MAX_AGE": "10s"})
    assert (done.exit_code, statuses(done)["manifest_source"]) == (1, "failed")
    assert "the limit is 10" in details(done)["manifest_source"]
    unreadable = datapilot("doctor", env={**hosted.access, "DATAPILOT_MAX_AGE": "abc"})
    assert unreadable.exit_code == 2


def test_max_age_applies_to_manifest_of_instance(
    instance: RunningInstance, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop\n", encoding="utf-8")
    (tmp_path / ".vscode").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ("--integration-id", create_integration(instance))
    manifest = ("--manifest-path", artifacts / "manifest.json")
    assert datapilot("dbt", "onboard", *words, *manifest, env=access(instance)).exit_code == 0
    assert datapilot("dbt", "defer", "enable", *words, env=access(instance)).exit_code == 0
    done = datapilot("doctor", "--max-age", "60s", "--json", env=access(instance))
    assert (done.exit_code, statuses(done)["manifest"]) == (1, "failed"), done.output
    assert statuses(done)["manifest_source"] == "warning"
    accepted = datapilot("doctor", "--max-age", "9000w", "--json", env=access(instance))
    assert accepted.exit_code == 0, accepted.output


def test_max_age_applies_to_upload_time(hosted: ProtocolServer) -> None:
    location = {"url": f"{hosted.url}/f", "dbt_core_integration_file_id": 1}
    hosted.answers["GET /dbt/v1/fetch_artifact_url"] = lambda _: Reply(
        {**location, "uploaded_at": "2026-01-01T00:00:00Z"}
    )
    done = datapilot(
        "doctor", "--integration-id", 7, "--max-age", "1d", "--json", env=hosted.access
    )
    assert (done.exit_code, statuses(done)["manifest"]) == (1, "failed"), done.output
    assert "the manifest is too old: file 1, uploaded " in details(done)["manifest"]


# The summary of a CI job


def test_failed_step_appears_in_job_summary(hosted: ProtocolServer, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    words = ("doctor", "--integration-id", 8)
    done = datapilot(*words, env={**hosted.access, **env})
    assert done.exit_code == 4
    assert "::error title=datapilot::integration: no integration has the ID 8" in done.stderr
    assert done.stderr.count("::error") == 1
    assert "FAILED  integration: no integration has the ID 8" in summary.read_text(encoding="utf-8")


def test_token_that_expires_soon_is_annotation(instance: RunningInstance, tmp_path: Path) -> None:
    token = instance.new_token("read", expires_at=datetime.now(UTC) + timedelta(days=3))
    summary = tmp_path / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = datapilot("doctor", env={**access(instance, token), **env})
    assert done.exit_code == 0, done.output
    assert "::warning title=datapilot::credentials: accepted, but the token expires" in done.stderr
    assert not summary.exists()
