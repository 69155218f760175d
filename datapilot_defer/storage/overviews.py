"""Queries for the pages that list integrations, tokens and uploads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from datapilot_defer.artifact import Kind
from datapilot_defer.storage.tables import environments, files, integrations, publications, tokens
from datapilot_defer.storage.uploads import UPLOAD_COLUMNS, Upload, upload_from_row

if TYPE_CHECKING:
    from sqlalchemy import Connection


def list_current_manifests(
    connection: Connection, environment_ids: Sequence[int]
) -> Mapping[int, Upload]:
    """Return the current manifest of each environment that has one, by environment id."""
    # The subquery reads one index entry for each environment, regardless of the length of the
    # history.
    published = publications.alias()
    newest_id = (
        select(func.max(published.c.id))
        .where(
            published.c.environment_id == environments.c.id,
            published.c.kind == Kind.MANIFEST.value,
        )
        .correlate(environments)
        .scalar_subquery()
    )
    query = (
        select(*UPLOAD_COLUMNS)
        .select_from(environments)
        .join(publications, publications.c.id == newest_id)
        .join(files, files.c.id == publications.c.file_id)
        .where(environments.c.id.in_(environment_ids))
    )
    uploads = [upload_from_row(row) for row in connection.execute(query)]
    return {upload.environment_id: upload for upload in uploads}


def list_history_of_kind(
    connection: Connection, environment_id: int, kind: Kind, *, limit: int
) -> Sequence[tuple[Upload, str]]:
    """Return verified and rejected uploads of one kind with their token names, newest first.

    Each of the two queries reads only the index entries of the uploads that it returns, because a
    kind may be rare among a million uploads.
    """
    query = (
        select(*UPLOAD_COLUMNS, tokens.c.name.label("token_name"))
        .join(tokens, files.c.token_id == tokens.c.id)
        .where(files.c.environment_id == environment_id, files.c.kind == kind.value)
        .limit(limit)
    )
    verified = query.where(files.c.uploaded_at.is_not(None)).order_by(files.c.uploaded_at.desc())
    rejected = query.where(files.c.refusal.is_not(None))
    rows = [
        *connection.execute(verified),
        *connection.execute(rejected.order_by(files.c.id.desc())),
    ]
    newest_ids = sorted({row.id for row in rows}, reverse=True)[:limit]
    listed = {row.id: (upload_from_row(row), row.token_name) for row in rows}
    return [listed[upload_id] for upload_id in newest_ids]


def find_integration_names(
    connection: Connection, integration_ids: Sequence[int]
) -> Mapping[int, str]:
    """Return the names of integrations by id, including deleted ones."""
    query = select(integrations.c.id, integrations.c.name)
    rows = connection.execute(query.where(integrations.c.id.in_(integration_ids)))
    return {row.id: row.name for row in rows}
