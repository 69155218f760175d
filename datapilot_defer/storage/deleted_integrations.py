"""Deletion of integrations, and their permanent removal after the undelete period."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import Table, delete, func, select

from datapilot_defer.storage.audit import Actor, AuditAction, record_event
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import (
    environments,
    files,
    ingestions,
    integrations,
    publications,
    tokens,
)
from datapilot_defer.storage.web_sessions import delete_sessions_of_token

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Publications come first because they refer to files.
_RECORDS_OF_ENVIRONMENTS = (publications, files, ingestions)
_ACTOR = Actor("retention")
# This deletion time marks an integration before its first record is removed. From then on, it
# cannot be undeleted, even if the server's clock is set back.
_PURGE_BEGUN = datetime(1970, 1, 1, tzinfo=UTC)


def set_deleted_at(
    connection: Connection, integration_id: int, deleted_at: datetime | None
) -> None:
    """Mark an integration as deleted at a time. None undeletes it."""
    statement = integrations.update().where(integrations.c.id == integration_id)
    connection.execute(statement.values(deleted_at=deleted_at, last_modified_at=utc_now()))


def list_purgeable(connection: Connection, before: datetime) -> list[int]:
    """Return the ids of the integrations that were deleted before a time, in order of deletion."""
    query = select(integrations.c.id).where(integrations.c.deleted_at < before)
    return list(connection.scalars(query.order_by(integrations.c.deleted_at)))


def purge_batch(
    connection: Connection, integration_id: int, before: datetime, *, limit: int
) -> bool:
    """Remove at most `limit` records of an integration that was deleted before a time.

    Return whether to call this function again, in another transaction. The last call removes the
    integration itself. Its name is then available, its blobs are unreferenced and its tokens are
    revoked. The record of the newest integration is kept under another name until a newer
    integration exists.
    """
    query = select(integrations.c.instance_id).where(
        integrations.c.id == integration_id, integrations.c.deleted_at < before
    )
    instance_id = connection.scalar(query)
    if instance_id is None:
        return False
    set_deleted_at(connection, integration_id, _PURGE_BEGUN)
    for records in _RECORDS_OF_ENVIRONMENTS:
        if _delete_some(connection, records, integration_id, limit):
            return True
    _revoke_tokens(connection, instance_id, integration_id)
    of_integration = environments.c.integration_id == integration_id
    connection.execute(delete(environments).where(of_integration))
    is_purged = integrations.c.id == integration_id
    if connection.scalar(select(func.max(integrations.c.id))) == integration_id:
        # SQLite would reuse this id, and clients that use it would get artifacts of another
        # integration.
        values = {"name": f"removed integration {integration_id}", "name_key": None}
        connection.execute(integrations.update().where(is_purged).values(**values))
    else:
        connection.execute(delete(integrations).where(is_purged))
    return False


def _delete_some(connection: Connection, records: Table, integration_id: int, limit: int) -> int:
    environment_ids = select(environments.c.id).where(
        environments.c.integration_id == integration_id
    )
    ids = select(records.c.id).where(records.c.environment_id.in_(environment_ids)).limit(limit)
    return connection.execute(delete(records).where(records.c.id.in_(ids))).rowcount


def _revoke_tokens(connection: Connection, instance_id: int, integration_id: int) -> None:
    """Revoke the tokens of an integration. Otherwise they would permit all other integrations."""
    of_integration = tokens.c.integration_id == integration_id
    query = select(tokens.c.id, tokens.c.name, tokens.c.revoked_at).where(of_integration)
    for row in connection.execute(query).all():
        delete_sessions_of_token(connection, row.id)
        if row.revoked_at is None:
            record_event(
                connection,
                instance_id,
                _ACTOR,
                AuditAction.TOKEN_REVOKED,
                integration_id=integration_id,
                detail=f"{row.name} (id {row.id}): its integration was deleted",
            )
    values = {
        "integration_id": None,
        "revoked_at": func.coalesce(tokens.c.revoked_at, utc_now()),
    }
    connection.execute(tokens.update().where(of_integration).values(**values))
