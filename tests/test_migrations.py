"""Databases of earlier and later releases."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from datapilot_defer.errors import Unavailable, UsageError
from datapilot_defer.storage import audit, integrations, open_storage, publications, uploads
from datapilot_defer.storage.database import open_database, sqlite_url
from datapilot_defer.storage.schema_version import NEWEST_MIGRATION

DATABASES = Path(__file__).parent / "artifacts" / "databases"
FILE_NAME = "records.sqlite3"
# A dump of each release's database, by the number of its newest migration.
earlier_release = pytest.mark.parametrize("dump", sorted(DATABASES.glob("*.sql")), ids=str)


def restore(dump: Path, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        connection.executescript(dump.read_text(encoding="utf-8"))


def execute(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / FILE_NAME, isolation_level=None)) as connection:
        connection.execute(statement)


def query(directory: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        return connection.execute(statement).fetchall()


def describe_tables(directory: Path) -> dict[str, object]:
    """Return columns, indexes and foreign keys of each table, regardless of their order."""
    engine = create_engine(sqlite_url(directory))
    inspector = inspect(engine)
    tables: dict[str, object] = {}
    for name in inspector.get_table_names():
        columns = {
            column["name"]: (str(column["type"]), column["nullable"])
            for column in inspector.get_columns(name)
        }
        indexes = {
            str(index["name"]): (
                index["column_names"],
                index["unique"],
                str(index.get("dialect_options", {}).get("sqlite_where")),
            )
            for index in inspector.get_indexes(name)
        }
        unique = sorted(str(key["column_names"]) for key in inspector.get_unique_constraints(name))
        foreign_keys = sorted(
            f"{key['constrained_columns']} {key['referred_table']}"
            for key in inspector.get_foreign_keys(name)
        )
        tables[name] = (columns, indexes, unique, foreign_keys)
    engine.dispose()
    return tables


def test_the_newest_migration_is_the_one_that_the_program_expects() -> None:
    config = Config()
    config.set_main_option("script_location", "datapilot_defer.storage:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == f"{NEWEST_MIGRATION:04}"


@earlier_release
def test_a_migrated_database_has_the_tables_of_a_new_one(dump: Path, tmp_path: Path) -> None:
    restore(dump, tmp_path / "old")
    (tmp_path / "new").mkdir()
    for name in ("old", "new"):
        open_database(sqlite_url(tmp_path / name)).close()
    assert describe_tables(tmp_path / "old") == describe_tables(tmp_path / "new")


@earlier_release
def test_migration_loses_no_record(dump: Path, tmp_path: Path) -> None:
    restore(dump, tmp_path)
    names = [row[0] for row in query(tmp_path, "SELECT name FROM sqlite_master WHERE type='table'")]
    before = {name: query(tmp_path, f"SELECT count(*) FROM {name}") for name in names}
    open_database(sqlite_url(tmp_path)).close()
    after = {name: query(tmp_path, f"SELECT count(*) FROM {name}") for name in names}
    assert after == before


@earlier_release
def test_a_migrated_database_works(dump: Path, tmp_path: Path) -> None:
    restore(dump, tmp_path)
    with open_storage(tmp_path) as storage:
        with storage.database.read() as connection:
            first, second = integrations.list_integrations(connection, 1)
            current = publications.list_current(connection, first.environments[0].id)
            history = uploads.list_history(connection, first.environments[0].id, limit=10)
        with storage.database.write() as connection:
            audit.record_event(connection, 1, audit.Actor("test"), audit.AuditAction.TOKEN_CREATED)
    assert sorted([first.name, second.name]) == ["Shop", "shop"]
    assert [upload.id for upload in current] == [2]
    assert [upload.id for upload, _ in history] == [2, 1]


def test_a_database_of_release_0_1_0_gets_keys_of_names_and_numbers_of_models(
    tmp_path: Path,
) -> None:
    restore(DATABASES / "0001.sql", tmp_path)
    execute(tmp_path, "UPDATE file SET changes = NULL WHERE id = 1")
    changes = json.dumps({"added": 3, "removed": 2, "changed": 1, "names": {}})
    execute(tmp_path, f"UPDATE file SET changes = '{changes}' WHERE id = 2")
    open_database(sqlite_url(tmp_path)).close()
    # Names that differ only in case are not changed. The older one is found by its key.
    assert query(tmp_path, "SELECT name, name_key FROM integration ORDER BY id") == [
        ("shop", "shop"),
        ("Shop", None),
    ]
    counts = "SELECT models_added, models_removed, models_changed FROM file ORDER BY id"
    assert query(tmp_path, counts) == [(None, None, None), (3, 2, 1)]


def test_changes_of_any_size_that_release_0_1_0_stored_are_dropped(tmp_path: Path) -> None:
    restore(DATABASES / "0001.sql", tmp_path)
    huge = json.dumps({"added": 1, "removed": 0, "changed": 0, "names": {"added": ["x" * 70_000]}})
    execute(tmp_path, f"UPDATE file SET changes = '{huge}' WHERE id = 2")
    open_database(sqlite_url(tmp_path)).close()
    assert query(tmp_path, "SELECT changes FROM file WHERE id = 2") == [(None,)]


def test_changes_that_cannot_be_read_have_no_numbers(tmp_path: Path) -> None:
    restore(DATABASES / "0001.sql", tmp_path)
    execute(tmp_path, "UPDATE file SET changes = 'not JSON' WHERE id = 2")
    open_database(sqlite_url(tmp_path)).close()
    assert query(tmp_path, "SELECT models_added FROM file WHERE id = 2") == [(None,)]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    restore(DATABASES / "0001.sql", tmp_path)
    execute(tmp_path, "ALTER TABLE file ADD COLUMN report TEXT")
    before = describe_tables(tmp_path)
    with pytest.raises(Unavailable, match="duplicate column"):
        open_database(sqlite_url(tmp_path))
    assert describe_tables(tmp_path) == before


def test_a_database_is_migrated_once(tmp_path: Path) -> None:
    restore(DATABASES / "0001.sql", tmp_path)
    open_database(sqlite_url(tmp_path)).close()
    execute(tmp_path, "UPDATE integration SET name_key = 'changed since' WHERE id = 1")
    open_database(sqlite_url(tmp_path)).close()
    assert query(tmp_path, "SELECT name_key FROM integration WHERE id = 1") == [("changed since",)]


def test_a_newer_database_that_is_compatible_is_used_unchanged(tmp_path: Path) -> None:
    open_database(sqlite_url(tmp_path)).close()
    execute(tmp_path, "UPDATE alembic_version SET version_num = '0099'")
    execute(tmp_path, f"UPDATE schema_version SET compatible_from = {NEWEST_MIGRATION}")
    open_database(sqlite_url(tmp_path)).close()
    assert query(tmp_path, "SELECT version_num FROM alembic_version") == [("0099",)]


NEW_REVISION = "UPDATE alembic_version SET version_num = '0099'"
UNUSABLE = {
    "the database requires migration 98, but the newest migration of this program is": [
        NEW_REVISION,
        "UPDATE schema_version SET compatible_from = 98",
    ],
    "unknown schema version 'soon'": [
        NEW_REVISION,
        "UPDATE schema_version SET compatible_from = 'soon'",
    ],
    "unknown schema version 'many'": ["UPDATE alembic_version SET version_num = 'many'"],
    "unknown schema version None": ["DELETE FROM alembic_version"],
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_a_database_that_cannot_be_used_is_not_changed(message: str, tmp_path: Path) -> None:
    open_database(sqlite_url(tmp_path)).close()
    for statement in UNUSABLE[message]:
        execute(tmp_path, statement)
    before = query(tmp_path, "SELECT * FROM alembic_version")
    with pytest.raises(UsageError, match=message):
        open_database(sqlite_url(tmp_path))
    assert query(tmp_path, "SELECT * FROM alembic_version") == before


@pytest.mark.parametrize("version", ["'many'", "1000", "0"])
def test_an_unknown_version_of_the_first_release_is_reported(version: str, tmp_path: Path) -> None:
    restore(DATABASES / "0001.sql", tmp_path)
    execute(tmp_path, f"UPDATE schema_version SET version = {version}")
    with pytest.raises(UsageError, match="unknown schema version"):
        open_database(sqlite_url(tmp_path))


def test_release_0_1_0_uses_a_migrated_and_a_new_database(tmp_path: Path) -> None:
    """Run the statements of that release, because a replica of it may still be running."""
    restore(DATABASES / "0001.sql", tmp_path / "old")
    (tmp_path / "new").mkdir()
    for name in ("old", "new"):
        open_database(sqlite_url(tmp_path / name)).close()
        assert query(tmp_path / name, "SELECT version FROM schema_version") == [(1,)]
        assert query(tmp_path / name, "SELECT lease_until, attempts, log FROM ingestion") in (
            [],
            [
                (None, 1, "manifest.json (file 1): accepted, 2 models"),
                (None, 1, "manifest.json (file 2): accepted, 2 models"),
            ],
        )
        query(tmp_path / name, "SELECT ingestion, changes FROM file")
