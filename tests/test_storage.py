"""Guarantees of the records and the blob store."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import Unavailable
from datapilot_defer.storage import instances, integrations, publications, tokens, uploads
from datapilot_defer.storage.blobs import BlobStore, open_blobs
from datapilot_defer.storage.database import Database, open_database, sqlite_url, utc_now
from datapilot_defer.storage.publications import PublicationReason

OWNER = 1


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(sqlite_url(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return open_blobs(tmp_path / "blobs")


def keep(blobs: BlobStore, content: bytes) -> str:
    with blobs.open_writer() as incoming:
        incoming.write(content)
        return incoming.commit(OWNER).sha256


def test_a_blob_contains_the_written_bytes_and_is_identified_by_their_sha256(
    blobs: BlobStore,
) -> None:
    content = b"x" * 3_000_001
    sha256 = keep(blobs, content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert blobs.read(OWNER, sha256) == content
    assert blobs.read(OWNER, sha256, start=2_999_999, length=2) == b"xx"
    assert blobs.exists(OWNER, sha256)
    assert not blobs.exists(2, sha256)


def test_a_blob_can_be_empty(blobs: BlobStore) -> None:
    assert blobs.read(OWNER, keep(blobs, b"")) == b""


def test_bytes_that_are_not_committed_are_discarded(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.open_writer() as incoming:
        incoming.write(b"x" * 2_000_000)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def test_a_missing_blob_is_unavailable(blobs: BlobStore) -> None:
    with pytest.raises(Unavailable, match="blob store is unavailable"):
        blobs.read(OWNER, "0" * 64)


def test_a_blob_can_be_deleted_twice(blobs: BlobStore) -> None:
    sha256 = keep(blobs, b"once")
    blobs.delete(OWNER, sha256)
    blobs.delete(OWNER, sha256)
    assert not blobs.exists(OWNER, sha256)


def test_identical_bytes_refresh_the_time_of_a_blob(blobs: BlobStore, tmp_path: Path) -> None:
    sha256 = keep(blobs, b"again")
    os.utime(next(tmp_path.rglob(sha256)), (0, 0))
    (old,) = blobs.list_blobs()
    keep(blobs, b"again")
    (entry,) = blobs.list_blobs()
    assert (entry.instance_id, entry.blob.sha256, entry.blob.size_bytes) == (OWNER, sha256, 5)
    assert old.stored_at < utc_now() - timedelta(hours=1) < entry.stored_at


def test_a_file_that_is_not_a_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite3").write_bytes(
        b"not a database, but long enough to be looked at" * 100
    )
    with pytest.raises(Unavailable, match="database is unavailable"):
        open_database(sqlite_url(tmp_path))


def test_a_block_that_raises_changes_nothing(records: Database) -> None:
    def change() -> None:
        with records.write() as connection:
            instances.create_instance(connection, "acme")
            raise KeyError

    with pytest.raises(KeyError):
        change()
    with records.read() as connection:
        assert instances.list_instance_names(connection) == []


def test_timestamps_of_any_time_zone_are_returned_unchanged(records: Database) -> None:
    moment = datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=5)))
    with records.write() as connection:
        owner = instances.create_instance(connection, "acme")
        token = tokens.create_token(
            connection,
            owner.id,
            name="t",
            sha256="0" * 64,
            scopes=frozenset({"read"}),
            expires_at=moment,
        )
    assert token.expires_at == moment
    assert token.expires_at.utcoffset() == timedelta(0)


def test_many_concurrent_writers_succeed(records: Database) -> None:
    with records.write() as connection:
        owner = instances.create_instance(connection, "acme")

    def write(number: int) -> None:
        for turn in range(5):
            with records.write() as connection:
                name = f"{number} {turn}"
                assert integrations.find_integration_by_name(connection, owner.id, name) is None
                integrations.create_integration(
                    connection, owner.id, name=name, integration_type="dbt_core"
                )

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with records.read() as connection:
        assert len(integrations.list_integrations(connection, owner.id)) == 40


def test_a_token_for_one_integration_is_never_admin_even_with_that_scope(
    records: Database,
) -> None:
    with records.write() as connection:
        owner = instances.create_instance(connection, "acme")
        integration = integrations.create_integration(
            connection, owner.id, name="shop", integration_type="dbt_core"
        )
        scopes = frozenset({"admin"})
        bound = tokens.create_token(
            connection,
            owner.id,
            name="t",
            sha256="0" * 64,
            scopes=scopes,
            integration_id=integration.id,
        )
    assert not bound.permits("admin")
    assert not bound.permits("admin", integration.id)
    assert not bound.permits("upload", integration.id + 1)
    assert bound.permits("upload", integration.id)


def test_a_search_treats_wildcards_as_plain_text(records: Database) -> None:
    with records.write() as connection:
        owner = instances.create_instance(connection, "acme")
        for name in ("100% sales", "1000 sales", "Sales_eu"):
            integrations.create_integration(
                connection, owner.id, name=name, integration_type="dbt_core"
            )
        names = [
            each.name
            for each in integrations.list_integrations(connection, owner.id, name_contains="100%")
        ]
        assert names == ["100% sales"]
        assert (
            len(
                integrations.list_integrations(connection, owner.id, name_contains="sALES", limit=2)
            )
            == 2
        )


def test_the_current_file_is_the_newest_publication_at_a_time(
    records: Database,
) -> None:
    with records.write() as connection:
        owner = instances.create_instance(connection, "acme")
        token = tokens.create_token(
            connection, owner.id, name="t", sha256="0" * 64, scopes=frozenset({"admin"})
        )
        integration = integrations.create_integration(
            connection, owner.id, name="shop", integration_type="dbt_core"
        )
        integrations.add_environment(connection, integration.id, "PROD")
        stored = integrations.find_integration(connection, owner.id, integration.id)
        assert stored is not None
        environment = stored.environments[0]
        moments = [utc_now() + timedelta(hours=hour) for hour in range(3)]
        ids = []
        for moment in moments:
            file_id = uploads.create_upload(
                connection, environment_id=environment.id, token_id=token.id, kind=Kind.MANIFEST
            )
            uploads.mark_received(connection, file_id, sha256="0" * 64, size_bytes=1)
            uploads.mark_verified(connection, file_id, moment)
            file = uploads.find_upload(connection, file_id)
            assert file is not None
            publications.make_current(
                connection,
                file,
                since=moment,
                reason=PublicationReason.UPLOAD,
                token_id=token.id,
            )
            ids.append(file_id)
        current = publications.find_current(connection, environment.id, Kind.MANIFEST)
        before = publications.find_current(connection, environment.id, Kind.MANIFEST, at=moments[1])
        assert current is not None
        assert before is not None
        assert (current.id, before.id) == (ids[2], ids[1])
        assert not uploads.mark_received(connection, ids[0], sha256="1" * 64, size_bytes=1)


def test_a_bug_is_not_reported_as_an_unavailable_database(records: Database) -> None:
    def make_twice() -> None:
        with records.write() as connection:
            for _ in range(2):
                instances.create_instance(connection, "acme")

    with pytest.raises(IntegrityError):
        make_twice()
