"""Records of uploads. An upload is announced, then received, then verified."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, select

from datapilot_defer.artifact import ArtifactMetadata, Kind, Provenance
from datapilot_defer.storage.database import inserted_id, utc_now
from datapilot_defer.storage.integrations import UploadCheck
from datapilot_defer.storage.tables import environments, files, integrations, tokens

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Metadata of the content, which verification adds to the record.
_CONTENT_COLUMNS = (
    "schema_version",
    "dbt_version",
    "project_name",
    "generated_at",
    "invocation_id",
    "node_count",
    "model_count",
)
# "changes" and "report" are long, so only `find_upload_details` selects them.
_DETAIL_COLUMNS = {"changes", "report", "ingestion"}
UPLOAD_COLUMNS = [column for column in files.c if column.name not in _DETAIL_COLUMNS]
UPLOADS_WITH_INTEGRATION = files.join(
    environments, files.c.environment_id == environments.c.id
).join(integrations)


class Rejection(StrEnum):
    """The reason for a rejection other than a failed check. The value is stored."""

    FUTURE = "future"
    INVALID = "invalid"


Reason = Rejection | UploadCheck
_SEPARATOR = ", "  # between the names of failed checks


@dataclass(frozen=True)
class ModelCounts:
    """Numbers of models that differ from the previous manifest."""

    added: int
    removed: int
    changed: int


@dataclass(frozen=True)
class Upload:
    """One upload of an artifact.

    uploaded_at: the time of verification, or None. rejection: why it did not become current, a
    `Rejection` or the names of the failed checks. refusal: a message with the same reason.
    metadata: until the bytes are received, sha256 is "" and size_bytes 0. model_counts: None if it
    was not compared with a previous manifest.
    """

    id: int
    environment_id: int
    token_id: int
    created_at: datetime
    uploaded_at: datetime | None
    refusal: str | None
    rejection: str | None
    metadata: ArtifactMetadata
    provenance: Provenance
    model_counts: ModelCounts | None

    @property
    def kind(self) -> Kind:
        """Return the kind of the artifact."""
        return self.metadata.kind

    @property
    def is_received(self) -> bool:
        """Return whether all bytes are stored."""
        return self.metadata.sha256 != ""

    @property
    def failed_checks(self) -> tuple[UploadCheck, ...]:
        """Return the checks that rejected the upload. If there are any, an admin can accept it."""
        names = (self.rejection or "").split(_SEPARATOR)
        if set(names) <= set(UploadCheck):
            return tuple(UploadCheck(name) for name in names)
        # A newer release may have stored checks that this release does not define.
        return ()


@dataclass(frozen=True)
class UploadDetails:
    """The results of verifying an upload.

    report: lines as printed by `datapilot dbt validate`. changes: JSON of a
    `model_changes.ModelChanges`, or None if it was not compared with a previous manifest.
    """

    report: tuple[str, ...]
    changes: str | None


class UploadLocation(NamedTuple):
    """The ids of an upload's instance, integration and environment."""

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
    """Return the upload with this id, or None."""
    return _first_upload(connection, select(*UPLOAD_COLUMNS).where(files.c.id == upload_id))


def locate_upload(connection: Connection, upload_id: int) -> UploadLocation | None:
    """Return the instance, integration and environment of an upload, or None."""
    query = select(integrations.c.instance_id, integrations.c.id, environments.c.id)
    query = query.select_from(UPLOADS_WITH_INTEGRATION).where(files.c.id == upload_id)
    row = connection.execute(query).first()
    if row is None:
        return None
    return UploadLocation(*row)


def mark_received(connection: Connection, upload_id: int, *, sha256: str, size_bytes: int) -> bool:
    """Record the blob of an upload. Return False if the upload was already verified or rejected."""
    statement = files.update().where(
        files.c.id == upload_id, files.c.uploaded_at.is_(None), files.c.rejection.is_(None)
    )
    result = connection.execute(statement.values(sha256=sha256, size_bytes=size_bytes))
    return result.rowcount == 1


def record_verification(
    connection: Connection,
    upload_id: int,
    *,
    metadata: ArtifactMetadata,
    provenance: Provenance,
    details: UploadDetails,
    model_counts: ModelCounts | None,
) -> None:
    """Record the results of verification, whether or not the upload becomes current."""
    values: dict[str, object] = {name: getattr(metadata, name) for name in _CONTENT_COLUMNS}
    values.update(asdict(provenance))
    values["report"] = "\n".join(details.report)
    values["changes"] = details.changes
    if model_counts is not None:
        values.update(
            models_added=model_counts.added,
            models_removed=model_counts.removed,
            models_changed=model_counts.changed,
        )
    connection.execute(files.update().where(files.c.id == upload_id).values(**values))


