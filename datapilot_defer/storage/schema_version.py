"""Creation of the database tables, and migration to this program's version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, column, inspect, select, table

from datapilot_defer.errors import UsageError
from datapilot_defer.storage.tables import metadata, schema

if TYPE_CHECKING:
    from alembic.config import Config

# The number of the newest migration in migrations/versions.
NEWEST_MIGRATION = 2
# The number of the migration that a program must include to use a database that has the newest
# migration.
COMPATIBLE_FROM = 1
# Release 0.1.0 accepts no other number in "schema_version".
_VERSION_OF_FIRST_RELEASE = 1
_ALEMBIC_TABLE = "alembic_version"
_MIGRATIONS = "datapilot_defer.storage:migrations"
_INSTALL_ADVICE = "Install the latest version of datapilot-defer[instance]."


def migrate(connection: Connection) -> tuple[int, int]:
    """Migrate the tables to this program's version, in the transaction of `connection`.

    Return the numbers of the newest migration before and after. The first one is 0 for an empty
    database. Raises UsageError when the database requires a newer version of this program, or when
    its version is unknown.
    """
    before = _read_migration(connection)
    if before == 0:
        _create_tables(connection)
        return before, NEWEST_MIGRATION
    if before > 1:
        _check_compatibility(connection)
    if before >= NEWEST_MIGRATION:
        return before, before  # this program can still use what a newer one migrated
    _run_migrations(connection, before)
    return before, NEWEST_MIGRATION


def _read_migration(connection: Connection) -> int:
    """Return the number of a database's newest migration, or 0 if the database is empty."""
    inspector = inspect(connection)
    if not inspector.has_table(schema.name):
        return 0
    if not inspector.has_table(_ALEMBIC_TABLE):
        version = connection.scalar(select(schema.c.version))
        if version != _VERSION_OF_FIRST_RELEASE:
            raise _unknown_version_error(version)
        return 1
    revision = connection.scalar(select(column("version_num")).select_from(table(_ALEMBIC_TABLE)))
    if revision is None or not revision.isdecimal():
        raise _unknown_version_error(revision)
    return int(revision)


def _check_compatibility(connection: Connection) -> None:
    compatible_from = connection.scalar(select(schema.c.compatible_from))
    if not isinstance(compatible_from, int):
        raise _unknown_version_error(compatible_from)
    if compatible_from > NEWEST_MIGRATION:
        raise UsageError(
            f"the database requires migration {compatible_from}, but the newest migration of this "
            f"program is {NEWEST_MIGRATION}. {_INSTALL_ADVICE}"
        )


def _unknown_version_error(version: object) -> UsageError:
    return UsageError(
        f"the database has the unknown schema version {version!r}. {_INSTALL_ADVICE} "
        "If it is already installed, restore the database from a backup."
    )


def _create_tables(connection: Connection) -> None:
    from alembic import command

    metadata.create_all(connection)
    command.stamp(_alembic_config(connection), "head")
    connection.execute(
        schema.insert().values(version=_VERSION_OF_FIRST_RELEASE, compatible_from=COMPATIBLE_FROM)
    )


def _run_migrations(connection: Connection, before: int) -> None:
    from alembic import command

    config = _alembic_config(connection)
    if before == 1 and not inspect(connection).has_table(_ALEMBIC_TABLE):
        command.stamp(config, "0001")
    command.upgrade(config, "head")
    connection.execute(schema.update().values(compatible_from=COMPATIBLE_FROM))


def _alembic_config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", _MIGRATIONS)
    return config
