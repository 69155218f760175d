"""`dbt onboard` with a real instance and with one that has only the documented protocol."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.commands import (
    Outcome,
    access,
    create_integration,
    current_sha256,
    datapilot,
)
from tests.support.instances import RunningInstance
from tests.support.protocol_server import (
    TOKEN,
    ProtocolServer,
    RecordedRequest,
    Reply,
    protocol_server,
)

pytestmark = pytest.mark.usefixtures("no_retry_delay")


@pytest.fixture
def manifest(artifacts: Path) -> Path:
    """Return production's manifest."""
    return artifacts / "manifest.json"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_onboard_stores_manifest(instance: RunningInstance, manifest: Path, tmp_path: Path) -> None:
    integration = create_integration(instance)
    done = datapilot(
        *("dbt", "onboard", "--integration-id", integration, "--manifest-path", manifest, "--json"),
        env=access(instance),
    )
    assert done.exit_code == 0, done.output
    (artifact,) = done.json["artifacts"]
    assert (
        artifact["sha256"]
        == sha256(manifest)
        == current_sha256(instance, integration, tmp_path / "state")
    )
    assert artifact["size_bytes"] == manifest.stat().st_size
    assert (artifact["kind"], artifact["schema_version"], artifact["dbt_version"]) == (
        "manifest",
        12,
        "1.11.16",
    )
    assert done.json["status_url"] == f"{instance.url}/settings/integrations/{integration}/PROD"


def test_all_kinds_are_uploaded_with_options_of_other_client(
    instance: RunningInstance, artifacts: Path
) -> None:
    create_integration(instance)
    done = datapilot(
        *("dbt", "onboard", "--token", instance.token, "--instance-name", instance.instance_name),
        *("--backend-url", instance.url, "--dbt_core_integration_name", "shop"),
        *(
            "--dbt_core_integration_environment",
            "prod",
            "--manifest-path",
            artifacts / "manifest.json",
        ),
        *(
            "--catalog-path",
            artifacts / "catalog.json",
            "--run-results-path",
            artifacts / "run_results.json",
        ),
        *("--sources-path", artifacts / "sources.json"),
        *("--semantic-manifest-path", artifacts / "semantic_manifest.json", "--json"),
    )
    assert done.exit_code == 0, done.output
    kinds = [artifact["kind"] for artifact in done.json["artifacts"]]
    assert kinds == ["manifest", "catalog", "run_results", "sources", "semantic_manifest"]
    assert "--token is visible" in done.stderr
    assert instance.token not in done.output


def test_text_output_describes_upload(instance: RunningInstance, manifest: Path) -> None:
    integration = create_integration(instance)
    done = datapilot(
        "dbt",
        "onboard",
        "--integration-id",
        integration,
        "--manifest-path",
        manifest,
        env=access(instance),
    )
    assert done.exit_code == 0, done.output
    nodes = len(json.loads(manifest.read_bytes())["nodes"])
    for part in (
        f"integration {integration}",
        "PROD",
        sha256(manifest),
        "dbt 1.11.16",
        f"{nodes} nodes",
        instance.url,
    ):
        assert part in done.stdout


def test_onboard_works_with_documented_protocol_only(
    hosted: ProtocolServer, artifacts: Path
) -> None:
    done = datapilot(
        *(
            "dbt",
            "onboard",
            "--integration-name",
            "shop",
            "--manifest-path",
            artifacts / "manifest.json",
        ),
        *("--catalog-path", artifacts / "catalog.json", "--json"),
        env=hosted.access,
    )
    assert done.exit_code == 0, done.output
    assert set(hosted.uploads.values()) == {
        (artifacts / f"{kind}.json").read_bytes() for kind in ("manifest", "catalog")
    }
    assert sorted(hosted.verified) == sorted(hosted.uploads)
    assert hosted.calls[-1] == "POST /dbt/v1/start_dbt_ingestion"
    assert hosted.calls.count("POST /dbt/v1/start_dbt_ingestion") == 1


def test_upload_has_no_token_and_no_content_type(hosted: ProtocolServer, manifest: Path) -> None:
    assert onboard_to(hosted, manifest).exit_code == 0
    (put,) = [request for request in hosted.requests if request.method == "PUT"]
    assert not {"Authorization", "x-tenant", "Content-Type"} & set(put.headers)
    assert put.headers["Content-Length"] == str(manifest.stat().st_size)


