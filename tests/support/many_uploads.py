"""Fill the SQLite database of a stopped instance with any number of integrations and uploads.

This works for the tables of every release. Columns that a database lacks are omitted. Columns that
are not named here stay NULL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

# `n` is the number of the row.
_NUMBERS = "WITH RECURSIVE numbers(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"


def add_integrations(data: Path, count: int) -> None:
    """Add integrations 1 to `count` to instance 1. Each has an environment PROD of the same id."""
    created = f"'{_timestamp(timedelta())}'"
    integrations = {
        "id": "n",
        "instance_id": "1",
        "name": "'warehouse ' || n",
        "name_key": "'warehouse ' || n",
        "integration_type": "'dbt_core'",
        "created_at": created,
        "last_modified_at": created,
    }
    environments = {
        "id": "n",
        "integration_id": "n",
        "name": "'PROD'",
        "folded": "'prod'",
        "created_at": created,
    }
    with closing(_connect(data)) as connection:
        _insert(connection, "integration", integrations, count)
        _insert(connection, "environment", environments, count)
        connection.commit()


def add_uploads(
    data: Path, count: int, *, environments: int = 1, uploaded_ago: timedelta = timedelta()
) -> None:
    """Add verified manifests to environments 1 to `environments`, each with one publication.

    Their blobs do not exist. uploaded_ago: the age of the uploads.
    """
    uploaded = f"'{_timestamp(uploaded_ago)}'"
    environment = f"1 + n % {environments}"
    files = {
        "id": "n",
        "environment_id": environment,
        "token_id": "1",
        "kind": "'manifest'",
        "created_at": uploaded,
        "uploaded_at": uploaded,
        "sha256": "printf('%064x', n)",
        "size_bytes": "655081",
        "dbt_version": "'1.11.16'",
        "schema_version": "12",
        "project_name": "'shop'",
        "node_count": "40",
        "model_count": "6",
        "models_added": "0",
        "models_removed": "0",
        "models_changed": "1",
        "generated_at": uploaded,
    }
    publications = {
        "environment_id": environment,
        "kind": "'manifest'",
        "file_id": "n",
        "since": uploaded,
        "token_id": "1",
        "reason": "'upload'",
    }
    with closing(_connect(data)) as connection:
        _insert(connection, "file", files, count)
        _insert(connection, "publication", publications, count)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def count_uploads(data: Path, environment_id: int) -> int:
    """Return the number of uploads of an environment."""
    query = "SELECT count(*) FROM file WHERE environment_id = ?"
    with closing(_connect(data)) as connection:
        return int(connection.execute(query, [environment_id]).fetchone()[0])


def database_file(data: Path) -> Path:
    """Return the SQLite database of a data directory."""
    return next(data.glob("*.sqlite3"))


def _connect(data: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database_file(data), timeout=60)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def _insert(
    connection: sqlite3.Connection, table: str, expressions: Mapping[str, str], count: int
) -> None:
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    present = {name: text for name, text in expressions.items() if name in columns}
    names = ", ".join(f'"{name}"' for name in present)
    values = ", ".join(present.values())
    statement = f"INSERT INTO {table} ({names}) {_NUMBERS} SELECT {values} FROM numbers"
    connection.execute(statement, [1, count])


def _timestamp(ago: timedelta) -> str:
    return f"{datetime.now(UTC) - ago:%Y-%m-%d %H:%M:%S.%f}"
