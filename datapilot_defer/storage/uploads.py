"""Uploads: announced, received, verified; and which of them was current when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, func, select

from datapilot_defer.artifact import ArtifactMetadata, Kind, Provenance
from datapilot_defer.storage.database import inserted_id, utc_now
from datapilot_defer.storage.ingestions import IngestionStatus
from datapilot_defer.storage.tables import environments, files, integrations, publications, tokens

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Facts about the content, which verification adds to the record.
_CONTENT_COLUMNS = (
    "schema_version",
    "dbt_version",
    "project_name",
    "generated_at",
    "invocation_id",
    "node_count",
    "model_count",
)
UPLOADS_WITH_INTEGRATION = files.join(
    environments, files.c.environment_id == environments.c.id
).join(integrations)


@dataclass(frozen=True)
class Upload:
    """One upload of an artifact.

    uploaded_at: when it was verified; None before. refusal: why it did not become current.
    metadata: until the bytes are received, sha256 is "" and size_bytes 0.
    changes: JSON, a `model_changes.ModelChanges`.
    """

    id: int
    environment_id: int
    token_id: int
    created_at: datetime
    uploaded_at: datetime | None
    refusal: str | None
    metadata: ArtifactMetadata
    provenance: Provenance
    ingestion: IngestionStatus | None
    changes: str | None

    @property
    def kind(self) -> Kind:
        """Return which of dbt's files it is."""
        return self.metadata.kind

    @property
    def is_received(self) -> bool:
        """Return whether all bytes are stored."""
        return self.metadata.sha256 != ""


class UploadLocation(NamedTuple):
    """Ids of what an upload belongs to."""

    instance_id: int
    integration_id: int
    environment_id: int


def create_upload(connection: Connection, *, environment_id: int, token_id: int, kind: Kind) -> int:
    """Create the record of an announced upload and return its id."""
    values = {
        "environment_id": environment_id,
        "token_id": token_id,
        "kind": kind.value,
        "created_at": utc_now(),
    }
    return inserted_id(connection.execute(files.insert().values(**values)))


def find_upload(connection: Connection, upload_id: int) -> Upload | None:
    """Return the upload with this id."""
    return _first_upload(connection, select(files).where(files.c.id == upload_id))


def locate_upload(connection: Connection, upload_id: int) -> UploadLocation | None:
    """Return which instance, integration and environment an upload belongs to."""
    query = select(integrations.c.instance_id, integrations.c.id, environments.c.id)
    query = query.select_from(UPLOADS_WITH_INTEGRATION).where(files.c.id == upload_id)
    row = connection.execute(query).first()
    if row is None:
        return None
    return UploadLocation(*row)


def mark_received(connection: Connection, upload_id: int, *, sha256: str, size_bytes: int) -> bool:
    """Record the blob of an upload; return False, changing nothing, when it is verified already."""
    unverified = (files.c.id == upload_id) & files.c.uploaded_at.is_(None)
    values = {"sha256": sha256, "size_bytes": size_bytes, "refusal": None}
    result = connection.execute(files.update().where(unverified).values(**values))
    return result.rowcount == 1


def mark_verified(
    connection: Connection,
    upload_id: int,
    *,
    metadata: ArtifactMetadata,
    provenance: Provenance,
    uploaded_at: datetime,
) -> None:
    """Record what verification learned about an upload, which makes it visible."""
    update_upload(
        connection,
        upload_id,
        uploaded_at=uploaded_at,
        refusal=None,
        commit=provenance.commit,
        branch=provenance.branch,
        build_url=provenance.build_url,
        **{name: getattr(metadata, name) for name in _CONTENT_COLUMNS},
    )


def update_upload(connection: Connection, upload_id: int, **values: object) -> None:
    """Set columns of an upload."""
    connection.execute(files.update().where(files.c.id == upload_id).values(**values))


def make_current(connection: Connection, upload: Upload, since: datetime) -> None:
    """Make a verified upload the current one of its environment and kind."""
    values = {
        "environment_id": upload.environment_id,
        "kind": upload.kind.value,
        "file_id": upload.id,
        "since": since,
    }
    connection.execute(publications.insert().values(**values))


