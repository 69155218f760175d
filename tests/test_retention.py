"""Retention: what it keeps, and that neither writers nor failed steps are a problem."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests
from sqlalchemy import select

from datapilot_defer.artifact import Kind
from datapilot_defer.instance import background
from datapilot_defer.instance.background import BackgroundThread
from datapilot_defer.instance.last_used import LastUsed
from datapilot_defer.instance.retention import apply_retention
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import retention as retention_records
from datapilot_defer.storage import uploads
from datapilot_defer.storage.database import Database, utc_now
from datapilot_defer.storage.integrations import UploadCheck
from datapilot_defer.storage.retention import BATCH_SIZE
from datapilot_defer.storage.tables import files, tokens
from tests.support.instance_calls import (
    SECONDS,
    announce,
    call,
    fetch,
    make_integration,
    manifest,
    onboard,
    pull,
    show,
    upload,
    verify,
    wait_until,
)
from tests.support.instances import RunningInstance
from tests.support.stored_uploads import UploadRecords, stored_uploads

KEEP_ONE = InstanceSettings(keep_count=1)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[UploadRecords]:
    """Return a storage without uploads."""
    with stored_uploads(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def quick_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a sweep at once, and the next one right after it."""
    monkeypatch.setattr(background, "_FIRST_SWEEP_S", 0)
    monkeypatch.setattr(background, "_SWEEP_INTERVAL_S", 0)
    monkeypatch.setattr(background, "_TICK_S", 0.01)


