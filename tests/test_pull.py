"""`dbt pull` with a real instance and with one that has only the documented protocol."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from datapilot_defer.client.connection import InstanceAddress
from datapilot_defer.formatting import format_duration
from datapilot_defer.pull import integration_names
from datapilot_defer.pull.request import PullOptions
from datapilot_defer.pull.state_directory import (
    RECORD_FILE,
    StateDirectory,
    default_state_directory,
    instance_cache_directory,
)
from tests.support.commands import Outcome, access, create_integration, datapilot
from tests.support.dbt_project import PROJECT
from tests.support.instances import RunningInstance, running_instance
from tests.support.protocol_server import ProtocolServer, RecordedRequest, Reply

pytestmark = pytest.mark.usefixtures("no_retry_delay")


@pytest.fixture(autouse=True)
def _no_dbt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove dbt from PATH, because a machine that only pulls does not need it."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def integration(instance: RunningInstance, artifacts: Path) -> int:
    """Return an integration with production's manifest in PROD."""
    integration_id = create_integration(instance, "shop")
    onboard(instance, integration_id, artifacts / "manifest.json")
    return integration_id


def onboard(instance: RunningInstance, integration: int, manifest: Path, *more: object) -> None:
    """Onboard a manifest."""
    words = ("--integration-id", integration, "--manifest-path", manifest, "--force", *more)
    done = datapilot("dbt", "onboard", *words, env=access(instance))
    assert done.exit_code == 0, done.output


def pull(instance: RunningInstance, integration: int, *more: object) -> Outcome:
    return datapilot(
        "dbt", "pull", "--integration-id", integration, "--json", *more, env=access(instance)
    )


def address(instance: RunningInstance) -> InstanceAddress:
    return InstanceAddress(instance.url, "acme")


def pull_by_name(instance: RunningInstance, name: str, *more: object) -> Outcome:
    return datapilot(
        "dbt", "pull", "--integration-name", name, "--json", *more, env=access(instance)
    )


def copy_with_metadata(manifest: Path, directory: Path, **metadata: object) -> Path:
    """Return a copy of a manifest with other metadata."""
    content = json.loads(manifest.read_bytes())
    content["metadata"].update(metadata)
    copy = directory / f"changed-{len(list(directory.glob('copy_with_metadata-*')))}.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    return copy


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pull_downloads_onboarded_bytes(
    instance: RunningInstance, integration: int, artifacts: Path
) -> None:
    done = pull(instance, integration)
    assert done.exit_code == 0, done.output
    directory = Path(done.json["state_dir"])
    assert (directory / "manifest.json").read_bytes() == (artifacts / "manifest.json").read_bytes()
    assert {
        name: done.json[name]
        for name in ("ok", "unchanged", "offline", "environment", "project_name")
    } == {
        "ok": True,
        "unchanged": False,
        "offline": False,
        "environment": "PROD",
        "project_name": "shop",
    }
    [artifact] = done.json["artifacts"]
    assert artifact["sha256"] == sha256(artifacts / "manifest.json")
    assert artifact["path"] == str(directory / "manifest.json")
    assert artifact["schema_version"] == 12
    assert done.json["age_seconds"] >= 0
    assert datetime.fromisoformat(done.json["generated_at"]).tzinfo is not None


def test_state_directory_is_printed_and_in_user_cache(
    instance: RunningInstance, integration: int, home: Path
) -> None:
    words = ("dbt", "pull", "--integration-id", integration, "--environment", "Prod")
    done = datapilot(*words, env=access(instance))
    directory = Path(done.stdout.strip())
    assert directory == default_state_directory(address(instance), integration, "PROD", None)
    assert directory.is_relative_to(home)
    assert "manifest of integration 1, environment Prod, written by dbt 1.11" in done.stderr


def test_second_pull_is_one_request(instance: RunningInstance, integration: int) -> None:
    first = pull(instance, integration)
    manifest = Path(first.json["state_dir"]) / "manifest.json"
    before = manifest.stat().st_mtime_ns
    second = pull(instance, integration, "-v")
    assert second.json["unchanged"] is True
    assert len(re.findall(r"^(GET|POST|PUT) ", second.stderr, re.MULTILINE)) == 1
    assert manifest.stat().st_mtime_ns == before


