"""The total size of each instance's blobs.

The size is stored in a column, so that a request reads one row instead of computing a sum. The
sweep measures the blobs and corrects the stored size.
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
    """Return the total size of an instance's blobs in bytes, or None if not yet measured."""
    query = select(instances.c.stored_bytes).where(instances.c.id == instance_id)
    return connection.scalar(query)


def list_stored_bytes(connection: Connection) -> dict[int, int | None]:
    """Return the total size of each instance's blobs in bytes, by instance id.

    The size is None if it has not yet been measured.
    """
    rows = connection.execute(select(instances.c.id, instances.c.stored_bytes))
    return {row.id: row.stored_bytes for row in rows}


def add_stored_blob(connection: Connection, instance_id: int, blob: Blob) -> None:
    """Add a blob's size to its instance's total, unless an upload already refers to the blob."""
    if is_blob_referenced(connection, instance_id, blob.sha256):
        return
    statement = instances.update().where(instances.c.id == instance_id)
    # NULL means "not yet measured". The addition does not change it.
    statement = statement.values(stored_bytes=instances.c.stored_bytes + blob.size_bytes)
    connection.execute(statement)


def correct_stored_bytes(
    connection: Connection, measured: Mapping[int, int], before: Mapping[int, int | None]
) -> None:
    """Replace the stored sizes with measured ones.

    measured: bytes by instance id. before: the stored sizes when the measurement began. Sizes that
    uploads have added since then are added to the measured ones.
    """
    for instance_id, stored_bytes in before.items():
        added = func.coalesce(instances.c.stored_bytes - stored_bytes, 0)
        statement = instances.update().where(instances.c.id == instance_id)
        statement = statement.values(stored_bytes=measured.get(instance_id, 0) + added)
        connection.execute(statement)
