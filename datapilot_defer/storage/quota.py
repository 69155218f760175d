"""How many bytes the blobs of each instance have.

The figures are columns of the database, not the sum of a query: a request reads one row. The
sweep measures the blobs and corrects them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from datapilot_defer.storage.retention import is_blob_referenced
from datapilot_defer.storage.tables import instances

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from datapilot_defer.storage.blobs import Blob


def find_stored_bytes(connection: Connection, instance_id: int) -> int | None:
    """Return the bytes of an instance's blobs; None before they were measured."""
    query = select(instances.c.stored_bytes).where(instances.c.id == instance_id)
    return connection.scalar(query)


def list_stored_bytes(connection: Connection) -> dict[int, int | None]:
    """Return the bytes of each instance's blobs by its id."""
    rows = connection.execute(select(instances.c.id, instances.c.stored_bytes))
    return {row.id: row.stored_bytes for row in rows}


def add_stored_blob(connection: Connection, instance_id: int, blob: Blob) -> None:
    """Add the bytes of a blob, unless an upload refers to equal ones already."""
    if is_blob_referenced(connection, instance_id, blob.sha256):
        return
    statement = instances.update().where(instances.c.id == instance_id)
    # NULL, not yet measured, stays NULL.
    statement = statement.values(stored_bytes=instances.c.stored_bytes + blob.size_bytes)
    connection.execute(statement)


def correct_stored_bytes(
    connection: Connection, measured: Mapping[int, int], before: Mapping[int, int | None]
) -> None:
    """Replace the figures by measured ones.

    measured: bytes by instance id. before: the figures when the measurement began; what was added
    since then is added to the measured ones.
    """
    for instance_id, stored_bytes in before.items():
        added = func.coalesce(instances.c.stored_bytes - stored_bytes, 0)
        statement = instances.update().where(instances.c.id == instance_id)
        statement = statement.values(stored_bytes=measured.get(instance_id, 0) + added)
        connection.execute(statement)