def mark_verified(connection: Connection, upload_id: int, uploaded_at: datetime) -> None:
    """Mark an upload as verified, which makes it visible and removes its rejection."""
    values = {"uploaded_at": uploaded_at, "refusal": None, "rejection": None}
    connection.execute(files.update().where(files.c.id == upload_id).values(**values))


def mark_rejected(
    connection: Connection, upload_id: int, reasons: Sequence[Reason], message: str
) -> None:
    """Record why an upload did not become current: a `Rejection`, or the failed checks."""
    values = {"rejection": _SEPARATOR.join(reasons), "refusal": message}
    connection.execute(files.update().where(files.c.id == upload_id).values(**values))


def find_upload_details(connection: Connection, upload_id: int) -> UploadDetails:
    """Return the verification results of an upload, which must exist."""
    query = select(files.c.report, files.c.changes).where(files.c.id == upload_id)
    row = connection.execute(query).one()
    return UploadDetails(tuple((row.report or "").splitlines()), row.changes)


def find_last_unpublished(
    connection: Connection, environment_id: int, token_id: int, *, kind: Kind
) -> Upload | None:
    """Return a token's newest upload that was rejected, or was received but not verified.

    Only the newest received upload of each kind is considered. Return None if it is older than the
    token's newest verified upload of `kind`, which every onboarding uploads. In that case, it
    belongs to an earlier onboarding.
    """
    last_verified = _newest_of_token(
        connection, environment_id, token_id, kind, files.c.uploaded_at.is_not(None)
    )
    newest = [_newest_of_token(connection, environment_id, token_id, each) for each in Kind]
    unpublished = [each for each in newest if each is not None and each.uploaded_at is None]
    newest_unpublished = max(unpublished, key=attrgetter("id"), default=None)
    if newest_unpublished is None or last_verified is None:
        return newest_unpublished
    if newest_unpublished.id < last_verified.id:
        return None
    return newest_unpublished


def _newest_of_token(
    connection: Connection,
    environment_id: int,
    token_id: int,
    kind: Kind,
    *conditions: ColumnElement[bool],
) -> Upload | None:
    """Return a token's newest received upload of a kind that meets the conditions."""
    query = select(*UPLOAD_COLUMNS).where(
        files.c.environment_id == environment_id,
        files.c.token_id == token_id,
        files.c.kind == kind.value,
        files.c.sha256.is_not(None),
        *conditions,
    )
    return _first_upload(connection, query.order_by(files.c.id.desc()))


def list_history(
    connection: Connection,
    environment_id: int,
    *,
    limit: int,
    kind: Kind | None = None,
    include_rejected: bool = False,
) -> Sequence[tuple[Upload, str]]:
    """Return the verified uploads of an environment with their token names, newest first.

    kind: return only uploads of this kind. include_rejected: also return rejected uploads.
    """
    is_shown: ColumnElement[bool] = files.c.uploaded_at.is_not(None)
    if include_rejected:
        is_shown = is_shown | files.c.refusal.is_not(None)
    if kind is not None:
        is_shown = is_shown & (files.c.kind == kind.value)
    query = (
        select(*UPLOAD_COLUMNS, tokens.c.name.label("token_name"))
        .join(tokens, files.c.token_id == tokens.c.id)
        .where(files.c.environment_id == environment_id, is_shown)
        .order_by(files.c.id.desc())
        .limit(limit)
    )
    rows: Iterable[Row[Any]] = connection.execute(query)
    return [(upload_from_row(row), row.token_name) for row in rows]


def _first_upload(connection: Connection, query: Select[Any]) -> Upload | None:
    row = connection.execute(query.limit(1)).first()
    if row is None:
        return None
    return upload_from_row(row)


def upload_from_row(row: Row[Any]) -> Upload:
    """Return the upload in a row that has UPLOAD_COLUMNS."""
    metadata = ArtifactMetadata(
        kind=Kind(row.kind),
        sha256=row.sha256 or "",
        size_bytes=row.size_bytes or 0,
        **{name: getattr(row, name) for name in _CONTENT_COLUMNS},
    )
    return Upload(
        id=row.id,
        environment_id=row.environment_id,
        token_id=row.token_id,
        created_at=row.created_at,
        uploaded_at=row.uploaded_at,
        refusal=row.refusal,
        rejection=row.rejection,
        metadata=metadata,
        provenance=Provenance(row.commit, row.branch, row.build_url),
        model_counts=_model_counts_from_row(row),
    )


def _model_counts_from_row(row: Row[Any]) -> ModelCounts | None:
    if row.models_added is None:
        return None
    return ModelCounts(row.models_added, row.models_removed, row.models_changed)