def test_manifest_is_found_like_dbt_finds_it(
    hosted: ProtocolServer, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: shop\ntarget-path: out\n", encoding="utf-8")
    for target in ("out", "elsewhere"):
        (project / target).mkdir()
        shutil.copy(manifest, project / target)
    monkeypatch.chdir(project / "models")
    done = datapilot("dbt", "onboard", "--integration-id", 7, "--dry-run")
    assert f"Reading {project / 'out' / 'manifest.json'}" in done.stderr
    done = datapilot(
        "dbt", "onboard", "--integration-id", 7, "--dry-run", env={"DBT_TARGET_PATH": "elsewhere"}
    )
    assert f"Reading {project / 'elsewhere' / 'manifest.json'}" in done.stderr
    monkeypatch.chdir(tmp_path)
    done = datapilot(
        "dbt", "onboard", "--integration-id", 7, "--dry-run", "--project-dir", "project"
    )
    assert f"Reading {project / 'out' / 'manifest.json'}" in done.stderr
    done = datapilot("dbt", "onboard", "--integration-id", 7, "--dry-run")
    assert done.exit_code == 2
    assert "dbt_project.yml" in done.stderr


def test_dry_run_sends_no_request(hosted: ProtocolServer, manifest: Path) -> None:
    done = datapilot(
        *(
            "dbt",
            "onboard",
            "--integration-id",
            7,
            "--manifest-path",
            manifest,
            "--dry-run",
            "--json",
        ),
        env=hosted.access,
    )
    assert done.exit_code == 0
    assert done.json["artifacts"][0]["sha256"] == sha256(manifest)
    assert hosted.requests == []


def test_rejected_artifact_prevents_all_uploads(hosted: ProtocolServer, artifacts: Path) -> None:
    done = datapilot(
        *("dbt", "onboard", "--integration-id", 7, "--manifest-path", artifacts / "manifest.json"),
        *("--catalog-path", artifacts / "run_results.json"),
        env=hosted.access,
    )
    assert done.exit_code == 1
    assert "run_results" in done.stderr
    assert hosted.requests == []


def onboard_to(server: ProtocolServer, manifest: Path, *more: object) -> Outcome:
    """Onboard to integration 7 of a server."""
    return datapilot(
        *(
            "dbt",
            "onboard",
            "--integration-id",
            7,
            "--manifest-path",
            manifest,
            "--timeout",
            20,
            *more,
        ),
        env=server.access,
    )


def replying(reply: Reply) -> Callable[[RecordedRequest], Reply]:
    return lambda _: reply


HTML = Reply(b"<html><body>Bad Gateway</body></html>", 502)
LOGIN_PAGE = Reply(b"<html><body>Log in</body></html>", 200)
BAD_ANSWERS = [
    (
        "GET /dbt/v3/validate-credentials",
        Reply({"detail": "no"}, 401),
        3,
        "does not accept the token",
    ),
    (
        "GET /dbt/v3/validate-credentials",
        Reply({"detail": "no such instance"}, 404),
        4,
        "no such instance",
    ),
    ("GET /dbt/v3/validate-credentials", HTML, 5, "HTTP 502"),
    ("GET /dbt/v3/validate-credentials", LOGIN_PAGE, 5, "not JSON"),
    ("GET /dbt/v3/validate-credentials", Reply({"ok": False}), 3, "does not accept the token"),
    ("GET /dbt/v1/validate-permissions", Reply({"detail": "read only"}, 403), 3, "read only"),
    ("GET /dbt/v1/signed_url", Reply({"detail": "No integration 7"}, 404), 4, "No integration 7"),
    ("GET /dbt/v1/signed_url", Reply({"detail": "quota"}, 402), 3, "quota"),
    (
        "GET /dbt/v1/signed_url",
        Reply({"detail": [{"loc": ["query", "id"], "msg": "bad"}]}, 422),
        2,
        "id: bad",
    ),
    ("GET /dbt/v1/signed_url", Reply({"url": None}), 5, "expected"),
    ("GET /dbt/v1/signed_url", Reply([]), 5, "expected"),
    ("POST /dbt/v1/verify_upload", Reply({"detail": "sha256 differs"}, 422), 1, "sha256 differs"),
    ("POST /dbt/v1/verify_upload", Reply({"detail": "another project"}, 409), 1, "another project"),
    ("POST /dbt/v1/verify_upload", HTML, 5, "HTTP 502"),
    ("POST /dbt/v1/verify_upload", Reply({"ok": False, "message": "lost"}), 5, "lost"),
    ("POST /dbt/v1/verify_upload", Reply({"ok": True, "sha256": "0" * 64}), 5, "different bytes"),
    (
        "POST /dbt/v1/start_dbt_ingestion",
        Reply({"ok": False, "detail": "queue full"}),
        5,
        "queue full",
    ),
    ("POST /dbt/v1/start_dbt_ingestion", Reply({"detail": "not here"}, 404), 4, "not here"),
    ("POST /dbt/v1/start_dbt_ingestion", Reply({"detail": "later"}, 503), 5, "HTTP 503"),
]


@pytest.mark.parametrize(("route", "reply", "exit_code", "words"), BAD_ANSWERS)
def test_every_response_is_checked(
    route: str, reply: Reply, exit_code: int, words: str, hosted: ProtocolServer, manifest: Path
) -> None:
    hosted.answers[route] = replying(reply)
    done = onboard_to(hosted, manifest, "--json")
    assert done.exit_code == exit_code, done.output
    assert words in done.json["error"]["message"]
    assert done.json["exit_code"] == exit_code
    assert done.json["ok"] is False
    assert TOKEN not in done.output
    assert "s3cret" not in done.output


def test_rejected_upload_is_retried_once_with_new_url(
    hosted: ProtocolServer, manifest: Path
) -> None:
    serve = hosted.reply

    def reject_put(request: RecordedRequest) -> Reply:
        return Reply(b"<Error/>", 403) if request.method == "PUT" else serve(request)

    hosted.reply = reject_put  # type: ignore[method-assign]
    done = onboard_to(hosted, manifest)
    assert done.exit_code == 3
    assert "clock" in done.stderr
    assert hosted.calls.count("GET /dbt/v1/signed_url") == 2
    assert hosted.verified == []


def test_redirect_to_another_host_does_not_receive_token(
    hosted: ProtocolServer, manifest: Path
) -> None:
    with protocol_server() as other:
        hosted.answers["GET /dbt/v3/validate-credentials"] = replying(
            Reply({}, 307, {"Location": f"{other.url}/dbt/v3/validate-credentials"})
        )
        done = onboard_to(hosted, manifest)
        assert done.exit_code == 2
        assert f"redirects to {other.url}" in done.stderr
        assert other.requests == []


def test_ambiguous_name_error_lists_ids(hosted: ProtocolServer, manifest: Path) -> None:
    hosted.integrations.append({**hosted.integrations[0], "id": 8})
    done = datapilot(
        "dbt",
        "onboard",
        "--integration-name",
        "shop",
        "--manifest-path",
        manifest,
        env=hosted.access,
    )
    assert done.exit_code == 2
    assert "IDs 7, 8" in done.stderr


def test_unknown_name_error_lists_integrations(hosted: ProtocolServer, manifest: Path) -> None:
    done = datapilot(
        "dbt",
        "onboard",
        "--integration-name",
        "shpo",
        "--manifest-path",
        manifest,
        env=hosted.access,
    )
    assert done.exit_code == 4
    assert "'shpo'" in done.stderr
    assert "'shop'" in done.stderr


def test_closed_port_is_reported(manifest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = datapilot(
        *("dbt", "onboard", "--integration-id", 7, "--manifest-path", manifest),
        env={"ALTIMATE_URL": url, "ALTIMATE_API_KEY": "t", "ALTIMATE_INSTANCE_NAME": "acme"},
    )
    assert done.exit_code == 5
    assert f"nothing listens at {url} (connection refused)" in done.stderr


def test_silent_instance_times_out(manifest: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        done = datapilot(
            *("dbt", "onboard", "--integration-id", 7, "--manifest-path", manifest, "--timeout", 1),
            env={"ALTIMATE_URL": url, "ALTIMATE_API_KEY": "t", "ALTIMATE_INSTANCE_NAME": "acme"},
        )
    assert done.exit_code == 5
    assert "--timeout" in done.stderr


@pytest.mark.parametrize(
    ("change", "exit_code", "words"),
    [
        ({"ALTIMATE_API_KEY": "wrong"}, 3, "does not accept the token"),
        ({"ALTIMATE_INSTANCE_NAME": "other"}, 3, "'other'"),
        ({"ALTIMATE_API_KEY": ""}, 2, "no token"),
        ({"ALTIMATE_INSTANCE_NAME": ""}, 2, "no instance name"),
    ],
)
def test_wrong_credentials_are_reported(
    change: dict[str, str], exit_code: int, words: str, instance: RunningInstance, manifest: Path
) -> None:
    done = datapilot(
        *(
            "dbt",
            "onboard",
            "--integration-id",
            create_integration(instance),
            "--manifest-path",
            manifest,
        ),
        env={**access(instance), **change},
    )
    assert done.exit_code == exit_code
    assert words in done.stderr
    assert instance.token not in done.output


def test_read_token_cannot_upload(instance: RunningInstance, manifest: Path) -> None:
    integration = create_integration(instance)
    done = datapilot(
        *("dbt", "onboard", "--integration-id", integration, "--manifest-path", manifest),
        env=access(instance, instance.new_token("read")),
    )
    assert done.exit_code == 3


@pytest.mark.parametrize(
    "selection", [("--integration-id", 999), ("--integration-name", "unknown")]
)
def test_unknown_integration_is_not_found(
    selection: tuple[str, object], instance: RunningInstance, manifest: Path
) -> None:
    done = datapilot(
        "dbt", "onboard", *selection, "--manifest-path", manifest, env=access(instance)
    )
    assert done.exit_code == 4, done.output


def write_invalid_file(directory: Path, name: str, artifacts: Path) -> Path:
    """Write one of the invalid files and return its path."""
    content = (artifacts / "manifest.json").read_bytes()
    contents = {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "not dbt's": b'{"name": "a web app", "icons": []}',
        "run results": (artifacts / "run_results.json").read_bytes(),
        "too old": content.replace(b"manifest/v12.json", b"manifest/v3.json"),
        "a list": b"[1, 2]",
        "UTF-16": content.decode().encode("utf-16"),
    }
    path = directory / "manifest.json"
    path.write_bytes(contents[name])
    return path


@pytest.mark.parametrize(
    "name", ["empty", "truncated", "not dbt's", "run results", "too old", "a list", "UTF-16"]
)
def test_invalid_manifest_is_rejected_and_current_one_kept(
    name: str, instance: RunningInstance, manifest: Path, artifacts: Path, tmp_path: Path
) -> None:
    integration = create_integration(instance)
    onboard = ("dbt", "onboard", "--integration-id", integration, "--manifest-path")
    assert datapilot(*onboard, manifest, env=access(instance)).exit_code == 0
    path = write_invalid_file(tmp_path, name, artifacts)
    done = datapilot(*onboard, path, "--json", env=access(instance))
    assert done.exit_code == 1, done.output
    assert str(path) in done.json["error"]["message"]
    assert current_sha256(instance, integration, tmp_path / "state") == sha256(manifest)


def test_missing_file_and_directory_are_usage_errors(
    hosted: ProtocolServer, tmp_path: Path
) -> None:
    missing = onboard_to(hosted, tmp_path / "nowhere.json")
    directory = onboard_to(hosted, tmp_path)
    assert (missing.exit_code, directory.exit_code) == (2, 2)
    assert str(tmp_path / "nowhere.json") in missing.stderr
    assert "a directory, not a file" in directory.stderr
    assert hosted.requests == []


def test_missing_relative_path_error_names_searched_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = datapilot(
        "dbt", "onboard", "--integration-id", 7, "--manifest-path", "target/manifest.json"
    )
    assert done.exit_code == 2
    assert os.fspath(tmp_path) in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--integration-id", "seven"),
        ("--integration-id", "0"),
        ("--integration-id", "7", "--integration-name", "shop"),
        (),
    ],
)
def test_integration_must_be_selected_exactly_once(
    arguments: tuple[str, ...], manifest: Path
) -> None:
    done = datapilot("dbt", "onboard", *arguments, "--manifest-path", manifest, "--json")
    assert done.exit_code == 2
    assert done.json["error"]["kind"] == "usage_error"


def test_exit_code_unchanged_applies_to_same_bytes(
    instance: RunningInstance, manifest: Path
) -> None:
    onboard = (
        "dbt",
        "onboard",
        "--integration-id",
        create_integration(instance),
        "--manifest-path",
        manifest,
        "--json",
    )
    first = datapilot(*onboard, "--exit-code-unchanged", 99, env=access(instance))
    again = datapilot(*onboard, "--exit-code-unchanged", 99, env=access(instance))
    plain = datapilot(*onboard, env=access(instance))
    assert [first.exit_code, again.exit_code, plain.exit_code] == [0, 99, 0]
    assert (first.json["unchanged"], again.json["unchanged"]) == (False, True)


def test_soft_fail_succeeds_only_for_unavailable_instance(
    hosted: ProtocolServer, manifest: Path
) -> None:
    hosted.answers["POST /dbt/v1/verify_upload"] = replying(HTML)
    unconfirmed = onboard_to(hosted, manifest, "--soft-fail", "--json")
    assert unconfirmed.exit_code == 0
    assert "NOT CONFIRMED" in unconfirmed.stderr
    assert unconfirmed.json["ok"] is False
    hosted.answers["POST /dbt/v1/verify_upload"] = replying(Reply({"detail": "no"}, 409))
    assert onboard_to(hosted, manifest, "--soft-fail").exit_code == 1
    hosted.answers["GET /dbt/v3/validate-credentials"] = replying(Reply({"detail": "no"}, 401))
    assert onboard_to(hosted, manifest, "--soft-fail").exit_code == 3


def test_token_that_expires_soon_causes_warning(instance: RunningInstance, manifest: Path) -> None:
    integration = create_integration(instance)
    expires_at = datetime.now(UTC) + timedelta(days=3, minutes=5)
    token = instance.new_token("upload", expires_at=expires_at)
    onboard = ("dbt", "onboard", "--integration-id", integration, "--manifest-path", manifest)
    done = datapilot(*onboard, "--json", env={**access(instance, token), "GITHUB_ACTIONS": "true"})
    assert done.exit_code == 0, done.output
    warning = (
        f"the token expires in 3 days, on {expires_at:%Y-%m-%d}. Create a new one at "
        f"{instance.url}/settings/tokens or with `datapilot instance token create`"
    )
    assert f"::warning title=datapilot::{warning}" in done.stderr
    assert warning in done.json["warnings"]
    without_expiry = datapilot(*onboard, env=access(instance))
    assert "expires" not in without_expiry.output


def test_environment_can_be_selected_by_id(instance: RunningInstance, manifest: Path) -> None:
    integration = create_integration(instance)
    done = datapilot(
        *("dbt", "onboard", "--dbt_core_integration_id", integration, "--json"),
        *("--dbt_core_integration_environment", 1, "--manifest-path", manifest),
        env=access(instance),
    )
    assert done.exit_code == 0, done.output
    history = ("dbt", "integrations", "history", "--integration-id", integration, "--json")
    assert len(datapilot(*history, env=access(instance)).json["history"]) == 1


def test_history_lists_uploads_and_restore_makes_one_current(
    instance: RunningInstance, manifest: Path, tmp_path: Path
) -> None:
    integration = create_integration(instance)
    changed = tmp_path / "manifest.json"
    changed.write_bytes(manifest.read_bytes() + b"\n")
    for path in (manifest, changed):
        done = datapilot(
            "dbt",
            "onboard",
            "--integration-id",
            integration,
            "--manifest-path",
            path,
            env=access(instance),
        )
        assert done.exit_code == 0, done.output
    history = ("dbt", "integrations", "history", "--integration-id", integration)
    newest, oldest = datapilot(*history, "--json", env=access(instance)).json["history"]
    assert (newest["sha256"], oldest["sha256"]) == (sha256(changed), sha256(manifest))
    assert "*" in datapilot(*history, env=access(instance)).stdout
    file_id = oldest["file_id"]
    restored = datapilot(
        *("dbt", "integrations", "restore", "--integration-id", integration, "--file-id", file_id),
        env=access(instance),
    )
    assert restored.exit_code == 0, restored.output
    assert current_sha256(instance, integration, tmp_path / "state") == sha256(manifest)


def test_integrations_are_listed_and_shown(instance: RunningInstance, manifest: Path) -> None:
    empty = datapilot("dbt", "integrations", "list", env=access(instance))
    assert "No integrations yet" in empty.stdout
    integration = create_integration(instance, "shop", "STAGING")
    listed = datapilot("dbt", "integrations", "list", "--json", env=access(instance)).json[
        "integrations"
    ]
    assert [(each["id"], each["name"], each["environments"]) for each in listed] == [
        (integration, "shop", ["STAGING"])
    ]
    onboard = (
        "dbt",
        "onboard",
        "--integration-id",
        integration,
        "--environment",
        "staging",
        "--manifest-path",
        manifest,
    )
    assert datapilot(*onboard, env=access(instance)).exit_code == 0
    show = ("dbt", "integrations", "show", "--integration-name", "shop", "--environment", "Staging")
    shown = datapilot(*show, env=access(instance))
    assert shown.exit_code == 0, shown.output
    assert f"Integration {integration}" in shown.stdout
    unknown = datapilot(
        "dbt", "integrations", "show", "--integration-id", integration, env=access(instance)
    )
    assert unknown.exit_code == 4
    assert "STAGING" in unknown.stderr


def test_an_empty_project_directory_is_rejected() -> None:
    done = datapilot("dbt", "onboard", "--integration-id", 7, "--project-dir", "")
    assert done.exit_code == 2
    assert "Invalid value for '--project-dir': the value is empty" in done.stderr
