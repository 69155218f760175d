"""Times of last use of tokens, which are stored later so that no response waits for a write."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from datapilot_defer.instance.last_used import LastUsed
from datapilot_defer.instance.services import tokens
from datapilot_defer.storage import Storage, open_storage
from datapilot_defer.storage.audit import Actor
from tests.support.instance_calls import call, fetch, make_integration, manifest, onboard
from tests.support.instances import RunningInstance, create_instance, running_instance

# The busy timeout of the database is 20 seconds.
FAR_BELOW_BUSY_TIMEOUT = timedelta(seconds=10)
_HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def write_lock(data: Path) -> Iterator[None]:
    """Hold the write lock of a database in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, data / "records.sqlite3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(tmp_path) as storage:
        create_instance(storage, "acme")
        yield storage


def last_used(storage: Storage) -> list[datetime | None]:
    """Return the times of last use of the tokens, the oldest token first."""
    return [token.last_used_at for _, token in tokens.list_tokens(storage, "acme")][::-1]


def test_flush_stores_times_of_use(storage: Storage) -> None:
    for name in ("two", "three"):
        tokens.create_token(
            storage, "acme", name=name, scopes=frozenset({"read"}), actor=Actor("test")
        )
    buffer = LastUsed()
    begin = datetime.now(UTC)
    buffer.record(1)
    buffer.record(3)
    assert last_used(storage) == [None, None, None]
    buffer.flush(storage)
    first, second, third = last_used(storage)
    assert first is not None
    assert third is not None
    assert begin <= first <= third <= datetime.now(UTC)
    assert second is None
    buffer.record(999)  # A token that no longer exists.
    buffer.flush(storage)
    assert last_used(storage) == [first, None, third]


def test_flush_without_use_writes_nothing(storage: Storage, tmp_path: Path) -> None:
    with write_lock(tmp_path):
        LastUsed().flush(storage)


def test_times_that_could_not_be_stored_are_kept(storage: Storage) -> None:
    buffer = LastUsed()
    begin = datetime.now(UTC)
    buffer.record(1)
    with storage.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE token RENAME TO hidden")
    buffer.flush(storage)
    with storage.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE hidden RENAME TO token")
    buffer.flush(storage)
    (moment,) = last_used(storage)
    assert moment is not None
    assert moment >= begin


def test_threads_record_during_flush(storage: Storage) -> None:
    for number in range(20):
        tokens.create_token(
            storage, "acme", name=str(number), scopes=frozenset({"read"}), actor=Actor("test")
        )
    buffer = LastUsed()
    recorders = [threading.Thread(target=record_often, args=(buffer,)) for _ in range(4)]
    for thread in recorders:
        thread.start()
    while any(thread.is_alive() for thread in recorders):
        buffer.flush(storage)
    buffer.flush(storage)
    assert None not in last_used(storage)


def record_often(buffer: LastUsed) -> None:
    for _ in range(200):
        for token_id in range(1, 22):
            buffer.record(token_id)


def test_reads_do_not_wait_for_write_lock_of_other_process(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_instance(data) as instance:
        onboard(instance, make_integration(instance), manifest())
        reader = instance.new_token("read")
        begin = time.monotonic()
        with write_lock(data):
            read_everything(instance, reader)
        assert time.monotonic() - begin < FAR_BELOW_BUSY_TIMEOUT.total_seconds()
    with open_storage(data) as storage:
        assert None not in last_used(storage)


def read_everything(instance: RunningInstance, token: str) -> None:
    assert call(instance, "GET", "dbt/v1/project_integrations", token=token).status_code == 200
    assert (
        call(instance, "GET", "dbt/v1/project_integrations/1/PROD", token=token).status_code == 200
    )
    assert call(instance, "POST", "auth_health", token=token).status_code == 200
    assert fetch(instance, 1, token=token).status_code == 200
