"""Ingestions: what was asked for, who works on it, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, or_, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import ingestions

if TYPE_CHECKING:
    from sqlalchemy import Connection

QUEUED, IN_PROGRESS, COMPLETED, FAILED = "Queued", "In Progress", "Completed", "Failed"

# Whoever works on an ingestion says so more often than this; one that nobody works on is taken up again.
LEASE = timedelta(seconds=15)


@dataclass(frozen=True)
class Ingestion:
    """One ingestion of an environment's current files. status: "Queued", "In Progress", "Completed" or "Failed"."""

    id: int
    environment_id: int
    status: str
    created_at: datetime
    lease_until: datetime | None
    attempts: int
    finished_at: datetime | None
    log: str


def enqueue(connection: Connection, environment_id: int) -> int:
    """Ask for an ingestion; one that nobody has begun serves two who ask. Gives its id."""
    waiting = (ingestions.c.environment_id == environment_id) & (ingestions.c.status == QUEUED)
    found = connection.scalar(select(ingestions.c.id).where(waiting))
    if found is not None:
        return int(found)
    values = {"environment_id": environment_id, "status": QUEUED, "created_at": utc_now()}
    key: Any = connection.execute(ingestions.insert().values(**values)).inserted_primary_key
    return int(key[0])


def has_claimable(connection: Connection) -> bool:
    """Whether `take` would give one: a look that disturbs no writer."""
    return (
        connection.execute(select(ingestions.c.id).where(_claimable()).limit(1)).first() is not None
    )


def claim_next(connection: Connection) -> Ingestion | None:
    """Take the oldest ingestion that nobody works on; from now on its lease must be renewed."""
    row = connection.execute(
        select(ingestions)
        .where(_claimable())
        .order_by(ingestions.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).first()
    if row is None:
        return None
    taken = {"status": IN_PROGRESS, "lease_until": utc_now() + LEASE, "attempts": row.attempts + 1}
    connection.execute(ingestions.update().where(ingestions.c.id == row.id).values(**taken))
    return Ingestion(**{**row._mapping, **taken})


def update_ingestion(connection: Connection, ingestion_id: int, **values: object) -> None:
    """Set fields of an ingestion: a later `lease_until` while it goes on, its end, or "Queued" to give it back."""
    connection.execute(ingestions.update().where(ingestions.c.id == ingestion_id).values(**values))


def find_ingestion(
    connection: Connection, environment_id: int, ingestion_id: int
) -> Ingestion | None:
    """Give an ingestion of an environment."""
    mine = (ingestions.c.environment_id == environment_id) & (ingestions.c.id == ingestion_id)
    row = connection.execute(select(ingestions).where(mine)).first()
    return Ingestion(**row._mapping) if row else None


def list_ingestions(
    connection: Connection, environment_id: int, *, limit: int
) -> Sequence[Ingestion]:
    """Give an environment's ingestions, the newest first."""
    query = select(ingestions).where(ingestions.c.environment_id == environment_id)
    return [
        Ingestion(**row._mapping)
        for row in connection.execute(query.order_by(ingestions.c.id.desc()).limit(limit))
    ]


def _claimable() -> ColumnElement[bool]:
    """Asked for and not begun, or begun by somebody who is gone."""
    abandoned = (ingestions.c.status == IN_PROGRESS) & (ingestions.c.lease_until < utc_now())
    return or_(ingestions.c.status == QUEUED, abandoned)