def test_retention_keeps_the_newest_and_always_the_current_one(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    ids = [
        onboard(instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z"))
        for hour in range(5)
    ]
    path = f"dbt/v1/project_integrations/{integration_id}/PROD/restore"
    call(instance, "POST", path, json={"dbt_core_integration_file_id": ids[0]})
    apply_retention(instance.storage, InstanceSettings(keep_count=2, grace=timedelta(0)))
    assert history_ids(instance, integration_id) == [ids[4], ids[3], ids[0]]
    assert len(blob_files(instance.data)) == 3
    settings = InstanceSettings(keep_age=timedelta(0), grace=timedelta(0))
    apply_retention(instance.storage, settings)
    assert history_ids(instance, integration_id) == [ids[0]]
    url = fetch(instance, integration_id).json()["url"]
    assert requests.get(url, timeout=SECONDS).status_code == 200


def test_identical_uploads_displace_no_earlier_upload(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    ids = [
        onboard(instance, integration_id, manifest(at=f"2026-11-22T{hour:02}:00:00Z"))
        for hour in (9, 10, 11, 12, 12, 12)
    ]

    def kept_of(count: int) -> list[int]:
        with instance.storage.database.read() as connection:
            environments = retention_records.environments_over_retention(
                connection, count=count, age=None
            )
        apply_retention(instance.storage, InstanceSettings(keep_count=count))
        left = history_ids(instance, integration_id)
        assert bool(environments) == (len(left) < len(ids))
        return left

    assert kept_of(4) == ids[::-1]
    assert kept_of(2) == ids[:1:-1]


def test_each_kind_has_its_own_count_in_every_batch(
    records: UploadRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_records, "BATCH_SIZE", 3)
    kept = []
    for number in range(10):
        for kind in (Kind.MANIFEST, Kind.CATALOG):
            kept.append(records.add(f"{number}", kind=kind).id)
    apply_retention(records.storage, InstanceSettings(keep_count=2))
    with records.storage.database.read() as connection:
        history = uploads.list_history(connection, records.environment_id, limit=100)
    assert sorted(each.id for each, _ in history) == kept[-4:]


def test_other_transactions_run_between_the_batches(
    records: UploadRecords, quick_sweeps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_records, "BATCH_SIZE", 20)
    records.add_many(200)
    counts = set()
    with background_thread(records, KEEP_ONE):
        while verified_count(records) > 1:
            with records.storage.database.write() as connection:
                uploads.create_upload(
                    connection,
                    environment_id=records.environment_id,
                    token_id=records.token_id,
                    kind=Kind.CATALOG,
                )
            counts.add(verified_count(records))
    assert len([count for count in counts if 1 < count < 200]) > 3


def test_the_thread_stops_after_a_batch_and_the_next_sweep_continues(
    records: UploadRecords, quick_sweeps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_records, "BATCH_SIZE", 20)
    records.add_many(400)
    with background_thread(records, KEEP_ONE):
        wait_until(lambda: records.count() < 400)
    assert 1 < records.count() < 400
    apply_retention(records.storage, KEEP_ONE)
    assert records.count() == 1


def test_several_batches_are_deleted(records: UploadRecords) -> None:
    records.add_many(3 * BATCH_SIZE)
    apply_retention(records.storage, KEEP_ONE)
    assert records.count() == 1


def test_an_upload_that_became_current_meanwhile_is_kept(records: UploadRecords) -> None:
    old = records.add("1")
    new = records.add("2")
    with records.storage.database.write() as connection:
        records.publish(connection, old, new.created_at)
        retention_records.delete_uploads(connection, records.environment_id, [old.id, new.id])
        assert uploads.find_upload(connection, old.id) is not None
        assert uploads.find_upload(connection, new.id) is None


def test_uploads_that_were_announced_and_never_sent_are_deleted_soon(
    records: UploadRecords,
) -> None:
    with records.storage.database.write() as connection:
        sent, *announced = (
            uploads.create_upload(
                connection,
                environment_id=records.environment_id,
                token_id=records.token_id,
                kind=Kind.MANIFEST,
            )
            for _ in range(3)
        )
        uploads.mark_received(connection, sent, sha256="0" * 64, size_bytes=1)
        hours_ago = utc_now() - timedelta(hours=3, minutes=16)
        of_old = files.c.id != announced[1]
        connection.execute(files.update().where(of_old).values(created_at=hours_ago))
    apply_retention(records.storage, InstanceSettings())
    assert kept_of(records, sent, *announced) == [sent, announced[1]]


def test_rejected_uploads_are_kept_longer_than_unverified_ones(records: UploadRecords) -> None:
    with records.storage.database.write() as connection:
        announced, rejected = (
            uploads.create_upload(
                connection,
                environment_id=records.environment_id,
                token_id=records.token_id,
                kind=Kind.MANIFEST,
            )
            for _ in range(2)
        )
        uploads.mark_received(connection, rejected, sha256="0" * 64, size_bytes=1)
        uploads.mark_rejected(connection, rejected, [UploadCheck.SMALLER], "too small")
    settings = InstanceSettings(grace=timedelta(hours=1))
    apply_retention(records.storage, settings)
    assert kept_of(records, announced, rejected) == [announced, rejected]
    apply_retention(records.storage, replace(settings, grace=timedelta(0)))
    assert kept_of(records, announced, rejected) == [rejected]
    apply_retention(records.storage, replace(settings, rejected_grace=timedelta(0)))
    assert kept_of(records, announced, rejected) == []


def test_a_rejected_upload_can_be_accepted_after_the_grace_period(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest("a", "b", "c", "d"))
    rejected = manifest("a", at="2026-11-22T11:00:00Z")
    file_id = upload(instance, integration_id, rejected)
    assert verify(instance, file_id).status_code == 409
    apply_retention(instance.storage, InstanceSettings(grace=timedelta(0)))
    body = {"dbt_core_integration_file_id": file_id}
    assert call(instance, "POST", "dbt/v1/accept_upload", json=body).status_code == 200
    assert pull(instance, integration_id) == rejected


def test_an_upload_accepted_meanwhile_is_not_deleted(records: UploadRecords) -> None:
    accepted = records.add("1")
    with records.storage.database.write() as connection:
        retention_records.delete_unverified(connection, [accepted.id])
    assert records.count() == 1


def test_unreferenced_blobs_are_deleted_after_the_grace_period(instance: RunningInstance) -> None:
    upload(instance, make_integration(instance), manifest("never verified"))
    with instance.storage.blobs.open_writer() as writer:
        writer.write(b"without a record")
        writer.commit(1)
    incoming = instance.data / "blobs" / "incoming"
    incoming.mkdir(exist_ok=True)
    (incoming / "killed#1").write_bytes(b"part")
    (incoming / "left").write_bytes(b"complete")
    apply_retention(instance.storage, InstanceSettings())
    assert len(blob_files(instance.data)) == 4
    apply_retention(instance.storage, InstanceSettings(grace=timedelta(0)))
    assert blob_files(instance.data) == []


def test_a_failed_step_is_logged_and_the_others_run(
    records: UploadRecords, caplog: pytest.LogCaptureFixture
) -> None:
    records.add("1")
    records.add("2")
    with records.storage.blobs.open_writer() as writer:
        writer.write(b"without a record")
        writer.commit(1)
    data = damage_a_time(records)
    settings = InstanceSettings(keep_count=1, grace=timedelta(0))
    with caplog.at_level(logging.INFO, "datapilot_defer.instance"):
        apply_retention(records.storage, settings)
    (failure,) = caplog.records
    assert failure.getMessage() == "retention failed: ValueError. It will be repeated later."
    assert blob_files(data) == []


def test_unavailable_storage_is_logged_in_one_line_without_a_traceback(
    records: UploadRecords, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(records.storage.database)
    with closing(sqlite3.connect(data / "records.sqlite3")) as connection:
        connection.execute("ALTER TABLE environment RENAME TO moved")
    with caplog.at_level(logging.INFO, "datapilot_defer.instance"):
        apply_retention(records.storage, KEEP_ONE)
    assert [each.exc_info for each in caplog.records] == [None] * len(caplog.records)


def test_the_thread_survives_a_failure_and_repeats_the_step(
    records: UploadRecords, quick_sweeps: None, caplog: pytest.LogCaptureFixture
) -> None:
    records.add("1")
    records.add("2")
    data = damage_a_time(records)
    settings = InstanceSettings(keep_count=1, keep_age=timedelta(days=1))
    with background_thread(records, settings) as thread:
        wait_until(lambda: len(caplog.records) > 1)
        assert thread.is_alive
        with closing(sqlite3.connect(data / "records.sqlite3")) as connection:
            connection.execute("UPDATE file SET uploaded_at = created_at")
            connection.commit()
        wait_until(lambda: records.count() == 1)
    assert not thread.is_alive


def test_the_last_use_of_tokens_is_stored_during_a_sweep_and_at_the_end(
    records: UploadRecords, quick_sweeps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_records, "BATCH_SIZE", 1)
    monkeypatch.setattr(background, "_FLUSH_INTERVAL_S", 0)
    records.add_many(300)
    last_used = LastUsed()
    with background_thread(records, KEEP_ONE, last_used):
        wait_until(lambda: records.count() < 300)
        last_used.record(records.token_id)
        first = wait_until(lambda: stored_last_use(records))
        assert records.count() > 1
        last_used.record(records.token_id)
    assert stored_last_use(records) != first


def test_reading_writes_nothing(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    file_id = onboard(instance, integration_id, manifest())
    token = instance.new_token("read")
    with instance.storage.database.write():  # as long as this block holds the write lock
        for answer in (
            fetch(instance, integration_id, token),
            fetch(instance, integration_id, token, at="2026-11-22T10:00:00Z"),
            fetch(instance, integration_id, token, dbt_core_integration_file_id=file_id),
            call(instance, "GET", f"dbt/v1/project_integrations/{integration_id}/PROD"),
            call(instance, "GET", "dbt/v1/project_integrations"),
        ):
            assert answer.status_code in (200, 404)
            assert answer.elapsed < timedelta(seconds=10)
    assert announce(instance, integration_id).status_code == 200


@contextmanager
def background_thread(
    records: UploadRecords, settings: InstanceSettings, last_used: LastUsed | None = None
) -> Iterator[BackgroundThread]:
    """Run the thread until the end of the block."""
    thread = BackgroundThread(records.storage, settings, last_used or LastUsed())
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def stored_last_use(records: UploadRecords) -> datetime | None:
    with records.storage.database.read() as connection:
        return connection.scalar(
            select(tokens.c.last_used_at).where(tokens.c.id == records.token_id)
        )


def damage_a_time(records: UploadRecords) -> Path:
    """Store a text that is not a time, which no release writes; return the data directory."""
    data = data_of(records.storage.database)
    with closing(sqlite3.connect(data / "records.sqlite3")) as connection:
        connection.execute("UPDATE file SET uploaded_at = 'not a time' WHERE id = 1")
        connection.commit()
    return data


def data_of(database: Database) -> Path:
    with database.read() as connection:
        name = connection.engine.url.database
    assert name is not None
    return Path(name).parent


def verified_count(records: UploadRecords) -> int:
    with records.storage.database.read() as connection:
        return len(uploads.list_history(connection, records.environment_id, limit=10_000))


def kept_of(records: UploadRecords, *ids: int) -> list[int]:
    with records.storage.database.read() as connection:
        return [each for each in ids if uploads.find_upload(connection, each) is not None]


def history_ids(instance: RunningInstance, integration_id: int) -> list[int]:
    history = show(instance, integration_id)["history"]
    return [entry["dbt_core_integration_file_id"] for entry in history]


def blob_files(data: Path) -> list[Path]:
    return [path for path in (data / "blobs").rglob("*") if path.is_file()]
