"""The ingestion queue, whose entries are leased to workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, or_, select

from datapilot_defer.storage.database import inserted_id, utc_now
from datapilot_defer.storage.tables import ingestions

if TYPE_CHECKING:
    from sqlalchemy import Connection


class IngestionStatus(StrEnum):
    """State of an ingestion, or of one upload in it. The value is stored and shown."""

    QUEUED = "Queued"
    IN_PROGRESS = "In Progress"
    COMPLETED = "Completed"
    FAILED = "Failed"


# A worker renews its lease more often than this; an expired lease lets another worker continue.
LEASE = timedelta(seconds=15)


@dataclass(frozen=True)
class Ingestion:
    """One ingestion of the current artifacts of an environment."""

    id: int
    environment_id: int
    status: IngestionStatus
    created_at: datetime
    lease_until: datetime | None
    attempts: int
    finished_at: datetime | None
    log: str


def enqueue(connection: Connection, environment_id: int) -> int:
    """Request an ingestion and return its id. A queued one serves several requests."""
    query = select(ingestions.c.id).where(
        ingestions.c.environment_id == environment_id,
        ingestions.c.status == IngestionStatus.QUEUED.value,
    )
    queued_id = connection.scalar(query)
    if queued_id is not None:
        return int(queued_id)
    values = {
        "environment_id": environment_id,
        "status": IngestionStatus.QUEUED.value,
        "created_at": utc_now(),
    }
    return inserted_id(connection.execute(ingestions.insert().values(**values)))


def has_claimable(connection: Connection) -> bool:
    """Return whether `claim_next` would return an ingestion; blocks no writer."""
    query = select(ingestions.c.id).where(_claimable()).limit(1)
    return connection.execute(query).first() is not None


def claim_next(connection: Connection) -> Ingestion | None:
    """Lease the oldest ingestion that no worker processes. The lease must be renewed."""
    query = select(ingestions).where(_claimable()).order_by(ingestions.c.id).limit(1)
    row = connection.execute(query.with_for_update(skip_locked=True)).first()
    if row is None:
        return None
    update_ingestion(
        connection,
        row.id,
        status=IngestionStatus.IN_PROGRESS.value,
        lease_until=utc_now() + LEASE,
        attempts=row.attempts + 1,
    )
    return find_ingestion(connection, row.environment_id, row.id)


def update_ingestion(connection: Connection, ingestion_id: int, **values: object) -> None:
    """Set columns of an ingestion."""
    connection.execute(ingestions.update().where(ingestions.c.id == ingestion_id).values(**values))


def find_ingestion(
    connection: Connection, environment_id: int, ingestion_id: int
) -> Ingestion | None:
    """Return an ingestion of an environment."""
    query = select(ingestions).where(
        ingestions.c.environment_id == environment_id, ingestions.c.id == ingestion_id
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    return _ingestion_from_row(row)


def list_ingestions(
    connection: Connection, environment_id: int, *, limit: int
) -> Sequence[Ingestion]:
    """Return the ingestions of an environment, the newest first."""
    query = select(ingestions).where(ingestions.c.environment_id == environment_id)
    rows = connection.execute(query.order_by(ingestions.c.id.desc()).limit(limit))
    return [_ingestion_from_row(row) for row in rows]


def _claimable() -> ColumnElement[bool]:
    """Return the condition for ingestions that are queued or whose lease has expired."""
    lease_expired = ingestions.c.lease_until < utc_now()
    is_abandoned = (ingestions.c.status == IngestionStatus.IN_PROGRESS.value) & lease_expired
    return or_(ingestions.c.status == IngestionStatus.QUEUED.value, is_abandoned)


def _ingestion_from_row(row: Row[Any]) -> Ingestion:
    values = dict(row._mapping)
    values["status"] = IngestionStatus(row.status)
    return Ingestion(**values)