def test_new_manifest_replaces_old_one(
    instance: RunningInstance, integration: int, artifacts: Path, tmp_path: Path
) -> None:
    pull(instance, integration)
    newer = copy_with_metadata(artifacts / "manifest.json", tmp_path, invocation_id="another")
    onboard(instance, integration, newer)
    done = pull(instance, integration)
    assert done.json["unchanged"] is False
    assert sha256(Path(done.json["state_dir"]) / "manifest.json") == sha256(newer)


def test_changed_file_in_cache_is_downloaded_again(
    instance: RunningInstance, integration: int
) -> None:
    directory = Path(pull(instance, integration).json["state_dir"])
    (directory / "manifest.json").write_text("{}", encoding="utf-8")
    done = pull(instance, integration)
    assert done.json["unchanged"] is False
    assert sha256(directory / "manifest.json") == done.json["artifacts"][0]["sha256"]


@pytest.mark.parametrize(
    "record",
    [
        *("", "{", "[]", '{"version": 1}', '{"version": 1, "origin": "x", "entries": [{}]}'),
        f'{{"version": {"9" * 5000}}}',
        f'{{"version": 1, "more": {"[" * 200_000}{"]" * 200_000}}}',
        " " * 2_000_000,
    ],
    ids=range(8),
)
def test_unreadable_record_is_replaced(
    instance: RunningInstance, integration: int, record: str
) -> None:
    directory = Path(pull(instance, integration).json["state_dir"])
    (directory / RECORD_FILE).write_text(record, encoding="utf-8")
    assert pull(instance, integration).exit_code == 0
    assert StateDirectory(directory).read_record() is not None


def test_state_directory_of_newer_version_is_not_changed(
    instance: RunningInstance, integration: int
) -> None:
    directory = Path(pull(instance, integration).json["state_dir"])
    record = json.loads((directory / RECORD_FILE).read_bytes())
    (directory / RECORD_FILE).write_text(
        json.dumps({**record, "version": 2, "new": True}), encoding="utf-8"
    )
    done = pull(instance, integration)
    assert done.exit_code == 2
    assert "newer datapilot-defer" in done.stderr
    assert pull(instance, integration, "--force").exit_code == 0


def test_several_kinds_are_updated_together(
    instance: RunningInstance, integration: int, artifacts: Path, tmp_path: Path
) -> None:
    results = (
        "--run-results-path",
        artifacts / "run_results.json",
        "--catalog-path",
        artifacts / "catalog.json",
    )
    onboard(instance, integration, artifacts / "manifest.json", *results)
    out = tmp_path / "out"
    done = pull(
        instance,
        integration,
        "-o",
        out,
        "--kind",
        "run_results",
        "--kind",
        "manifest",
        "--kind",
        "manifest",
    )
    assert [artifact["kind"] for artifact in done.json["artifacts"]] == ["run_results", "manifest"]
    assert {path.name for path in out.iterdir()} >= {"manifest.json", "run_results.json"}
    newer = json.loads((artifacts / "run_results.json").read_bytes())
    newer["elapsed_time"] = 99.0
    (tmp_path / "newer.json").write_text(json.dumps(newer), encoding="utf-8")
    manifest = copy_with_metadata(artifacts / "manifest.json", tmp_path, invocation_id="another")
    onboard(instance, integration, manifest, "--run-results-path", tmp_path / "newer.json")
    pull(instance, integration, "-o", out)
    assert sha256(out / "run_results.json") == sha256(tmp_path / "newer.json")


def test_missing_kind_is_reported(instance: RunningInstance, integration: int) -> None:
    done = pull(instance, integration, "--kind", "catalog")
    assert done.exit_code == 4
    assert "integration 1 (shop), environment PROD has no catalog.json yet" in done.stderr
    options = "--integration-id 1 --environment PROD --catalog-path target/catalog.json"
    assert f"`datapilot dbt onboard {options}`" in done.stderr
    results = pull(instance, integration, "--kind", "run_results")
    assert "--run-results-path target/run_results.json`" in results.stderr


