"""Steps of `doctor`, its findings, and the exit code of the first failed step."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import keyring
import pytest
import requests
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

from datapilot_defer import credential_store
from datapilot_defer.credential_store import StoredCredentials
from datapilot_defer.doctor.network_checks import check_proxy
from datapilot_defer.doctor.steps import StepName
from tests.conftest import MemoryKeyring
from tests.support.commands import Outcome, access, create_integration, datapilot
from tests.support.instances import RunningInstance
from tests.support.protocol_server import ProtocolServer, Reply
from tests.support.terminal import at_a_terminal

REMOTE = ("connection", "clock", "credentials", "integration", "reading", "uploading")
MANIFEST_URL = "GET /dbt/v1/fetch_artifact_url"


def statuses(done: Outcome) -> dict[str, str]:
    """Return the status of each step by name."""
    return {step["name"]: step["status"] for step in done.json["steps"]}


def details(done: Outcome) -> dict[str, str]:
    """Return the detail of each step by name."""
    return {step["name"]: step["detail"] for step in done.json["steps"]}


def onboard(instance: RunningInstance, artifacts: Path) -> int:
    """Onboard a manifest and return the id of its integration."""
    integration_id = create_integration(instance)
    words = ("--integration-id", integration_id, "--manifest-path", artifacts / "manifest.json")
    done = datapilot("dbt", "onboard", *words, env=access(instance))
    assert done.exit_code == 0, done.output
    return integration_id


def closed_url() -> str:
    """Return a URL at which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a dbt project with an empty .vscode directory, the current directory."""
    directory = tmp_path / "shop"
    (directory / ".vscode").mkdir(parents=True)
    (directory / "dbt_project.yml").write_text("name: shop\n", encoding="utf-8")
    monkeypatch.chdir(directory)
    return directory


# Permissions


def test_token_that_expires_soon_causes_warning(instance: RunningInstance) -> None:
    token = instance.new_token("read", expires_at=datetime.now(UTC) + timedelta(days=3, minutes=1))
    done = datapilot("doctor", "--json", env=access(instance, token))
    assert done.exit_code == 0, done.output
    assert statuses(done)["credentials"] == "warning"
    assert "the token expires in 3 days" in details(done)["credentials"]


def test_all_steps_pass_with_real_instance(instance: RunningInstance, artifacts: Path) -> None:
    integration_id = onboard(instance, artifacts)
    words = ("doctor", "--integration-id", integration_id)
    done = datapilot(*words, "--json", env=access(instance))
    assert done.exit_code == 0, done.output
    assert list(statuses(done)) == [name.value for name in StepName]
    assert {statuses(done)[name] for name in (*REMOTE, "manifest", "storage_host")} == {"passed"}
    assert (done.json["may_read"], done.json["may_upload"]) == (True, True)
    assert "ok      storage host: 127.0.0.1 accepts connections" in (
        datapilot(*words, env=access(instance)).stdout
    )


def test_read_token_passes(instance: RunningInstance, artifacts: Path) -> None:
    onboard(instance, artifacts)
    reader = access(instance, instance.new_token("read"))
    done = datapilot("doctor", "--integration-name", "shop", "--json", env=reader)
    assert (done.exit_code, done.json["ok"]) == (0, True), done.output
    assert (done.json["may_read"], done.json["may_upload"]) == (True, False)
    assert (statuses(done)["reading"], statuses(done)["uploading"]) == ("passed", "warning")
    assert "environment PROD, uploaded " in details(done)["manifest"]
    assert statuses(done)["storage_host"] == "passed"


def test_upload_token_that_cannot_read_is_reported(
    instance: RunningInstance, artifacts: Path
) -> None:
    words = ("--integration-id", onboard(instance, artifacts))
    uploader = access(instance, instance.new_token("upload"))
    done = datapilot("doctor", *words, "--json", env=uploader)
    assert done.exit_code == 0, done.output
    assert (done.json["may_read"], done.json["may_upload"]) == (False, True)
    assert "warning reading: the token may not read" in (
        datapilot("doctor", *words, env=uploader).stdout
    )


def test_read_check_uses_any_integration(instance: RunningInstance, artifacts: Path) -> None:
    reader = access(instance, instance.new_token("read"))
    uploader = access(instance, instance.new_token("upload"))
    assert datapilot("doctor", "--json", env=reader).json["may_read"] is None
    onboard(instance, artifacts)
    assert datapilot("doctor", "--json", env=reader).json["may_read"] is True
    done = datapilot("doctor", "--json", env=uploader)
    assert done.json["may_read"] is False
    assert statuses(done)["integration"] == statuses(done)["manifest"] == "skipped"


def test_token_that_cannot_list_integrations_can_upload(hosted: ProtocolServer) -> None:
    for route in (MANIFEST_URL, "GET /dbt/v1/project_integrations/"):
        hosted.answers[route] = lambda _: Reply({"detail": "no"}, 403)
    done = datapilot("doctor", "--integration-id", 7, "--json", env=hosted.access)
    assert done.exit_code == 0, done.output
    assert (statuses(done)["integration"], statuses(done)["reading"]) == ("warning", "warning")
    assert (statuses(done)["uploading"], statuses(done)["storage_host"]) == ("passed", "passed")
    assert (done.json["may_read"], done.json["may_upload"]) == (False, True)


def test_token_without_permissions_fails(hosted: ProtocolServer) -> None:
    for route in (MANIFEST_URL, "GET /dbt/v1/validate-permissions"):
        hosted.answers[route] = lambda _: Reply({"detail": "no"}, 403)
    done = datapilot("doctor", "--integration-id", 7, "--json", env=hosted.access)
    assert done.exit_code == 3
    assert "may neither read nor upload" in details(done)["uploading"]


def test_wrong_token_skips_later_steps(instance: RunningInstance) -> None:
    done = datapilot("doctor", "--json", env=access(instance, "wrong-token-0000"))
    assert done.exit_code == 3
    assert statuses(done)["connection"] == "passed"
    assert statuses(done)["credentials"] == "failed"
    assert statuses(done)["reading"] == statuses(done)["uploading"] == "skipped"
    assert "wrong-token-0000" not in done.output


# The manifest


def test_missing_manifest_fails_only_for_read_token(instance: RunningInstance) -> None:
    words = ("doctor", "--integration-id", create_integration(instance), "--json")
    admin = datapilot(*words, env=access(instance))
    assert (admin.exit_code, statuses(admin)["manifest"]) == (0, "warning")
    assert "has no manifest" in details(admin)["manifest"]
    reader = datapilot(*words, env=access(instance, instance.new_token("read")))
    assert (reader.exit_code, statuses(reader)["manifest"]) == (4, "failed")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--integration-id", 99), "no integration has the ID 99"),
        (("--integration-name", "Shop"), "no integration is called 'Shop'"),
        (("--integration-id", 1, "--environment", "DEV"), "no environment 'DEV'. It has: PROD"),
    ],
)
def test_unknown_integration_is_reported_and_other_steps_run(
    words: tuple[object, ...], message: str, instance: RunningInstance
) -> None:
    create_integration(instance)
    done = datapilot("doctor", *words, "--json", env=access(instance))
    assert done.exit_code == 4
    assert message in details(done)["integration"]
    assert (statuses(done)["reading"], statuses(done)["uploading"]) == ("passed", "passed")
    assert statuses(done)["manifest"] == "skipped"


def test_doctor_does_not_change_history(instance: RunningInstance) -> None:
    words = ("--integration-id", create_integration(instance), "--json")
    assert datapilot("doctor", *words, env=access(instance)).exit_code == 0
    history = datapilot("dbt", "integrations", "history", *words, env=access(instance))
    assert history.json["history"] == []


def test_integration_id_and_name_are_rejected_together(hosted: ProtocolServer) -> None:
    words = ("--integration-id", 7, "--integration-name", "shop")
    assert datapilot("doctor", *words, env=hosted.access).exit_code == 2
    assert hosted.calls == []


# The network


def test_a_fault_of_one_answer_hides_no_other_finding(hosted: ProtocolServer) -> None:
    hosted.answers[MANIFEST_URL] = lambda _: Reply({"detail": "no key"}, 500)
    done = datapilot("doctor", "--integration-id", 7, "--json", env=hosted.access)
    assert (done.exit_code, statuses(done)["reading"]) == (5, "failed")
    assert (done.json["may_read"], done.json["may_upload"]) == (None, True)
    assert statuses(done)["uploading"] == statuses(done)["storage_host"] == "passed"
    assert details(done)["manifest"] == "not tried: reading has failed"
    hosted.answers["GET /dbt/v1/validate-permissions"] = hosted.answers[MANIFEST_URL]
    done = datapilot("doctor", "--integration-id", 7, "--json", env=hosted.access)
    assert details(done)["storage_host"] == "not tried: the instance did not sign a URL"


def test_credentials_that_cannot_be_checked_are_not_said_to_be_rejected(
    hosted: ProtocolServer,
) -> None:
    for status in (404, 500):
        route = "GET /dbt/v3/validate-credentials"
        hosted.answers[route] = lambda _, status=status: Reply({}, status)  # type: ignore[misc]
        done = datapilot("doctor", "--json", env=hosted.access)
        assert statuses(done)["credentials"] == "failed"
        assert details(done)["reading"] == "not tried: the credentials could not be checked"


def test_unreachable_instance_skips_remote_steps() -> None:
    env = {"ALTIMATE_URL": closed_url(), "ALTIMATE_API_KEY": "t", "ALTIMATE_INSTANCE_NAME": "acme"}
    done = datapilot("doctor", "--json", env=env)
    assert done.exit_code == 5
    assert "connection refused" in details(done)["connection"]
    assert details(done)["credentials"] == "not tried: the instance cannot be reached"
    assert "-       credentials: not tried" in datapilot("doctor", env=env).stdout


def test_unknown_host_fails_dns_step() -> None:
    done = datapilot(
        *("doctor", "--json"),
        env={
            "ALTIMATE_URL": "https://nowhere.invalid",
            "ALTIMATE_API_KEY": "t",
            "ALTIMATE_INSTANCE_NAME": "acme",
        },
    )
    assert done.exit_code == 5
    assert statuses(done)["dns"] == "failed"
    assert "cannot resolve the name nowhere.invalid" in details(done)["dns"]


def test_wrong_clock_is_reported(hosted: ProtocolServer) -> None:
    yesterday = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    hosted.answers["GET /health"] = lambda _: Reply({"status": "ok"}, headers={"Date": yesterday})
    done = datapilot("doctor", "--json", env=hosted.access)
    assert done.exit_code == 5
    assert "clocks differ by 864" in details(done)["clock"]
    assert statuses(done)["credentials"] == "passed"


def test_missing_date_header_skips_clock_step(hosted: ProtocolServer) -> None:
    done = datapilot("doctor", "--json", env=hosted.access)
    assert (done.exit_code, statuses(done)["clock"]) == (0, "skipped"), done.output


@pytest.mark.parametrize("route", ["GET /dbt/v1/signed_url", MANIFEST_URL])
def test_unreachable_storage_host_is_reported(route: str, hosted: ProtocolServer) -> None:
    blocked = f"{closed_url()}/bucket?signature=s3cret"
    hosted.answers[route] = lambda _: Reply({"url": blocked, "dbt_core_integration_file_id": 1})
    done = datapilot("doctor", "--integration-id", 7, env=hosted.access)
    assert done.exit_code == 5
    assert "FAILED  storage host: cannot reach the storage 127.0.0.1" in done.stdout
    assert "s3cret" not in done.output


@pytest.mark.parametrize("host", ["127.0.0.1", "store.invalid"])
def test_a_resolver_that_is_silent_does_not_outlast_the_time_limit(
    host: str, hosted: ProtocolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def wait(name: str, *arguments: Any, **options: Any) -> Any:
        if name == host:
            time.sleep(8)
        return resolve(name, *arguments, **options)

    answer = {"url": "https://store.invalid/f", "dbt_core_integration_file_id": 1}
    hosted.answers[MANIFEST_URL] = lambda _: Reply(answer)
    monkeypatch.setattr(socket, "getaddrinfo", wait)
    start = time.monotonic()
    done = datapilot(
        *("doctor", "--integration-id", 7, "--timeout", 2, "--json"), env=hosted.access
    )
    assert time.monotonic() - start < 6
    assert done.exit_code == 5
    assert "did not end within 2 s. Try again, or use a longer" in done.stdout


@pytest.mark.parametrize("no_proxy", ["10.0.0.0/8", "10.1.2.3", "10.1.2.3:8585"])
def test_the_proxy_is_the_one_that_requests_use(
    no_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    for host in ("10.1.2.3:8585", "11.1.2.3:8585"):
        url = urlsplit(f"http://{host}")
        settings = requests.Session().merge_environment_settings(
            url.geturl(), {}, stream=None, verify=None, cert=None
        )
        is_used = "http" in settings["proxies"]
        assert ("127.0.0.1:9 is used" in check_proxy(url).detail) is is_used


def test_proxy_is_shown_without_password() -> None:
    env = {
        "ALTIMATE_URL": "http://nowhere.invalid",
        "ALTIMATE_API_KEY": "t" * 8,
        "ALTIMATE_INSTANCE_NAME": "acme",
        "HTTP_PROXY": "http://user:pa55word@127.0.0.1:9",
        "NO_PROXY": "",
    }
    done = datapilot("doctor", "--allow-http", "--json", env=env)
    assert done.exit_code == 5
    assert details(done)["proxy"] == "127.0.0.1:9 is used for nowhere.invalid"
    assert (statuses(done)["dns"], statuses(done)["connection"]) == ("skipped", "failed")
    assert "pa55word" not in done.output


def test_loopback_instance_bypasses_proxy(hosted: ProtocolServer) -> None:
    env = {**hosted.access, "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    done = datapilot("doctor", "--json", env=env)
    assert details(done)["proxy"] == "none is used for 127.0.0.1"
    assert statuses(done)["dns"] == "passed"


# This machine


def test_local_steps_run_without_credentials(project: Path) -> None:
    done = datapilot("doctor", "--json")
    assert (done.exit_code, done.json["ok"]) == (2, False)
    assert details(done)["project"] == f"shop in {project.resolve()}"
    assert "no instance name and no token" in details(done)["configuration"]
    assert {statuses(done)[name] for name in ("proxy", "dns", *REMOTE)} == {"skipped"}
    assert details(done)["credentials"] == "not tried: the configuration is not complete"
    assert (done.json["may_read"], done.json["may_upload"]) == (None, None)


def test_invalid_setting_is_reported(hosted: ProtocolServer) -> None:
    done = datapilot("doctor", "--json", env={**hosted.access, "DATAPILOT_TIMEOUT": "soon"})
    assert (done.exit_code, statuses(done)["configuration"]) == (2, "failed")
    assert "DATAPILOT_TIMEOUT is 'soon'" in details(done)["configuration"]
    assert statuses(done)["connection"] == "skipped"


def test_proxy_and_dns_steps_run_without_token() -> None:
    env = {"ALTIMATE_URL": "http://127.0.0.1:9", "ALTIMATE_INSTANCE_NAME": "acme"}
    done = datapilot("doctor", "--json", env=env)
    assert done.exit_code == 2
    assert (statuses(done)["proxy"], statuses(done)["dns"]) == ("passed", "passed")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
def test_missing_token_is_reported_without_prompt() -> None:
    shown = at_a_terminal(["doctor"], {}, os.environ)
    assert "FAILED  configuration: no instance name and no token" in shown


def test_project_is_required_only_if_named(
    hosted: ProtocolServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = datapilot("doctor", "--json", env=hosted.access)
    assert done.exit_code == 0, done.output
    assert (statuses(done)["project"], statuses(done)["manifest_source"]) == ("skipped", "skipped")
    named = datapilot("doctor", "--project-dir", tmp_path, "--json", env=hosted.access)
    assert (named.exit_code, statuses(named)["project"]) == (2, "failed")


def test_invalid_project_file_is_reported(hosted: ProtocolServer, project: Path) -> None:
    (project / "dbt_project.yml").write_text("name: [", encoding="utf-8")
    done = datapilot("doctor", "--json", env=hosted.access)
    assert (done.exit_code, statuses(done)["project"]) == (2, "failed")
    assert statuses(done)["credentials"] == "passed"


@pytest.mark.skipif(os.name == "nt", reason="the program that replaces dbt is a shell script")
def test_missing_dbt_fails_only_if_named(hosted: ProtocolServer, tmp_path: Path) -> None:
    dbt = tmp_path / "dbt"
    dbt.write_text("#!/bin/sh\necho '  - installed: 1.11.2'\n", encoding="utf-8")
    dbt.chmod(0o755)
    installed = datapilot("doctor", "--dbt", dbt, "--json", env=hosted.access)
    assert details(installed)["dbt"] == f"1.11.2 at {dbt}"
    missing = datapilot("doctor", "--dbt", tmp_path / "no", "--json", env=hosted.access)
    assert (missing.exit_code, statuses(missing)["dbt"]) == (2, "failed")
    absent = datapilot("doctor", "--json", env={**hosted.access, "PATH": str(tmp_path / "empty")})
    assert (absent.exit_code, statuses(absent)["dbt"]) == (0, "warning")


def test_local_manifest_is_checked(hosted: ProtocolServer, project: Path, artifacts: Path) -> None:
    state = project.parent / "prod"
    state.mkdir()
    shutil.copy(artifacts / "manifest.json", state)
    enabled = datapilot("dbt", "defer", "enable", "--manifest-path", state)
    assert enabled.exit_code == 0, enabled.output
    done = datapilot("doctor", "--json", env=hosted.access)
    assert done.exit_code == 0, done.output
    assert details(done)["manifest_source"].startswith(f"defer is on; directory {state}; ")
    assert details(done)["manifest_source"].endswith(" old")
    (state / "manifest.json").unlink()
    broken = datapilot("doctor", "--json", env=hosted.access)
    assert (broken.exit_code, statuses(broken)["manifest_source"]) == (2, "failed")
    assert "contains no manifest.json" in details(broken)["manifest_source"]
    datapilot("dbt", "defer", "disable")
    off = datapilot("doctor", "--json", env=hosted.access)
    assert (off.exit_code, statuses(off)["manifest_source"]) == (0, "warning")


def test_integration_of_defer_settings_is_checked(
    instance: RunningInstance, artifacts: Path, project: Path
) -> None:
    words = ("--integration-id", onboard(instance, artifacts), "--environment", "PROD")
    enabled = datapilot("dbt", "defer", "enable", *words, env=access(instance))
    assert enabled.exit_code == 0, enabled.output
    done = datapilot("doctor", "--json", env=access(instance))
    assert done.exit_code == 0, done.output
    source = "defer is on; pulled from integration 1, environment PROD; "
    assert details(done)["manifest_source"].startswith(source)
    assert details(done)["integration"] == "1 is 'shop', with PROD"
    assert statuses(done)["manifest"] == "passed"
    state = Path(datapilot("dbt", "pull", *words, "--json", env=access(instance)).json["state_dir"])
    shutil.rmtree(state)
    again = datapilot("doctor", "--json", env=access(instance))
    assert (again.exit_code, statuses(again)["manifest_source"]) == (0, "warning")
    assert "nothing pulled from integration 1" in details(again)["manifest_source"]
    datapilot("dbt", "defer", "disable")
    assert statuses(datapilot("doctor", "--json", env=access(instance)))["manifest"] == "skipped"


# The keyring


class LockedKeyring(MemoryKeyring):
    """A locked keyring."""

    def get_password(self, service: str, username: str) -> str | None:
        raise OSError("locked")


def test_keyring_is_not_read_if_not_needed(hosted: ProtocolServer) -> None:
    keyring.set_keyring(LockedKeyring())
    done = datapilot("doctor", "--json", env=hosted.access)
    assert statuses(done)["keyring"] == "passed"
    assert "not needed, because the token comes from environment" in details(done)["keyring"]


def test_token_in_keyring_is_found(hosted: ProtocolServer) -> None:
    token, name = hosted.access["ALTIMATE_API_KEY"], hosted.access["ALTIMATE_INSTANCE_NAME"]
    credential_store.save_to_keyring(StoredCredentials(hosted.url, name, token))
    done = datapilot("doctor", "--json")
    assert done.exit_code == 0, done.output
    assert details(done)["keyring"].startswith("the token is in the keyring ")


no_keyring = NoKeyring()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("backend", "env", "status", "message"),
    [
        (MemoryKeyring(), {}, "passed", "works, and contains no credentials for this"),
        (LockedKeyring(), {}, "warning", "cannot be used (OSError)"),
        (no_keyring, {}, "warning", "there is no keyring on this system"),
        (LockedKeyring(), {"DATAPILOT_KEYRING": "0"}, "skipped", "not used here"),
        (LockedKeyring(), {"DATAPILOT_KEYRING": "maybe"}, "failed", "Set it to 1 or 0"),
    ],
)
def test_keyring_is_checked_without_credentials(
    backend: KeyringBackend, env: Mapping[str, str], status: str, message: str
) -> None:
    keyring.set_keyring(backend)
    done = datapilot("doctor", "--json", env=env)
    assert done.exit_code == 2
    assert statuses(done)["keyring"] == status
    assert message in details(done)["keyring"]
