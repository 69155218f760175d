"""Which upload of an environment was current when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, func, select

from datapilot_defer.artifact import Kind
from datapilot_defer.storage.tables import files, publications, tokens
from datapilot_defer.storage.uploads import UPLOAD_COLUMNS, Upload, upload_from_row

if TYPE_CHECKING:
    from sqlalchemy import Connection


class PublicationReason(StrEnum):
    """Why an upload became current. The value is stored and shown."""

    UPLOAD = "upload"
    RESTORE = "restore"
    ACCEPT = "accept"


@dataclass(frozen=True)
class Publication:
    """An upload became current.

    upload_id: None when retention has removed the upload. reason, token_name: None when
    release 0.1.0 published it.
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
    """Make a verified upload the current one of its environment and kind."""
    values = {
        "environment_id": upload.environment_id,
        "kind": upload.kind.value,
        "file_id": upload.id,
        "since": since,
        "reason": reason.value,
        "token_id": token_id,
    }
    connection.execute(publications.insert().values(**values))


def find_current(
    connection: Connection, environment_id: int, kind: Kind, *, at: datetime | None = None
) -> Upload | None:
    """Return the upload of a kind that is current in an environment, or was at a given time."""
    query = _publications_query(environment_id).where(publications.c.kind == kind.value)
    if at is not None:
        query = query.where(publications.c.since <= at)
    row = connection.execute(query.order_by(publications.c.id.desc()).limit(1)).first()
    if row is None:
        return None
    return upload_from_row(row)


def list_current(connection: Connection, environment_id: int) -> Sequence[Upload]:
    """Return the current upload of each kind in an environment."""
    newest_ids = (
        select(func.max(publications.c.id))
        .where(publications.c.environment_id == environment_id)
        .group_by(publications.c.kind)
    )
    query = _publications_query(environment_id).where(publications.c.id.in_(newest_ids))
    return [upload_from_row(row) for row in connection.execute(query)]


def list_publications(
    connection: Connection, environment_id: int, *, limit: int, kind: Kind | None = None
) -> Sequence[Publication]:
    """Return what became current in an environment, the newest first.

    kind: only artifacts of this kind.
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


def _publications_query(environment_id: int) -> Select[Any]:
    query = select(*UPLOAD_COLUMNS).join(publications, publications.c.file_id == files.c.id)
    return query.where(publications.c.environment_id == environment_id)
