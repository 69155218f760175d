"""The closer look that an instance takes at what was onboarded, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from datapilot_defer.artifact import Kind, parse_artifact
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance import ingestion, inspection
from datapilot_defer.instance.ingestion import IngestionWorker
from datapilot_defer.instance.inspection import Inspection, InspectionResult
from datapilot_defer.instance.model_changes import fingerprint_models
from datapilot_defer.instance.retention import apply_retention
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import ingestions, open_storage, retention, uploads
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.ingestions import IngestionStatus
from tests.support.instance_calls import (
    SECONDS,
    call,
    ended_ingestion,
    fetch,
    ingest,
    make_integration,
    manifest,
    onboard,
    show,
    upload,
    wait_until,
)
from tests.support.instances import RunningInstance, running_instance

PLACE = {"dbt_core_integration_environment_type": "PROD"}


def test_a_manifest_that_dbt_wrote_is_accepted(instance: RunningInstance, artifacts: Path) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, (artifacts / "manifest.json").read_bytes())
    assert ingest(instance, integration_id)["type"] == "Completed"
    assert show(instance, integration_id)["history"][0]["ingestion"] == "Completed"


def test_a_manifest_with_problems_fails_with_a_log_and_stays_current(
    instance: RunningInstance, artifacts: Path
) -> None:
    broken = json.loads((artifacts / "manifest.json").read_bytes())
    name = next(name for name in broken["nodes"] if name.startswith("model."))
    broken["nodes"][name]["config"] = "not a mapping"
    integration_id = make_integration(instance)
    file_id = onboard(instance, integration_id, json.dumps(broken).encode())
    ended = ingest(instance, integration_id)
    assert ended["type"] == "Failed"
    assert ended["log_file"].startswith(
        f"{instance.url}/settings/integrations/{integration_id}/PROD/ingestions/"
    )
    with instance.storage.database.read() as connection:
        (ingestion,) = ingestions.list_ingestions(connection, 1, limit=9)
    assert name in ingestion.log
    assert fetch(instance, integration_id).json()["dbt_core_integration_file_id"] == file_id


def test_what_changed_since_the_manifest_before_is_recorded(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest("same", "changed", "removed", body="select 1"))
    after = json.loads(
        manifest("same", "changed", "added", at="2026-11-22T11:00:00Z", body="select 1")
    )
    after["nodes"]["model.shop.changed"]["checksum"]["checksum"] = "select 2"
    file_id = onboard(instance, integration_id, json.dumps(after).encode())
    ingest(instance, integration_id)
    with instance.storage.database.read() as connection:
        file = uploads.find_upload(connection, file_id)
    assert file is not None
    assert json.loads(file.changes or "null") == {
        "added": 1,
        "removed": 1,
        "changed": 1,
        "names": {
            "added": ["shop.added"],
            "removed": ["shop.removed"],
            "changed": ["shop.changed"],
        },
    }


def test_nothing_uploaded_means_nothing_to_ingest(instance: RunningInstance) -> None:
    body = {**PLACE, "dbt_core_integration_id": make_integration(instance)}
    assert call(instance, "POST", "dbt/v1/start_dbt_ingestion", json=body).status_code == 404


def test_asking_twice_before_it_began_is_one_ingestion(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    with instance.storage.database.write() as connection:
        ids = {ingestions.enqueue(connection, 1) for _ in range(2)}
    assert len(ids) == 1


def test_an_ingestion_that_a_dead_instance_had_begun_is_taken_up_again(tmp_path: Path) -> None:
    with running_instance(tmp_path) as instance:
        integration_id = make_integration(instance)
        onboard(instance, integration_id, manifest())
    with running_instance(tmp_path) as again:
        with again.storage.database.write() as connection:
            ingestion_id = ingestions.enqueue(connection, 1)
            gone = {"status": IngestionStatus.IN_PROGRESS.value, "attempts": 1}
            _set(connection, ingestion_id, **gone, lease_until=utc_now() - timedelta(seconds=1))
        assert wait_until(lambda: ended_ingestion(again, integration_id))["type"] in (
            "Completed",
            "Failed",
        )


def test_an_ingestion_that_ended_the_instance_three_times_is_given_up(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    with instance.storage.database.write() as connection:
        ingestion_id = ingestions.enqueue(connection, 1)
        _set(connection, ingestion_id, attempts=3)
    assert wait_until(lambda: ended_ingestion(instance, integration_id))["type"] == "Failed"
    with instance.storage.database.read() as connection:
        ended = ingestions.find_ingestion(connection, 1, ingestion_id)
    assert ended is not None
    assert "interrupted 3 times" in ended.log


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every look take an hour."""
    monkeypatch.setattr(ingestion, "_LEASE_RENEWAL_S", 0.1)
    command = [sys.executable, "-c", "import time; time.sleep(3600)"]
    monkeypatch.setattr(inspection, "_child_command", lambda *_: command)


