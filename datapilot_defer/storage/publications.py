"""Publications: when each upload of an environment became current."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, select

from datapilot_defer.artifact import Kind
from datapilot_defer.storage.tables import files, publications, tokens
from datapilot_defer.storage.uploads import UPLOAD_COLUMNS, Upload, upload_from_row

if TYPE_CHECKING:
    from sqlalchemy import Connection


class PublicationReason(StrEnum):
    """The reason why an upload became current. The value is stored and displayed."""

    UPLOAD = "upload"
    RESTORE = "restore"
    ACCEPT = "accept"


@dataclass(frozen=True)
class Publication:
    """The event of an upload becoming current.

    upload_id: None if retention has removed the upload. reason, token_name: None for publications
    that release 0.1.0 made.
    """

    id: int
    upload_id: int | None
    kind: Kind
    since: datetime
    reason: str | None
    token_name: str | None


def make_current(
    connection: Connection,
    upload: Upload,
    *,
    since: datetime,
    reason: PublicationReason,
    token_id: int,
) -> None:
    """Make a verified upload the current one for its environment and kind.

    since: the time of the publication. If the clock was set back, the time of the previous
    publication is used, so that times and ids have the same order.
    """
    query = select(publications.c.since).where(*_is_of(upload.environment_id, upload.kind))
    previous = connection.scalar(query.order_by(publications.c.id.desc()).limit(1))
    values = {
        "environment_id": upload.environment_id,
        "kind": upload.kind.value,
        "file_id": upload.id,
        "since": max(since, previous or since),
        "reason": reason.value,
        "token_id": token_id,
    }
    connection.execute(publications.insert().values(**values))


def find_current(
    connection: Connection, environment_id: int, kind: Kind, *, at: datetime | None = None
) -> Upload | None:
    """Return the upload of a kind that is current in an environment, or was at a given time.

    Return None if there is none or if retention has removed it. `is_removed` distinguishes these
    cases.
    """
    columns = [publications.c.file_id.label("published_id"), *UPLOAD_COLUMNS]
    query = select(*columns).select_from(
        publications.outerjoin(files, publications.c.file_id == files.c.id)
    )
    row = connection.execute(_newest(query, environment_id, kind, at)).first()
    if row is None or row.published_id is None:
        return None
    return upload_from_row(row)


def is_removed(connection: Connection, environment_id: int, kind: Kind, *, at: datetime) -> bool:
    """Return whether retention has removed the upload that was current at a given time."""
    query = _newest(select(publications.c.file_id), environment_id, kind, at)
    row = connection.execute(query).first()
    return row is not None and row.file_id is None


def list_current(connection: Connection, environment_id: int) -> Sequence[Upload]:
    """Return the current upload of each kind in an environment."""
    current = [find_current(connection, environment_id, kind) for kind in Kind]
    return [upload for upload in current if upload is not None]


def list_publications(
    connection: Connection, environment_id: int, *, limit: int, kind: Kind | None = None
) -> Sequence[Publication]:
    """Return at most `limit` publications in an environment, newest first.

    kind: return only publications of this kind.
    """
    query = (
        select(publications, tokens.c.name.label("token_name"))
        .outerjoin(tokens, publications.c.token_id == tokens.c.id)
        .where(publications.c.environment_id == environment_id)
        .order_by(publications.c.id.desc())
        .limit(limit)
    )
    if kind is not None:
        query = query.where(publications.c.kind == kind.value)
    return [
        Publication(row.id, row.file_id, Kind(row.kind), row.since, row.reason, row.token_name)
        for row in connection.execute(query)
    ]


def _newest(
    query: Select[Any], environment_id: int, kind: Kind, at: datetime | None
) -> Select[Any]:
    """Restrict a query to the newest publication of a kind, now or at a given time."""
    query = query.where(*_is_of(environment_id, kind)).limit(1)
    if at is None:
        return query.order_by(publications.c.id.desc())
    query = query.where(publications.c.since <= at)
    return query.order_by(publications.c.since.desc(), publications.c.id.desc())


def _is_of(environment_id: int, kind: Kind) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return publications.c.environment_id == environment_id, publications.c.kind == kind.value
