"""Artifacts that retention removed, in queries by time and in restores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.retention import apply_retention
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import publications
from datapilot_defer.storage import retention as retention_records
from datapilot_defer.storage.publications import PublicationReason
from datapilot_defer.storage.uploads import Upload
from tests.support.commands import access, datapilot
from tests.support.instance_calls import call, fetch, make_integration, manifest, onboard, show
from tests.support.instances import RunningInstance
from tests.support.stored_uploads import UploadRecords, stored_uploads

KEEP_ONE = InstanceSettings(keep_count=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[UploadRecords]:
    """Yield a storage without uploads."""
    with stored_uploads(tmp_path / "data") as opened:
        yield opened


def restore(instance: RunningInstance, integration_id: int, file_id: int) -> int:
    """Restore a file and return the status code."""
    path = f"dbt/v1/project_integrations/{integration_id}/PROD/restore"
    body = {"dbt_core_integration_file_id": file_id}
    return call(instance, "POST", path, json=body).status_code


def publication_times(instance: RunningInstance, integration_id: int) -> list[str]:
    """Return the times of the publications, the newest first."""
    return [each["since"] for each in show(instance, integration_id)["publications"]]


def test_time_of_removed_artifact_is_not_found(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    ids = [
        onboard(instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z"))
        for hour in range(4)
    ]
    newest, _, second, first = publication_times(instance, integration_id)
    # Restoring the first file makes retention keep it, unlike the second.
    assert restore(instance, integration_id, ids[0]) == 200
    apply_retention(instance.storage, KEEP_ONE)
    by_time = fetch(instance, integration_id, at=second)
    assert by_time.status_code == 404
    assert by_time.json()["detail"] == (
        "retention removed the manifest that was current in PROD at "
        f"{second[:19]}Z. The history lists the files that are kept."
    )
    kept = [fetch(instance, integration_id, at=time).json() for time in (first, newest)]
    assert [each["dbt_core_integration_file_id"] for each in kept] == [ids[0], ids[3]]


def test_artifact_of_another_environment_does_not_replace_removed_one(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance, environment="DEV")
    onboard(instance, integration_id, manifest("dev"), environment="DEV")
    make_integration(instance, environment="PROD")
    for hour in range(2):
        onboard(instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z"))
    first = publication_times(instance, integration_id)[-1]
    apply_retention(instance.storage, KEEP_ONE)
    answer = fetch(instance, integration_id, at=first)
    assert answer.status_code == 404
    assert "current in PROD at" in answer.json()["detail"]


def test_pull_reports_artifact_removed_by_retention(
    instance: RunningInstance, artifacts: Path
) -> None:
    integration_id = make_integration(instance)
    content = (artifacts / "manifest.json").read_bytes()
    onboard(instance, integration_id, content)
    onboard(instance, integration_id, content + b" ")
    first = publication_times(instance, integration_id)[-1]
    apply_retention(instance.storage, KEEP_ONE)
    words = ("--integration-id", integration_id, "--at", first)
    done = datapilot("dbt", "pull", *words, env=access(instance))
    assert done.exit_code == 4
    assert "retention removed the manifest that was current in PROD at" in done.stderr
    history = "`datapilot dbt integrations history --integration-id 1 --environment PROD`"
    assert f"{history} lists the stored artifacts" in done.stderr


def test_time_before_first_upload_has_another_message(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    for hour in range(2):
        onboard(instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z"))
    apply_retention(instance.storage, KEEP_ONE)
    answer = fetch(instance, integration_id, at="2001-01-01")
    assert answer.status_code == 404
    expected = "integration 1 has no manifest at 2001-01-01T00:00:00Z"
    assert answer.json()["detail"] == expected


def test_consecutive_tombstones_are_merged(records: UploadRecords) -> None:
    first = records.add("1")
    records.add("2")
    records.add("3", kind=Kind.CATALOG)
    for content in "456":
        records.add(content)
    with records.storage.database.write() as connection:
        records.publish(connection, first, first.created_at)  # The first upload is current again.
    records.add("7")
    last = records.add("8")
    apply_retention(records.storage, KEEP_ONE)
    assert records.published_ids() == [None, 3, last.id]
    apply_retention(records.storage, KEEP_ONE)
    assert records.published_ids() == [None, 3, last.id]


@pytest.mark.parametrize("seed", range(30))
def test_query_by_time_equals_complete_history(
    records: UploadRecords, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Compare with a list of all publications, after deletions of random uploads in batches."""
    generator = random.Random(seed)
    monkeypatch.setattr(retention_records, "BATCH_SIZE", generator.choice([1, 2, 7]))
    complete = publish_at_random(records, generator)
    ids = sorted({upload.id for upload in complete})
    removed: set[int] = set()
    for _ in range(4):
        chosen = generator.sample(ids, generator.randrange(len(ids)))
        with records.storage.database.write() as connection:
            retention_records.delete_uploads(connection, records.environment_id, chosen)
        removed |= set(chosen) - {complete[-1].id}
    for number, upload in enumerate(complete):
        with records.storage.database.read() as connection:
            at = START + timedelta(hours=number, minutes=30)
            current = publications.find_current(
                connection, records.environment_id, Kind.MANIFEST, at=at
            )
            is_removed = publications.is_removed(
                connection, records.environment_id, Kind.MANIFEST, at=at
            )
        assert is_removed == (upload.id in removed)
        assert current == (None if is_removed else upload)
    published = records.published_ids()
    assert (None, None) not in pairwise(published)


def publish_at_random(records: UploadRecords, generator: random.Random) -> list[Upload]:
    """Upload or restore 40 times, one hour apart. Return the current upload of each hour."""
    complete: list[Upload] = []
    for hour in range(40):
        since = START + timedelta(hours=hour)
        if complete and generator.random() < 0.4:
            upload = generator.choice(complete)
            with records.storage.database.write() as connection:
                records.publish(connection, upload, since, PublicationReason.RESTORE)
        else:
            upload = records.add(str(hour), since=since)
        complete.append(upload)
    return complete


def test_order_of_publications_is_kept_if_clock_is_set_back(
    records: UploadRecords,
) -> None:
    records.add("1", since=START)
    second = records.add("2", since=START - timedelta(hours=1))
    with records.storage.database.read() as connection:
        before = publications.find_current(
            connection, records.environment_id, Kind.MANIFEST, at=START - timedelta(minutes=1)
        )
        after = publications.find_current(
            connection, records.environment_id, Kind.MANIFEST, at=START
        )
        (newest, _) = publications.list_publications(connection, records.environment_id, limit=5)
    assert before is None
    assert after is not None
    assert after.id == second.id
    assert newest.since == START


def test_restore_of_removed_file_reports_retention(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    first = onboard(instance, integration_id, manifest())
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    apply_retention(instance.storage, KEEP_ONE)
    path = f"dbt/v1/project_integrations/{integration_id}/PROD/restore"
    answer = call(instance, "POST", path, json={"dbt_core_integration_file_id": first})
    assert answer.status_code == 404
    assert answer.json()["detail"] == (
        f"integration 1 has no file {first}, or retention removed it. "
        "The history lists the files that are kept."
    )


def test_restore_of_current_file_changes_nothing(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    first = onboard(instance, integration_id, manifest())
    second = onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    assert restore(instance, integration_id, first) == 200
    before = show(instance, integration_id)
    assert restore(instance, integration_id, first) == 200
    after = show(instance, integration_id)
    assert before == after
    assert [each["reason"] for each in after["publications"]] == ["restore", "upload", "upload"]
    assert restore(instance, integration_id, second) == 200
    assert len(publication_times(instance, integration_id)) == 4
