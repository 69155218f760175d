"""The database of an instance, opened once and used in short transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy import Connection as Connection
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from datapilot_defer.errors import DatapilotError, Unavailable
from datapilot_defer.storage.schema_version import migrate

# Other transactions take milliseconds, so a longer wait indicates a fault.
_BUSY_TIMEOUT_S = 20
_DATABASE_FILE = "records.sqlite3"
_WAL_ATTEMPTS = 200
_WAL_RETRY_INTERVAL_S = 0.05


def utc_now() -> datetime:
    """Return the current UTC time as a timezone-aware datetime."""
    return datetime.now(UTC)


def inserted_id(result: Any) -> int:
    """Return the id of the row that an INSERT created."""
    return int(result.inserted_primary_key[0])


class Database:
    """An open database. `read` and `write` yield a connection in a transaction.

    migration: the numbers of the newest migration before and after opening. The first one is 0 for
    a new database.
    """

    def __init__(self, url: str | URL) -> None:
        self.migration = (0, 0)
        self._engine = create_engine(
            url, pool_size=40, max_overflow=20, pool_timeout=_BUSY_TIMEOUT_S
        )
        if make_url(url).get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that reads one snapshot.

        Raises Unavailable when the database does not respond.
        """
        with _as_unavailable(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection, and commit its changes unless the block raises an exception.

        Raises Unavailable when the database does not respond. SQLite permits no other writing
        transaction during the block.
        """
        with _as_unavailable(), self._engine.connect() as connection:
            writing = connection.execution_options(write=True)
            with writing.begin():
                yield writing

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def open_database(url: str | URL) -> Database:
    """Open the database at an SQLAlchemy URL and create or migrate its tables.

    Raises UsageError when the tables require a newer version of this program, and Unavailable when
    the database cannot be opened.
    """
    database = Database(url)
    try:
        with database.write() as connection:
            database.migration = migrate(connection)
    except DatapilotError:
        database.close()
        raise
    return database


def sqlite_url(directory: Path) -> URL:
    """Return the URL of the database in a data directory."""
    return URL.create("sqlite", database=str(directory.resolve() / _DATABASE_FILE))


def has_database(directory: Path) -> bool:
    """Return whether a data directory contains a database, without creating one."""
    return (directory / _DATABASE_FILE).is_file()


def database_files(directory: Path) -> list[Path]:
    """Return the existing files of the database in a data directory."""
    return sorted(directory.glob(f"{_DATABASE_FILE}*"))


def database_backups(directory: Path) -> list[Path]:
    """Return the files next to a database that look like backups, such as "records.backup"."""
    files = set(directory.glob(f"{Path(_DATABASE_FILE).stem}.*"))
    return sorted(files - set(database_files(directory)))


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (DataError, IntegrityError, ProgrammingError):
        raise  # bugs in this program, which a retry cannot fix
    except (DatabaseError, PoolTimeoutError) as error:
        reason = getattr(error, "orig", None) or "all connections are in use"
        raise Unavailable(f"the instance's database is unavailable: {reason}. Try again.") from None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Configure a connection: durable commits, enforced foreign keys, readers that never wait."""
    import sqlite3

    connection.isolation_level = None  # _begin_sqlite begins transactions instead of the driver
    try:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S * 1000}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        _enable_wal(connection)
    except sqlite3.Error:
        connection.close()
        raise


def _enable_wal(connection: Any) -> None:
    """Enable write-ahead logging. SQLite does not wait for the lock in this case, so retry."""
    import sqlite3

    for attempt in range(1, _WAL_ATTEMPTS + 1):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or attempt == _WAL_ATTEMPTS:
                raise
            time.sleep(_WAL_RETRY_INTERVAL_S)


def _begin_sqlite(connection: Connection) -> None:
    """Begin a transaction.

    A writer locks the database immediately, because a read transaction cannot be upgraded once
    another transaction has written.
    """
    statement = "BEGIN"
    if connection.get_execution_options().get("write", False):
        statement = "BEGIN IMMEDIATE"
    connection.exec_driver_sql(statement)
