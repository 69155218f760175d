"""Schema versions of the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, inspect, select

from datapilot_defer.errors import UsageError
from datapilot_defer.storage.tables import metadata, schema

# Each entry migrates from version n to n + 1. Never change one that was released: append.
MIGRATIONS: Sequence[Callable[[Connection], None]] = (metadata.create_all,)


def migrate(connection: Connection) -> None:
    """Migrate the tables to this program's version, in the transaction of `connection`.

    Raises UsageError when they belong to a newer program, whose data an older one would lose.
    """
    is_initialized = inspect(connection).has_table(schema.name)
    version: int | None = 0
    if is_initialized:
        version = connection.scalar(select(schema.c.version))
    newest = len(MIGRATIONS)
    if version is None or version > newest:
        raise UsageError(
            f"the records have schema version {version}, this program knows versions up to "
            f"{newest}; install the newest datapilot-defer[instance]"
        )
    for migration in MIGRATIONS[version:]:
        migration(connection)
    if not is_initialized:
        connection.execute(schema.insert().values(version=newest))
    elif version < newest:
        connection.execute(schema.update().values(version=newest))