def inspect(file: Path, *, timeout_s: int, limit_bytes: int) -> InspectionResult:
    """Inspect a manifest until there is a result."""
    running = Inspection(file, Kind.MANIFEST, None, timeout_s=timeout_s, limit_bytes=limit_bytes)
    try:
        while True:
            result = running.wait(0.1)
            if result is not None:
                return result
    finally:
        running.kill()


@pytest.mark.usefixtures("endless")
def test_a_look_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    found = inspect(path, timeout_s=0, limit_bytes=1 << 40)
    assert found.lines == ["manifest.json: not looked through within 0 s"]


@pytest.mark.usefixtures("endless")
def test_a_look_ends_with_whoever_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    def fail(*_: object) -> None:
        raise Unavailable("the records are gone")

    class Noticed(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            begun.append(self)

    with running_instance(tmp_path) as instance:
        onboard(instance, make_integration(instance), manifest())
    monkeypatch.setattr(subprocess, "Popen", Noticed)
    monkeypatch.setattr(IngestionWorker, "_renew_lease", fail)
    with open_storage(tmp_path) as storage:
        with storage.database.write() as connection:
            ingestions.enqueue(connection, 1)
        with pytest.raises(Unavailable, match="the records are gone"):
            IngestionWorker(storage, InstanceSettings())._process_next()
    assert begun[0].returncode not in (0, None)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_instance_that_works_on_no_ingestions_any_more_is_not_ready(
    instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    monkeypatch.setattr(ingestion, "Inspection", fail)
    body = {**PLACE, "dbt_core_integration_id": integration_id}
    assert requests.get(f"{instance.url}/ready", timeout=SECONDS).status_code == 200
    assert call(instance, "POST", "dbt/v1/start_dbt_ingestion", json=body).status_code == 200

    def unready() -> tuple[int, str] | None:
        answer = requests.get(f"{instance.url}/ready", timeout=SECONDS)
        return (answer.status_code, answer.text) if answer.status_code != 200 else None

    status, text = wait_until(unready)
    assert status == 503
    assert "nothing works on ingestions" in text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_a_look_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    # The bytes fit. NaN makes Python's own parser decode them, and the text does not fit, too.
    path.write_bytes(b'{"nodes": {"a": NaN, "b": "' + b"x" * 300_000_000 + b'"}}')
    found = inspect(path, timeout_s=60, limit_bytes=400 << 20)
    assert found.lines == ["manifest.json: takes more memory than the instance grants"]


@pytest.mark.usefixtures("endless")
def test_an_instance_that_stops_gives_back_what_it_had_begun(tmp_path: Path) -> None:
    with running_instance(tmp_path) as instance:
        integration_id = make_integration(instance)
        onboard(instance, integration_id, manifest())
        body = {**PLACE, "dbt_core_integration_id": integration_id}
        call(instance, "POST", "dbt/v1/start_dbt_ingestion", json=body)
        wait_until(lambda: show(instance, integration_id)["history"][0]["ingestion"])
    with open_storage(tmp_path) as storage, storage.database.read() as connection:
        (left,) = ingestions.list_ingestions(connection, 1, limit=9)
    assert (left.status, left.attempts) == (IngestionStatus.QUEUED, 0)


def test_the_worker_sweeps_and_goes_on_when_it_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(ingestion, "_FIRST_RETENTION_S", 0.0)
    monkeypatch.setattr(ingestion, "_RETENTION_INTERVAL_S", 0.0)
    monkeypatch.setattr(ingestion, "_POLL_INTERVAL_S", 0.01)
    with running_instance(tmp_path, settings=InstanceSettings(grace=timedelta(0))) as instance:
        with monkeypatch.context() as patch:
            patch.setattr(ingestion, "apply_retention", fail)
            wait_until(lambda: "the disk is full" in caplog.text)
            with instance.storage.blobs.open_writer() as incoming:
                incoming.write(b"nobody's")
                sha256 = incoming.commit(1).sha256
        wait_until(lambda: not instance.storage.blobs.exists(1, sha256))


def test_a_look_says_what_it_found_as_one_json_object(
    tmp_path: Path,
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = artifacts / "manifest.json"
    (tmp_path / "previous.json").write_bytes(manifest("a"))
    for kind, previous in (
        ("manifest", tmp_path / "previous.json"),
        ("manifest", ""),
        ("catalog", ""),
    ):
        words = [str(path.with_name(f"{kind}.json")), kind, str(previous), str(1 << 50)]
        monkeypatch.setattr(sys, "argv", ["inspection", *words])
        inspection.main()
        found = json.loads(capsys.readouterr().out)
        assert found["accepted"]
        assert (found["changes"] is not None) == bool(previous)


def test_models_of_what_is_no_manifest_are_none() -> None:
    def fingerprints(content: bytes) -> dict[str, str]:
        read = parse_artifact(content, path="manifest.json", kind=Kind.MANIFEST)
        return fingerprint_models(read.sections)

    assert fingerprints(b"not JSON") == {}
    assert fingerprints(b'{"nodes": {"model.a.b": 1e999999, "test.a.c": {}}}').keys() == {
        "model.a.b"
    }


def test_a_look_that_dies_is_a_finding(tmp_path: Path) -> None:
    found = inspect(tmp_path / "gone.json", timeout_s=60, limit_bytes=1 << 40)
    assert not found.accepted
    assert "the inspection ended with 1" in found.lines[0]


def test_retention_keeps_the_newest_and_always_the_current_one(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    ids = [
        onboard(instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z"))
        for hour in range(5)
    ]
    path = f"dbt/v1/project_integrations/{integration_id}/PROD/restore"
    call(instance, "POST", path, json={"dbt_core_integration_file_id": ids[0]})
    apply_retention(instance.storage, InstanceSettings(keep_count=2, grace=timedelta(0)))
    kept = [
        each["dbt_core_integration_file_id"] for each in show(instance, integration_id)["history"]
    ]
    assert kept == [ids[4], ids[3], ids[0]]
    assert len([path for path in (instance.data / "blobs").rglob("*") if path.is_file()]) == 3
    apply_retention(
        instance.storage,
        InstanceSettings(keep_age=timedelta(0), grace=timedelta(0)),
    )
    assert [each["current"] for each in show(instance, integration_id)["history"]] == [True]
    assert (
        requests.get(fetch(instance, integration_id).json()["url"], timeout=SECONDS).status_code
        == 200
    )


def test_the_same_bytes_again_and_again_push_no_earlier_file_out(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    hours = (9, 10, 11, 12, 12, 12)
    ids = [
        onboard(instance, integration_id, manifest(at=f"2026-11-22T{hour:02}:00:00Z"))
        for hour in hours
    ]

    def kept_of(count: int) -> list[int]:
        with instance.storage.database.read() as connection:
            untidy = retention.environments_over_retention(connection, count=count, age=None)
        apply_retention(instance.storage, InstanceSettings(keep_count=count))
        left = [
            each["dbt_core_integration_file_id"]
            for each in show(instance, integration_id)["history"]
        ]
        assert bool(untidy) == (len(left) < len(ids))
        return left

    assert kept_of(4) == ids[::-1]
    assert kept_of(2) == ids[:1:-1]


def test_the_sweep_takes_what_nobody_needs_after_the_grace_period_only(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance)
    upload(instance, integration_id, manifest("never verified"))
    with instance.storage.blobs.open_writer() as incoming:
        incoming.write(b"without a record")
        incoming.commit(1)
    (instance.data / "blobs" / "incoming").mkdir(exist_ok=True)
    (instance.data / "blobs" / "incoming" / "killed#1").write_bytes(b"half")
    (instance.data / "blobs" / "incoming" / "left").write_bytes(b"whole")

    def blobs() -> int:
        return len([path for path in (instance.data / "blobs").rglob("*") if path.is_file()])

    apply_retention(instance.storage, InstanceSettings())
    assert blobs() == 4
    apply_retention(instance.storage, InstanceSettings(grace=timedelta(0)))
    assert blobs() == 0


def _set(connection: Any, ingestion_id: int, **values: Any) -> None:
    from datapilot_defer.storage.tables import ingestions as table

    connection.execute(table.update().where(table.c.id == ingestion_id).values(**values))
