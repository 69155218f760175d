"""The records of an instance: a database, opened once and used by short transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from datapilot_defer.errors import DatapilotError, Unavailable
from datapilot_defer.storage import tables

# Somebody else writes for milliseconds; past this many seconds something is wrong.
_BUSY_SECONDS = 20
_DATABASE = "records.sqlite3"


def utc_now() -> datetime:
    """Give this moment, aware and in UTC."""
    return datetime.now(UTC)


class Database:
    """An open database. `read` and `write` give a connection inside a transaction; the functions beside take it."""

    def __init__(self, url: str | URL) -> None:
        self._sqlite = make_url(url).get_backend_name() == "sqlite"
        self._engine = create_engine(url, pool_size=40, max_overflow=20, pool_timeout=_BUSY_SECONDS)
        if self._sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read what one moment held. Raises Unavailable when the database does not answer."""
        with _as_unavailable(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Change everything or, when the block raises, nothing. Raises Unavailable as `read` does."""
        with _as_unavailable(), self._engine.connect() as connection:
            connection = connection.execution_options(write=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()


def open_database(url: str | URL) -> Database:
    """Open the database at an SQLAlchemy URL, making or updating its tables.

    Raises UsageError when the tables belong to a newer program, Unavailable when it can't be opened.
    """
    records = Database(url)
    try:
        with records.write() as connection:
            tables.migrate(connection)
    except DatapilotError:
        records.close()
        raise
    return records


def sqlite_url(folder: Path) -> Database:
    """Open the database of a data folder; raises as `open_records` does."""
    return open_database(URL.create("sqlite", database=str(folder.resolve() / _DATABASE)))


def has_database(folder: Path) -> bool:
    """Whether a data folder holds a database; makes nothing."""
    return (folder / _DATABASE).is_file()


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (DataError, IntegrityError, ProgrammingError):
        raise  # ours to mend: trying again would not help
    except (DatabaseError, PoolTimeoutError) as error:
        reason = getattr(error, "orig", None) or "too many wait for them"
        raise Unavailable(
            f"the instance's records can't be used now: {reason}; try again"
        ) from None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Set SQLite so that what was committed survives a power cut, readers never wait and foreign keys hold."""
    import sqlite3

    connection.isolation_level = None  # transactions are begun below, not by the driver
    try:
        for pragma in (
            f"busy_timeout={_BUSY_SECONDS * 1000}",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        _enable_wal(connection)
    except sqlite3.Error:
        connection.close()
        raise


def _enable_wal(connection: Any) -> None:
    """Turn on write-ahead logging; SQLite does not wait for its lock here, so this does."""
    import sqlite3

    for attempt in range(200):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if attempt == 199:
                raise
            time.sleep(0.05)


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once when it will be needed: a reader that becomes a writer may be refused it."""
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
