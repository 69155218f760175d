"""Which uploads and blobs retention may delete."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete, func, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.publications import list_current
from datapilot_defer.storage.tables import files, integrations, publications
from datapilot_defer.storage.uploads import UPLOADS_WITH_INTEGRATION

if TYPE_CHECKING:
    from sqlalchemy import Connection


def environments_over_retention(
    connection: Connection, *, count: int, age: timedelta | None
) -> list[int]:
    """Return the ids of environments with more distinct or older uploads than retention keeps."""
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


def delete_beyond_retention(
    connection: Connection, environment_id: int, *, count: int, age: timedelta | None
) -> int:
    """Delete old uploads of an environment and return their number. A current one is kept.

    count: how many of each kind to keep. Equal bytes count once: an hourly job that uploads
    the same manifest displaces nothing. age: delete older ones too.
    """
    current_ids = {upload.id for upload in list_current(connection, environment_id)}
    query = select(files.c.id, files.c.kind, files.c.sha256, files.c.uploaded_at).where(
        files.c.environment_id == environment_id, files.c.uploaded_at.is_not(None)
    )
    kept_hashes: dict[str, set[str]] = {}
    expired_ids = []
    for row in connection.execute(query.order_by(files.c.id.desc())):
        kept = kept_hashes.setdefault(row.kind, set())
        if len(kept) < count:
            kept.add(row.sha256)
        is_too_old = age is not None and utc_now() - row.uploaded_at > age
        is_expired = is_too_old or row.sha256 not in kept
        if is_expired and row.id not in current_ids:
            expired_ids.append(row.id)
    for upload_id in expired_ids:
        connection.execute(delete(publications).where(publications.c.file_id == upload_id))
        connection.execute(delete(files).where(files.c.id == upload_id))
    return len(expired_ids)


def delete_unverified(connection: Connection, age: timedelta) -> None:
    """Delete uploads that were announced longer ago than `age` and never verified."""
    is_stale = files.c.uploaded_at.is_(None) & (files.c.created_at < utc_now() - age)
    connection.execute(delete(files).where(is_stale))


def is_blob_referenced(connection: Connection, instance_id: int, sha256: str) -> bool:
    """Return whether an upload of an instance has this blob."""
    query = select(files.c.id).select_from(UPLOADS_WITH_INTEGRATION)
    query = query.where(files.c.sha256 == sha256, integrations.c.instance_id == instance_id)
    return connection.execute(query).first() is not None
