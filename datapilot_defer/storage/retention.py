"""Selection and deletion of the uploads and blobs that retention does not keep.

Each batch of BATCH_SIZE rows is deleted in its own short transaction, so that other writers wait
only a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, FromClause, delete, func, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.publications import list_current
from datapilot_defer.storage.tables import MAX_ID, files, integrations, publications
from datapilot_defer.storage.uploads import UPLOADS_WITH_INTEGRATION

if TYPE_CHECKING:
    from sqlalchemy import Connection

BATCH_SIZE = 200


def environments_over_retention(
    connection: Connection, *, count: int, age: timedelta | None
) -> list[int]:
    """Return the ids of environments with more uploads than retention keeps.

    Such an environment has more than `count` distinct uploads of a kind, or one older than `age`.
    """
    is_over: ColumnElement[bool] = func.count(files.c.sha256.distinct()) > count
    if age is not None:
        is_over = is_over | (func.min(files.c.uploaded_at) < utc_now() - age)
    query = (
        select(files.c.environment_id)
        .where(files.c.uploaded_at.is_not(None))
        .distinct()
        .group_by(files.c.environment_id, files.c.kind)
        .having(is_over)
    )
    return list(connection.scalars(query))


@dataclass
class ExpiredUploads:
    """The expired uploads of an environment, read in batches from new to old.

    count: the number of uploads of each kind to keep. Identical bytes count once, so an hourly job
    that uploads the same manifest does not displace other uploads. age: the maximum age; older
    uploads are expired even if `count` would keep them.
    """

    environment_id: int
    count: int
    age: timedelta | None
    _next_id: int = MAX_ID
    _kept_hashes: dict[str, set[str]] = field(default_factory=dict)

    def read_batch(self, connection: Connection) -> list[int] | None:
        """Return the ids of the expired uploads in the next batch, or None after the last batch."""
        query = select(files.c.id, files.c.kind, files.c.sha256, files.c.uploaded_at).where(
            files.c.environment_id == self.environment_id,
            files.c.id <= self._next_id,
            files.c.uploaded_at.is_not(None),
        )
        rows = connection.execute(query.order_by(files.c.id.desc()).limit(BATCH_SIZE)).all()
        if not rows:
            return None
        self._next_id = rows[-1].id - 1
        return [row.id for row in rows if self._is_expired(row.kind, row.sha256, row.uploaded_at)]

    def _is_expired(self, kind: str, sha256: str, uploaded_at: datetime) -> bool:
        kept = self._kept_hashes.setdefault(kind, set())
        if len(kept) < self.count:
            kept.add(sha256)
        is_too_old = self.age is not None and uploaded_at < utc_now() - self.age
        return is_too_old or sha256 not in kept


def delete_uploads(connection: Connection, environment_id: int, ids: Sequence[int]) -> None:
    """Delete verified uploads of an environment, except current ones.

    Their publications remain as tombstones, which show that an upload was current at that time. Of
    several consecutive tombstones, only the first one remains.
    """
    current_ids = {upload.id for upload in list_current(connection, environment_id)}
    expired_ids = set(ids) - current_ids
    of_expired = publications.c.file_id.in_(expired_ids)
    tombstones = connection.scalars(select(publications.c.id).where(of_expired)).all()
    connection.execute(publications.update().where(of_expired).values(file_id=None))
    _delete_redundant(connection, tombstones)
    connection.execute(delete(files).where(files.c.id.in_(expired_ids)))


def _delete_redundant(connection: Connection, tombstones: Sequence[int]) -> None:
    """Delete tombstones that directly follow another one, among the new ones and their successors.

    Only the first of several consecutive tombstones carries information.
    """
    candidates = set(tombstones)
    for batch in _batches(tombstones):
        candidates.update(_find_successors(connection, batch))
    previous = publications.alias()
    follows_tombstone = (
        select(previous.c.file_id.is_(None))
        .where(_has_kind_of(previous), previous.c.id < publications.c.id)
        .order_by(previous.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    for batch in _batches(sorted(candidates)):
        statement = delete(publications).where(
            publications.c.id.in_(batch), publications.c.file_id.is_(None), follows_tombstone
        )
        connection.execute(statement)


def _find_successors(connection: Connection, ids: Sequence[int]) -> list[int]:
    """Return the ids of the publications that directly follow the given ones."""
    following = publications.alias()
    successor = select(func.min(following.c.id)).where(
        _has_kind_of(following), following.c.id > publications.c.id
    )
    query = select(successor.scalar_subquery()).where(publications.c.id.in_(ids))
    return [row[0] for row in connection.execute(query) if row[0] is not None]


def _has_kind_of(other: FromClause) -> ColumnElement[bool]:
    """Return the condition that another publication has the same environment and kind."""
    is_same_environment = other.c.environment_id == publications.c.environment_id
    return is_same_environment & (other.c.kind == publications.c.kind)


def _batches(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield ids in batches, because the number of parameters in a statement is limited."""
    for start in range(0, len(ids), BATCH_SIZE):
        yield ids[start : start + BATCH_SIZE]


def find_unverified(
    connection: Connection,
    *,
    after_id: int,
    sending_time: timedelta,
    grace: timedelta,
    rejected_grace: timedelta,
) -> Sequence[int]:
    """Return at most BATCH_SIZE ids of uploads that can no longer be verified or accepted.

    after_id: return only larger ids. sending_time: the maximum age of an upload whose bytes have
    not arrived. grace: the maximum age of a received upload. rejected_grace: the maximum age of a
    rejected upload.
    """
    now = utc_now()
    is_stale = (files.c.created_at < now - rejected_grace) | (
        files.c.refusal.is_(None) & (files.c.created_at < now - grace)
    )
    is_stale |= files.c.sha256.is_(None) & (files.c.created_at < now - sending_time)
    query = select(files.c.id).where(files.c.id > after_id, files.c.uploaded_at.is_(None), is_stale)
    return connection.scalars(query.order_by(files.c.id).limit(BATCH_SIZE)).all()


def delete_unverified(connection: Connection, ids: Sequence[int]) -> None:
    """Delete uploads, except those that were verified or accepted in the meantime."""
    is_unverified = files.c.id.in_(ids) & files.c.uploaded_at.is_(None)
    connection.execute(delete(files).where(is_unverified))


def is_blob_referenced(connection: Connection, instance_id: int, sha256: str) -> bool:
    """Return whether an upload of an instance refers to this blob."""
    query = select(files.c.id).select_from(UPLOADS_WITH_INTEGRATION)
    query = query.where(files.c.sha256 == sha256, integrations.c.instance_id == instance_id)
    return connection.execute(query.limit(1)).first() is not None
