"""Queries of requests use an index, so that they are fast with a million uploads too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from datapilot_defer.artifact import Kind
from datapilot_defer.storage import audit, overviews, publications, quota, retention, uploads
from datapilot_defer.storage.database import Connection
from tests.support.stored_uploads import UploadRecords, stored_uploads

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[UploadRecords]:
    """Return a storage with two uploads."""
    with stored_uploads(tmp_path / "data") as opened:
        opened.add("1", since=NOON)
        opened.add("2")
        yield opened


@contextmanager
def recorded_statements() -> Iterator[list[tuple[str, Any]]]:
    """Record each statement and its parameters."""
    statements: list[tuple[str, Any]] = []

    def record(
        connection: Any, cursor: Any, statement: str, parameters: Any, *_more: object
    ) -> None:
        statements.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", record)


QUERIES: dict[str, Callable[[Connection], object]] = {
    "list_history": partial(uploads.list_history, environment_id=1, limit=100),
    "list_history with rejected ones": partial(
        uploads.list_history, environment_id=1, limit=100, include_rejected=True
    ),
    "list_history_of_kind": partial(
        overviews.list_history_of_kind, environment_id=1, kind=Kind.MANIFEST, limit=100
    ),
    "list_publications of a kind": partial(
        publications.list_publications, environment_id=1, kind=Kind.MANIFEST, limit=100
    ),
    "list_current_manifests": partial(overviews.list_current_manifests, environment_ids=[1, 2]),
    "list_publications": partial(publications.list_publications, environment_id=1, limit=100),
    "list_current": partial(publications.list_current, environment_id=1),
    "find_current": partial(publications.find_current, environment_id=1, kind=Kind.MANIFEST),
    "find_current at a time": partial(
        publications.find_current, environment_id=1, kind=Kind.MANIFEST, at=NOON
    ),
    "is_removed": partial(publications.is_removed, environment_id=1, kind=Kind.MANIFEST, at=NOON),
    "find_last_unpublished": partial(
        uploads.find_last_unpublished, environment_id=1, token_id=1, kind=Kind.MANIFEST
    ),
    "list_events": partial(audit.list_events, instance_id=1, limit=50, before_id=9),
    "find_stored_bytes": partial(quota.find_stored_bytes, instance_id=1),
    "is_blob_referenced": partial(retention.is_blob_referenced, instance_id=1, sha256="0" * 64),
    "read_batch": retention.ExpiredUploads(1, 1, None).read_batch,
    "delete_uploads": partial(retention.delete_uploads, environment_id=1, ids=[1]),
}


def plan_of(connection: Connection, query: str) -> list[str]:
    """Run a query and return the steps of its statements."""
    with recorded_statements() as statements:
        QUERIES[query](connection)
    return [
        row.detail
        for statement, parameters in statements
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_neither_scans_nor_sorts(records: UploadRecords, query: str) -> None:
    with records.storage.database.write() as connection:
        steps = plan_of(connection, query)
    assert steps
    slow = [step for step in steps if "TEMP B-TREE" in step or step.startswith("SCAN")]
    # These statements read no table.
    assert [step for step in slow if "CONSTANT ROW" not in step] == []


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_does_not_read_announcements(records: UploadRecords, query: str) -> None:
    """A token can announce any number of uploads without sending any."""
    with records.storage.database.write() as connection:
        few = instructions_of(connection, query)
        for _ in range(2000):
            uploads.create_upload(
                connection,
                environment_id=records.environment_id,
                token_id=records.token_id,
                kind=Kind.MANIFEST,
            )
        assert instructions_of(connection, query) <= few + 500


def instructions_of(connection: Connection, query: str) -> int:
    """Run a query and return how many instructions SQLite executes, in hundreds."""
    counted = []
    database = connection.connection.driver_connection
    assert isinstance(database, sqlite3.Connection)
    database.set_progress_handler(lambda: counted.append(100), 100)
    QUERIES[query](connection)
    database.set_progress_handler(None, 100)
    return sum(counted)


@pytest.mark.parametrize(
    "query", ["list_current", "find_current at a time", "find_last_unpublished"]
)
def test_a_query_searches_by_all_columns_that_limit_it(records: UploadRecords, query: str) -> None:
    """A search by the environment alone would read all its uploads."""
    with records.storage.database.read() as connection:
        steps = plan_of(connection, query)
    searches = [step for step in steps if "environment_id=?" in step]
    assert searches
    assert [step for step in searches if "kind=?" not in step] == []