def find_current(
    connection: Connection, environment_id: int, kind: Kind, *, at: datetime | None = None
) -> Upload | None:
    """Return the upload of a kind that is current in an environment, or was at a given time."""
    query = _publications_query(environment_id).where(publications.c.kind == kind.value)
    if at is not None:
        query = query.where(publications.c.since <= at)
    return _first_upload(connection, query.order_by(publications.c.id.desc()))


def list_current(connection: Connection, environment_id: int) -> Sequence[Upload]:
    """Return the current upload of each kind in an environment."""
    newest_ids = (
        select(func.max(publications.c.id))
        .where(publications.c.environment_id == environment_id)
        .group_by(publications.c.kind)
    )
    query = _publications_query(environment_id).where(publications.c.id.in_(newest_ids))
    return [_upload_from_row(row) for row in connection.execute(query)]


def find_previous(connection: Connection, upload: Upload) -> Upload | None:
    """Return the upload of the same kind that was verified before this one."""
    query = select(files).where(
        files.c.environment_id == upload.environment_id,
        files.c.kind == upload.kind.value,
        files.c.id < upload.id,
        files.c.uploaded_at.is_not(None),
    )
    return _first_upload(connection, query.order_by(files.c.id.desc()))


def find_last_rejected(
    connection: Connection, environment_id: int, token_id: int, *, kind: Kind
) -> Upload | None:
    """Return a token's newest rejected upload that no upload of the same kind followed.

    kind: the kind that every onboarding uploads. Rejections before its newest verified upload
    belong to an earlier onboarding.
    """
    received = (
        (files.c.environment_id == environment_id)
        & (files.c.token_id == token_id)
        & files.c.sha256.is_not(None)
    )
    verified = received & (files.c.kind == kind.value) & files.c.uploaded_at.is_not(None)
    last_verified = select(func.coalesce(func.max(files.c.id), 0)).where(verified)
    newest_ids = select(func.max(files.c.id)).where(received).group_by(files.c.kind)
    query = select(files).where(
        files.c.id.in_(newest_ids),
        files.c.refusal.is_not(None),
        files.c.id > last_verified.scalar_subquery(),
    )
    return _first_upload(connection, query.order_by(files.c.id.desc()))


def list_history(
    connection: Connection, environment_id: int, *, limit: int, include_rejected: bool = False
) -> Sequence[tuple[Upload, str]]:
    """Return the verified uploads of an environment, the newest first, with their token names."""
    is_shown: ColumnElement[bool] = files.c.uploaded_at.is_not(None)
    if include_rejected:
        is_shown = is_shown | files.c.refusal.is_not(None)
    query = (
        select(files, tokens.c.name.label("token_name"))
        .join(tokens, files.c.token_id == tokens.c.id)
        .where(files.c.environment_id == environment_id, is_shown)
        .order_by(files.c.id.desc())
        .limit(limit)
    )
    return [(_upload_from_row(row), row.token_name) for row in connection.execute(query)]


def _publications_query(environment_id: int) -> Select[Any]:
    query = select(files).join(publications, publications.c.file_id == files.c.id)
    return query.where(publications.c.environment_id == environment_id)


def _first_upload(connection: Connection, query: Select[Any]) -> Upload | None:
    row = connection.execute(query.limit(1)).first()
    if row is None:
        return None
    return _upload_from_row(row)


def _upload_from_row(row: Row[Any]) -> Upload:
    metadata = ArtifactMetadata(
        kind=Kind(row.kind),
        sha256=row.sha256 or "",
        size_bytes=row.size_bytes or 0,
        **{name: getattr(row, name) for name in _CONTENT_COLUMNS},
    )
    ingestion = None
    if row.ingestion is not None:
        ingestion = IngestionStatus(row.ingestion)
    return Upload(
        id=row.id,
        environment_id=row.environment_id,
        token_id=row.token_id,
        created_at=row.created_at,
        uploaded_at=row.uploaded_at,
        refusal=row.refusal,
        metadata=metadata,
        provenance=Provenance(row.commit, row.branch, row.build_url),
        ingestion=ingestion,
        changes=row.changes,
    )
