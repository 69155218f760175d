"""Integrations whose deletion can no longer be undone."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import (
    environments,
    files,
    ingestions,
    integrations,
    publications,
    tokens,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection


def list_purgeable(connection: Connection, deleted_before: datetime) -> list[int]:
    """Return the ids of integrations that were deleted before a time."""
    query = select(integrations.c.id).where(integrations.c.deleted_at < deleted_before)
    return list(connection.scalars(query))


def purge_batch(connection: Connection, integration_id: int, limit: int) -> bool:
    """Delete up to `limit` uploads of a deleted integration, and the integration after the last.

    Returns whether there is more to delete. Tokens that permit only this integration are revoked.
    """
    environment_ids = select(environments.c.id).where(
        environments.c.integration_id == integration_id
    )
    upload_ids = select(files.c.id).where(files.c.environment_id.in_(environment_ids)).limit(limit)
    batch = list(connection.scalars(upload_ids))
    if batch:
        connection.execute(delete(publications).where(publications.c.file_id.in_(batch)))
        connection.execute(delete(files).where(files.c.id.in_(batch)))
        return True
    for table in (publications, ingestions):
        connection.execute(delete(table).where(table.c.environment_id.in_(environment_ids)))
    connection.execute(delete(environments).where(environments.c.integration_id == integration_id))
    is_bound = tokens.c.integration_id == integration_id
    connection.execute(
        tokens.update()
        .where(is_bound)
        .values(integration_id=None, revoked_at=func.coalesce(tokens.c.revoked_at, utc_now()))
    )
    connection.execute(delete(integrations).where(integrations.c.id == integration_id))
    return False