def test_file_of_another_kind_is_reported(
    instance: RunningInstance, integration: int, artifacts: Path
) -> None:
    onboard(
        instance,
        integration,
        artifacts / "manifest.json",
        "--catalog-path",
        artifacts / "catalog.json",
    )
    file_id = pull(instance, integration, "--kind", "catalog").json["artifacts"][0]["file_id"]
    done = pull(instance, integration, "--file-id", file_id)
    assert done.exit_code == 4
    history = "datapilot dbt integrations history --integration-id 1 --environment PROD"
    assert (
        f"file {file_id} of integration 1 is not a manifest. `{history}` lists them" in done.stderr
    )


def test_relative_output_is_resolved_and_kinds_are_listed(
    instance: RunningInstance,
    integration: int,
    artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    onboard(
        instance,
        integration,
        artifacts / "manifest.json",
        "--catalog-path",
        artifacts / "catalog.json",
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = pull(instance, integration, "-o", "../state", "--kind", "manifest", "--kind", "catalog")
    assert done.json["state_dir"] == str((tmp_path / "state").resolve())
    assert (
        "Pulled: manifest, catalog of integration 1; the manifest was written by dbt 1.11"
        in done.stderr
    )


def test_pull_without_upload_suggests_onboard(instance: RunningInstance) -> None:
    integration = create_integration(instance, "empty")
    done = pull(instance, integration)
    assert done.exit_code == 4
    assert "`datapilot dbt onboard --integration-id 1 --environment PROD`" in done.stderr
    assert not default_state_directory(address(instance), integration, None, None).exists()


def test_unknown_environment_error_lists_environments(
    instance: RunningInstance, integration: int
) -> None:
    done = pull(instance, integration, "--environment", "prodd")
    assert done.exit_code == 4
    assert "integration 1 (shop) has no environment prodd. It has: PROD" in done.stderr


def test_unknown_integration_error_lists_integrations(
    instance: RunningInstance, integration: int
) -> None:
    done = pull(instance, 99)
    assert done.exit_code == 4
    assert "no integration 99 on" in done.stderr
    assert "It has: 1 (shop)" in done.stderr


def test_integration_is_selected_by_name(instance: RunningInstance, integration: int) -> None:
    done = datapilot("dbt", "pull", "--integration-name", "shop", "--json", env=access(instance))
    assert done.json["integration_id"] == integration


def test_earlier_manifest_has_its_own_directory(
    instance: RunningInstance, integration: int, artifacts: Path, tmp_path: Path
) -> None:
    first = pull(instance, integration).json
    time_between = datetime.now(UTC)
    onboard(
        instance,
        integration,
        copy_with_metadata(artifacts / "manifest.json", tmp_path, invocation_id="another"),
    )
    by_id = pull(instance, integration, "--file-id", first["artifacts"][0]["file_id"]).json
    by_time = pull(instance, integration, "--at", time_between.isoformat()).json
    current = pull(instance, integration).json
    assert (
        by_id["artifacts"][0]["sha256"]
        == by_time["artifacts"][0]["sha256"]
        == first["artifacts"][0]["sha256"]
    )
    assert current["artifacts"][0]["sha256"] != first["artifacts"][0]["sha256"]
    assert len({first["state_dir"], by_id["state_dir"], by_time["state_dir"]}) == 3


def test_time_before_first_upload_is_not_found(instance: RunningInstance, integration: int) -> None:
    done = pull(instance, integration, "--at", "2001-01-01")
    assert done.exit_code == 4
    assert "has no manifest at 2001-01-01T00:00:00Z" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--at", "yesterday"), "is not an ISO timestamp"),
        (("--file-id", "1", "--kind", "manifest", "--kind", "catalog"), "selects one artifact"),
        (("--file-id", "1", "--at", "2026-11-22"), "select different artifacts"),
    ],
)
def test_contradictory_options_are_rejected(
    instance: RunningInstance, words: tuple[str, ...], message: str
) -> None:
    done = pull(instance, 1, *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_offline_uses_cached_manifest_and_reports_age(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    before = pull(instance, integration, "--offline")
    assert before.exit_code == 5
    assert "contains no usable artifacts of integration 1" in before.stderr
    pull(instance, integration)
    done = pull(instance, integration, "--offline", "-v")
    assert (done.exit_code, done.json["offline"]) == (0, True)
    assert not re.search(r"^GET ", done.stderr, re.MULTILINE)
    assert re.search(r"Offline: manifest of integration 1, written by dbt .* old\)", done.stderr)


def test_offline_needs_no_token(instance: RunningInstance, integration: int) -> None:
    pulled = pull_by_name(instance, "shop")
    without_token = {
        name: value for name, value in access(instance).items() if name != "ALTIMATE_API_KEY"
    }
    for option, value in (("--integration-id", integration), ("--integration-name", "shop")):
        done = datapilot("dbt", "pull", option, value, "--offline", "--json", env=without_token)
        assert (done.exit_code, done.json["offline"]) == (0, True), done.output
        assert done.json["state_dir"] == pulled.json["state_dir"]
    online = datapilot("dbt", "pull", "--integration-id", integration, env=without_token)
    assert online.exit_code == 2
    assert "no token" in online.stderr


def test_rejected_download_leaves_no_temporary_file(hosted: ProtocolServer, tmp_path: Path) -> None:
    hosted.uploads[1] = b'{"metadata": {}, "nodes": {}}'
    done = pull_hosted(hosted, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "Nothing was changed" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {".datapilot.lock"}


def test_unavailable_instance_causes_warning_and_cached_manifest_is_used(
    artifacts: Path, tmp_path: Path
) -> None:
    with running_instance(tmp_path / "data") as instance:
        integration = create_integration(instance, "shop")
        onboard(instance, integration, artifacts / "manifest.json")
        pull(instance, integration)
    done = pull(instance, integration, "--max-age", "9w")
    assert (done.exit_code, done.json["offline"], done.json["unchanged"]) == (0, True, True)
    assert re.search(
        r"Warning: .*nothing listens at .*Using the artifacts of an earlier pull \(.* old\)",
        done.stderr,
    )
    stale = pull(instance, integration, "--max-age", "0s")
    assert stale.exit_code == 1
    assert "too old" in stale.stderr
    not_cached = pull(instance, integration, "--environment", "STAGING")
    assert not_cached.exit_code == 5


def test_cached_name_is_used_without_instance(artifacts: Path, tmp_path: Path) -> None:
    with running_instance(tmp_path / "data") as instance:
        onboard(instance, create_integration(instance, "shop"), artifacts / "manifest.json")
        assert pull_by_name(instance, "shop").json["unchanged"] is False
        assert pull_by_name(instance, "shop").json["unchanged"] is True
    offline = pull_by_name(instance, "shop", "--offline")
    assert (offline.exit_code, offline.json["offline"], offline.json["integration_id"]) == (
        0,
        True,
        1,
    )
    unavailable = pull_by_name(instance, "shop", "--max-age", "9w")
    assert (unavailable.exit_code, unavailable.json["offline"]) == (0, True)
    assert (
        len(
            re.findall(
                r"nothing listens at .*Using the artifacts of an earlier pull", unavailable.stderr
            )
        )
        == 1
    )
    assert pull_by_name(instance, "shop", "--max-age", "0s").exit_code == 1
    assert pull_by_name(instance, "shop", "--environment", "STAGING").exit_code == 5
    assert pull_by_name(instance, "other").exit_code == 5


def test_unknown_name_is_not_found_offline(instance: RunningInstance, integration: int) -> None:
    done = pull_by_name(instance, "shop", "--offline")
    assert done.exit_code == 4
    assert (
        "'shop' was never looked up before, and cannot be looked up offline. Use --integration-id"
        in done.stderr
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"shop": "1"}', '{"other": 7}'])
def test_unreadable_name_cache_is_replaced(
    instance: RunningInstance, integration: int, content: str
) -> None:
    directory = instance_cache_directory(address(instance))
    directory.mkdir(parents=True)
    (directory / "names.json").write_text(content, encoding="utf-8")
    assert pull_by_name(instance, "shop", "--offline").exit_code == 4
    assert pull_by_name(instance, "shop").exit_code == 0
    assert pull_by_name(instance, "shop", "--offline").json["integration_id"] == integration
    assert integration_names._read_cached_id(address(instance), "other") == (
        7 if "other" in content else None
    )


def test_unwritable_name_cache_does_not_prevent_pull(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    (instance_cache_directory(address(instance)) / "names.json").mkdir(parents=True)
    assert pull_by_name(instance, "shop", "-o", tmp_path / "out").exit_code == 0
    assert [path.name for path in instance_cache_directory(address(instance)).iterdir()] == [
        "names.json"
    ]
    assert pull_by_name(instance, "shop", "-o", tmp_path / "out", "--offline").exit_code == 4


def test_names_are_not_cached_without_home(
    instance: RunningInstance, integration: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datapilot_defer.config._absolute_or_none", lambda _: None)
    integration_names._cache_id(address(instance), "shop", integration)
    assert integration_names._read_cached_id(address(instance), "shop") is None


def test_too_old_manifest_is_rejected(
    instance: RunningInstance, integration: int, artifacts: Path, tmp_path: Path
) -> None:
    generated_at = (datetime.now(UTC) - timedelta(hours=30)).isoformat().replace("+00:00", "Z")
    old = copy_with_metadata(artifacts / "manifest.json", tmp_path, generated_at=generated_at)
    onboard(instance, integration, old)
    done = pull(instance, integration, "--max-age", "1d")
    assert done.exit_code == 1
    assert "too old: it is 30 h old, and the limit is 1 d" in done.stderr
    assert pull(instance, integration, "--max-age", "31h").exit_code == 0


def test_manifest_unreadable_by_dbt_is_rejected_and_old_one_kept(
    instance: RunningInstance, integration: int, artifacts: Path, tmp_path: Path
) -> None:
    done = pull(instance, integration, "--readable-by", "1.11")
    directory = Path(done.json["state_dir"])
    v20 = tmp_path / "v20.json"
    text = (
        (artifacts / "manifest.json")
        .read_text("utf-8")
        .replace("manifest/v12.json", "manifest/v20.json")
    )
    v20.write_text(text, encoding="utf-8")
    upload_without_validation(instance, integration, v20)
    done = pull(instance, integration, "--readable-by", "1.11")
    assert done.exit_code == 1
    assert "has no valid manifest that dbt 1.11 can read. Nothing was changed" in done.stderr
    assert sha256(directory / "manifest.json") == sha256(artifacts / "manifest.json")


def test_cached_manifest_is_checked_for_another_dbt_version(
    instance: RunningInstance, integration: int
) -> None:
    assert pull(instance, integration, "--readable-by", "1.11").exit_code == 0
    done = pull(instance, integration, "--readable-by", "1.5")
    assert done.exit_code == 1
    assert "dbt 1.5" in done.stderr


def upload_without_validation(instance: RunningInstance, integration: int, file: Path) -> None:
    """Upload a manifest like a client that does not validate it."""
    import requests

    environment = {
        "dbt_core_integration_id": str(integration),
        "dbt_core_integration_environment_type": "PROD",
    }
    signed = requests.get(
        f"{instance.url}/dbt/v1/signed_url",
        params={**environment, "file_type": "manifest"},
        headers=instance.headers,
        timeout=30,
    ).json()
    assert requests.put(signed["url"], data=file.read_bytes(), timeout=30).ok
    body = {"dbt_core_integration_file_id": signed["dbt_core_integration_file_id"], "force": True}
    answer = requests.post(
        f"{instance.url}/dbt/v1/verify_upload", json=body, headers=instance.headers, timeout=30
    )
    assert answer.ok, answer.text


def test_target_directory_is_rejected(
    instance: RunningInstance, integration: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PROJECT, tmp_path / "shop")
    for output in (tmp_path / "shop" / "target", tmp_path / "shop" / "x" / ".." / "target"):
        done = pull(instance, integration, "--output", output)
        assert done.exit_code == 2
        assert "dbt's target directory" in done.stderr
    monkeypatch.chdir(tmp_path / "shop")
    monkeypatch.setenv("DBT_TARGET_PATH", str(tmp_path / "elsewhere"))
    assert pull(instance, integration, "--output", tmp_path / "elsewhere").exit_code == 2
    assert pull(instance, integration, "--output", tmp_path / "shop" / "state").exit_code == 0


def test_files_of_user_are_not_overwritten(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("mine", encoding="utf-8")
    done = pull(instance, integration, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "was not pulled" in done.stderr
    assert (tmp_path / "out" / "manifest.json").read_text("utf-8") == "mine"
    assert pull(instance, integration, "--output", tmp_path / "out", "--force").exit_code == 0
    assert pull(instance, integration, "--output", tmp_path / "out").json["unchanged"] is True


def test_directory_can_be_reused_for_another_integration(
    instance: RunningInstance, integration: int, artifacts: Path, tmp_path: Path
) -> None:
    pull(instance, integration, "--output", tmp_path / "out")
    other = create_integration(instance, "other")
    onboard(
        instance,
        other,
        copy_with_metadata(artifacts / "manifest.json", tmp_path, invocation_id="other"),
    )
    done = pull(instance, other, "--output", tmp_path / "out")
    assert (done.exit_code, done.json["unchanged"]) == (0, False)


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="needs a directory in which no user can write"
)
def test_unwritable_directory_is_reported(instance: RunningInstance, integration: int) -> None:
    done = pull(instance, integration, "--output", "/proc/self/state")
    assert done.exit_code == 2
    assert "cannot write to /proc/self/state" in done.stderr
    assert "--output" in done.stderr


def test_file_instead_of_directory_is_reported(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("", encoding="utf-8")
    done = pull(instance, integration, "--output", tmp_path / "out")
    assert done.exit_code == 2
    assert "cannot write to" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of its own")
def test_full_disk_keeps_old_manifest_and_no_partial_file(
    instance: RunningInstance, integration: int, artifacts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    out.mkdir()
    size = (artifacts / "manifest.json").stat().st_size
    mount = [
        shutil.which("mount", path=os.defpath) or "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={size * 3 // 2}",
    ]
    if subprocess.run([*mount, "datapilot", out], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        assert pull(instance, integration, "--output", out).exit_code == 0
        onboard(
            instance,
            integration,
            copy_with_metadata(artifacts / "manifest.json", tmp_path, invocation_id="another"),
        )
        done = pull(instance, integration, "--output", out)
        assert done.exit_code == 2
        assert "No space left on device" in done.stderr
        assert sha256(out / "manifest.json") == sha256(artifacts / "manifest.json")
        assert not list(out.glob("*.tmp"))
    finally:
        subprocess.run([shutil.which("umount", path=os.defpath) or "umount", out], check=True)


def test_lock_of_killed_process_is_released(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from datapilot_defer.pull.state_directory import StateDirectory\n"
        "with StateDirectory(Path(sys.argv[1])).lock():\n"
        "    Path(sys.argv[1], '.datapilot-half.tmp').write_text('half')\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, out], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n" or os.name == "nt"
        holder.kill()
    assert pull(instance, integration, "--output", out).exit_code == 0
    assert not (out / ".datapilot-half.tmp").exists()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a state directory in a thread, like another process would."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with StateDirectory(path).lock():
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        holder.join()


def test_wait_for_lock_ends_with_timeout(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    start = time.monotonic()
    with locked(tmp_path / "out"):
        outcome = pull(instance, integration, "--output", tmp_path / "out", "--timeout", 1)
    assert time.monotonic() - start < 20
    assert outcome.exit_code == 5
    assert "another process has been writing" in outcome.stderr


def test_wait_for_lock_is_short_with_cached_manifest(
    instance: RunningInstance, integration: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pull(instance, integration, "--output", tmp_path / "out").exit_code == 0
    monkeypatch.setattr("datapilot_defer.pull.update._confirm", lambda *_: None)
    monkeypatch.setattr("datapilot_defer.pull.update.BRIEF_TIMEOUT_S", 1.0)
    start = time.monotonic()
    with locked(tmp_path / "out"):
        outcome = pull(instance, integration, "--output", tmp_path / "out")
    assert time.monotonic() - start < 20
    assert outcome.exit_code == 0
    assert "Using the artifacts of an earlier pull" in outcome.stderr


def test_names_of_default_directories_are_portable() -> None:
    def last_part(environment: str, pin: str | None = None) -> str:
        return default_state_directory(
            InstanceAddress("https://i.example:8443", "acme"), 7, environment, pin
        ).name

    assert last_part("PROD") == last_part("prod") == "prod"
    assert default_state_directory(
        InstanceAddress("https://i.example:8443", "acme"), 7, None, None
    ).parts[-4:] == (*("i.example_8443", "acme", "7", "default"),)
    parts = [
        last_part(name)
        for name in ("..", ".", "con", "a/b", "a\\b", "ü" * 200, "nul.txt", "a:b", "a b", "@")
    ]
    assert len(set(parts)) == len(parts)
    assert all(re.fullmatch(r"[a-z0-9_@+-][a-z0-9._@+-]{0,80}", name) for name in parts)
    assert not {"con", "nul.txt", ".", ".."} & set(parts)
    assert last_part("prod", "12") == "prod@12"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (90, "90 s"),
        (7200, "2 h"),
        (86400, "1 d"),
        (100000, "28 h"),
        (1e6, "12 d"),
    ],
)
def test_duration_has_suitable_unit(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_pull_options_describe_source() -> None:
    assert PullOptions(7).description == "integration 7"
    assert PullOptions(7, "PROD", at="2026-11-22").pin == "2026-11-22"


@pytest.fixture
def hosted(hosted: ProtocolServer, artifacts: Path) -> ProtocolServer:
    """Return the server with production's manifest in integration 7."""
    hosted.uploads[1] = (artifacts / "manifest.json").read_bytes()
    hosted.verified.append(1)
    return hosted


def pull_hosted(server: ProtocolServer, *more: object) -> Outcome:
    return datapilot("dbt", "pull", "--integration-id", 7, "--json", *more, env=server.access)


def test_response_without_sha256_is_compared_by_file_id(hosted: ProtocolServer) -> None:
    assert pull_hosted(hosted).json["unchanged"] is False
    assert pull_hosted(hosted).json["unchanged"] is True
    hosted.uploads[2], hosted.verified[0] = hosted.uploads[1], 2
    assert pull_hosted(hosted).json["unchanged"] is False


def test_response_without_environment_causes_warning(
    hosted: ProtocolServer,
) -> None:
    done = pull_hosted(hosted, "--environment", "PROD")
    assert done.exit_code == 0
    assert (
        "does not report the environment of an artifact, so this one may not be of PROD"
        in done.stderr
    )
    assert (
        "does not report the environment"
        not in pull_hosted(hosted, "--output", Path.cwd() / "o", "--offline").stderr
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", 1, "is empty"),
        (b'{"metadata": {"dbt_schema_version"', 1, "ends after"),
        (b"<html>sign in</html>", 1, "is not JSON"),
    ],
)
def test_downloaded_file_that_is_not_a_manifest_is_rejected(
    hosted: ProtocolServer, body: bytes, code: int, message: str, tmp_path: Path
) -> None:
    pull_hosted(hosted, "-o", tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    hosted.uploads[2], hosted.verified[0] = body, 2
    done = pull_hosted(hosted, "-o", tmp_path / "out")
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".datapilot.lock",
        RECORD_FILE,
        "manifest.json",
    ]


def test_download_with_wrong_sha256_fails(hosted: ProtocolServer) -> None:
    answer = {
        "url": f"{hosted.url}/storage/1?signature=s3cret",
        "dbt_core_integration_file_id": 1,
        "sha256": "0" * 64,
    }
    hosted.answers["GET /dbt/v1/fetch_artifact_url"] = lambda _: Reply(answer)
    done = pull_hosted(hosted)
    assert done.exit_code == 5
    assert "was damaged on the way" in done.stderr
    assert "s3cret" not in done.output


def test_expired_signed_url_is_reported(hosted: ProtocolServer) -> None:
    answer = {"url": f"{hosted.url}/storage/1?signature=old", "dbt_core_integration_file_id": 1}
    hosted.answers["GET /dbt/v1/fetch_artifact_url"] = lambda _: Reply(answer)
    done = pull_hosted(hosted)
    assert done.exit_code == 3
    assert "signature" not in done.output


def test_rejected_token_fails_despite_cached_manifest(
    hosted: ProtocolServer,
) -> None:
    pull_hosted(hosted)
    wrong = {**hosted.access, "ALTIMATE_API_KEY": "wrong-token"}
    done = datapilot("dbt", "pull", "--integration-id", 7, "--json", env=wrong)
    assert done.exit_code == 3
    assert "wrong-token" not in done.output


def test_kind_missing_on_instance_is_removed(
    hosted: ProtocolServer, artifacts: Path, tmp_path: Path
) -> None:
    hosted.uploads[2] = (artifacts / "catalog.json").read_bytes()
    file_ids = {"manifest": 1, "catalog": 2}

    def answer(request: RecordedRequest) -> Reply:
        file_id = file_ids.get(request.query["artifact_type"])
        if file_id is None:
            return Reply({"detail": "Not Found"}, 404)
        url = f"{hosted.url}/storage/{file_id}?signature=s3cret"
        return Reply({"url": url, "dbt_core_integration_file_id": file_id})

    hosted.answers["GET /dbt/v1/fetch_artifact_url"] = answer
    done = pull_hosted(hosted, "-o", tmp_path / "out", "--kind", "catalog", "--kind", "manifest")
    assert (tmp_path / "out" / "catalog.json").exists(), done.output
    hosted.uploads[3], file_ids["manifest"] = hosted.uploads[1], 3
    del file_ids["catalog"]
    assert pull_hosted(hosted, "-o", tmp_path / "out").exit_code == 0
    assert not (tmp_path / "out" / "catalog.json").exists()


def test_manifest_of_unknown_age_is_too_old_for_any_limit(
    hosted: ProtocolServer, artifacts: Path
) -> None:
    content = json.loads((artifacts / "manifest.json").read_bytes())
    del content["metadata"]["generated_at"]
    hosted.uploads[1] = json.dumps(content).encode()
    done = pull_hosted(hosted)
    assert done.json["age_seconds"] is None
    assert "(of unknown age)" in done.stderr
    assert pull_hosted(hosted, "--max-age", "99w").exit_code == 1


def test_pull_of_other_kind_reports_its_name(hosted: ProtocolServer, artifacts: Path) -> None:
    hosted.uploads[1] = (artifacts / "catalog.json").read_bytes()
    done = pull_hosted(hosted, "--kind", "catalog")
    assert "Pulled: catalog of integration 7" in done.stderr
    assert done.json["age_seconds"] is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no shebang lines")
@pytest.mark.parametrize(
    ("version_output", "code"),
    [("installed: 1.5.0", 1), ("installed: 1.11.16", 0), ("nonsense", 0)],
)
def test_manifest_must_be_readable_by_dbt_on_path(
    hosted: ProtocolServer, version_output: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "dbt").write_text(f"#!/bin/sh\necho '{version_output}'\n", encoding="utf-8")
    (tmp_path / "dbt").chmod(0o755)
    done = pull_hosted(hosted, "-v")
    assert done.exit_code == code, done.output
    assert version_output != "nonsense" or "is not checked against a version of dbt" in done.stderr
    named = pull_hosted(hosted, "--dbt", tmp_path / "dbt")
    assert named.exit_code == (2 if version_output == "nonsense" else code)


def test_pull_works_on_file_system_without_locks(
    hosted: ProtocolServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    assert pull_hosted(hosted, "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "manifest.json").exists()


def test_manifest_cannot_control_terminal(
    hosted: ProtocolServer, artifacts: Path, tmp_path: Path
) -> None:
    evil = copy_with_metadata(
        artifacts / "manifest.json", tmp_path, dbt_version="1.11\x1b]0;owned\x07\x9b2J"
    )
    hosted.uploads[1] = evil.read_bytes()
    done = pull_hosted(hosted)
    assert done.exit_code == 0
    assert "written by dbt 1.11\ufffd]0;owned" in done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.output)


def test_removed_file_is_downloaded_again(hosted: ProtocolServer) -> None:
    directory = Path(pull_hosted(hosted).json["state_dir"])
    (directory / "manifest.json").unlink()
    assert pull_hosted(hosted).json["unchanged"] is False
    assert (directory / "manifest.json").exists()


def test_directory_instead_of_record_is_reported(hosted: ProtocolServer, tmp_path: Path) -> None:
    (tmp_path / "out" / RECORD_FILE).mkdir(parents=True)
    done = pull_hosted(hosted, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "cannot write to" in done.stderr
    assert not list((tmp_path / "out").glob("*.tmp"))
