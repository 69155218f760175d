"""`datapilot instance migrate`: migrates a database without serving it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from datapilot_defer.storage.schema_version import NEWEST_MIGRATION
from tests.support.commands import datapilot
from tests.support.instances import running_instance

DATABASES = Path(__file__).parent / "artifacts" / "databases"
FILE_NAME = "records.sqlite3"


def query(directory: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a data directory with the database of release 0.1.0."""
    directory = tmp_path / "old"
    directory.mkdir()
    dump = (DATABASES / "0001.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        connection.executescript(dump)
    return directory


def test_a_database_of_0_1_0_is_migrated_once(old: Path) -> None:
    integrations = query(old, "SELECT id, name FROM integration")
    first = datapilot("instance", "migrate", "--data", old)
    assert first.exit_code == 0
    assert first.stdout == f"Migrated the database from migration 0001 to {NEWEST_MIGRATION:04}.\n"
    second = datapilot("instance", "migrate", "--data", old)
    assert second.exit_code == 0
    assert second.stdout == f"The database is already at migration {NEWEST_MIGRATION:04}.\n"
    assert query(old, "SELECT id, name FROM integration") == integrations
    assert query(old, "SELECT count(*) FROM audit") == [(0,)]
    with running_instance(old, "acme") as instance:
        assert instance.storage.database.migration == (NEWEST_MIGRATION, NEWEST_MIGRATION)


def test_the_json_contains_the_migration_numbers(old: Path) -> None:
    expected = {"ok": True, "migrated_from": 1, "migrated_to": NEWEST_MIGRATION}
    assert datapilot("instance", "migrate", "--data", old, "--json").json == expected
    expected = {"ok": True, "migrated_from": NEWEST_MIGRATION, "migrated_to": NEWEST_MIGRATION}
    assert datapilot("instance", "migrate", "--data", old, "--json").json == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE schema_version SET version = 7", "unknown schema version 7"),
        ("UPDATE schema_version SET version = 'x'", "unknown schema version 'x'"),
    ],
)
def test_a_database_of_an_unknown_version_is_not_changed(
    old: Path, change: str, message: str
) -> None:
    query(old, change)
    tables = query(old, "SELECT name FROM sqlite_master ORDER BY name")
    done = datapilot("instance", "migrate", "--data", old)
    assert done.exit_code == 2
    assert message in done.stderr
    assert query(old, "SELECT name FROM sqlite_master ORDER BY name") == tables


def test_a_database_that_requires_a_newer_program_is_not_changed(old: Path) -> None:
    datapilot("instance", "migrate", "--data", old)
    query(old, "UPDATE schema_version SET compatible_from = 99")
    done = datapilot("instance", "migrate", "--data", old)
    assert done.exit_code == 2
    assert "requires migration 99" in done.stderr


def test_a_compatible_database_of_a_newer_program_is_up_to_date(old: Path) -> None:
    datapilot("instance", "migrate", "--data", old)
    query(old, "UPDATE alembic_version SET version_num = '0099'")
    done = datapilot("instance", "migrate", "--data", old)
    assert done.exit_code == 0
    assert done.stdout == "The database is already at migration 0099.\n"


def test_a_file_that_is_not_a_database_is_reported(old: Path) -> None:
    (old / FILE_NAME).write_bytes(b"not a database, but long enough to be read as one" * 100)
    done = datapilot("instance", "migrate", "--data", old)
    assert done.exit_code == 5
    assert "file is not a database" in done.stderr
