"""Files of an environment: announced, arrived, verified; and which of them was current when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import environments, files, integrations, publications, tokens

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class Upload:
    """One upload of an artifact. sha256 is None until it arrived whole, uploaded_at until it was verified.

    refusal: why a guard did not let it become current. changes: JSON, see `instance.inspection`.
    """

    id: int
    environment_id: int
    token_id: int
    kind: str
    created_at: datetime
    sha256: str | None
    size_bytes: int | None
    uploaded_at: datetime | None
    refusal: str | None
    dbt_version: str | None
    schema_version: int | None
    project_name: str | None
    node_count: int | None
    model_count: int | None
    generated_at: datetime | None
    invocation_id: str | None
    commit: str | None
    branch: str | None
    build_url: str | None
    ingestion: str | None
    changes: str | None


def create_upload(connection: Connection, *, environment_id: int, token_id: int, kind: str) -> int:
    """Make the record of an upload to come; gives its id."""
    values = {
        "environment_id": environment_id,
        "token_id": token_id,
        "kind": kind,
        "created_at": utc_now(),
    }
    key: Any = connection.execute(files.insert().values(**values)).inserted_primary_key
    return int(key[0])


def find_upload(connection: Connection, file_id: int) -> Upload | None:
    """Give a file by its id."""
    row = connection.execute(select(files).where(files.c.id == file_id)).first()
    return _upload_from_row(row) if row else None


def locate_upload(connection: Connection, file_id: int) -> tuple[int, int, int] | None:
    """Give the ids of the instance, the integration and the environment that a file belongs to."""
    joined = files.join(environments, files.c.environment_id == environments.c.id).join(
        integrations
    )
    query = select(integrations.c.instance_id, integrations.c.id, environments.c.id).select_from(
        joined
    )
    row = connection.execute(query.where(files.c.id == file_id)).first()
    return (row[0], row[1], row[2]) if row else None


def mark_received(connection: Connection, file_id: int, *, sha256: str, size_bytes: int) -> bool:
    """Record which blob a file is; False when it was verified before: then it stays what it was."""
    open_one = (files.c.id == file_id) & files.c.uploaded_at.is_(None)
    values = {"sha256": sha256, "size_bytes": size_bytes, "refusal": None}
    return connection.execute(files.update().where(open_one).values(**values)).rowcount == 1


def update_upload(connection: Connection, file_id: int, **values: object) -> None:
    """Set fields of a file."""
    connection.execute(files.update().where(files.c.id == file_id).values(**values))


def make_current(connection: Connection, file: Upload, since: datetime) -> None:
    """Make a verified file the current one of its environment and kind, from this moment on."""
    values = {
        "environment_id": file.environment_id,
        "kind": file.kind,
        "file_id": file.id,
        "since": since,
    }
    connection.execute(publications.insert().values(**values))


def find_current(
    connection: Connection, environment_id: int, kind: str, *, at: datetime | None = None
) -> Upload | None:
    """Give the file of a kind that is current in an environment, or was at a moment."""
    query = _publications_query(environment_id).where(publications.c.kind == kind)
    if at is not None:
        query = query.where(publications.c.since <= at)
    row = connection.execute(query.order_by(publications.c.id.desc()).limit(1)).first()
    return _upload_from_row(row) if row else None


def list_current(connection: Connection, environment_id: int) -> Sequence[Upload]:
    """Give the current file of each kind in an environment."""
    newest = select(func.max(publications.c.id)).where(
        publications.c.environment_id == environment_id
    )
    query = _publications_query(environment_id).where(
        publications.c.id.in_(newest.group_by(publications.c.kind))
    )
    return [_upload_from_row(row) for row in connection.execute(query)]


def find_previous(connection: Connection, file: Upload) -> Upload | None:
    """Give the file of the same kind that was verified before this one."""
    earlier = (
        (files.c.environment_id == file.environment_id)
        & (files.c.kind == file.kind)
        & (files.c.id < file.id)
    )
    query = (
        select(files)
        .where(earlier, files.c.uploaded_at.is_not(None))
        .order_by(files.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return _upload_from_row(row) if row else None


def find_last_rejected(
    connection: Connection, environment_id: int, token_id: int, *, kind: str
) -> Upload | None:
    """Give the newest upload of a token that was refused and that no upload of its kind followed.

    kind: what every onboarding holds; what was refused before the newest verified one of it is of an earlier one.
    """
    mine = (
        (files.c.environment_id == environment_id)
        & (files.c.token_id == token_id)
        & files.c.sha256.is_not(None)
    )
    verified = mine & (files.c.kind == kind) & files.c.uploaded_at.is_not(None)
    begun = select(func.coalesce(func.max(files.c.id), 0)).where(verified).scalar_subquery()
    newest = select(func.max(files.c.id)).where(mine).group_by(files.c.kind)
    refused = files.c.id.in_(newest) & files.c.refusal.is_not(None) & (files.c.id > begun)
    row = connection.execute(select(files).where(refused).order_by(files.c.id.desc())).first()
    return _upload_from_row(row) if row else None


def list_history(
    connection: Connection, environment_id: int, *, limit: int, refused: bool = False
) -> Sequence[tuple[Upload, str]]:
    """Give an environment's verified files, the newest first, with their tokens' names.

    refused: also those that were refused.
    """
    query = select(files, tokens.c.name.label("token_name")).join(
        tokens, files.c.token_id == tokens.c.id
    )
    shown: ColumnElement[bool] = files.c.uploaded_at.is_not(None)
    if refused:
        shown = shown | files.c.refusal.is_not(None)
    query = (
        query.where(files.c.environment_id == environment_id, shown)
        .order_by(files.c.id.desc())
        .limit(limit)
    )
    return [(_upload_from_row(row), row.token_name) for row in connection.execute(query)]


def environments_over_retention(
    connection: Connection, *, count: int, age: timedelta | None
) -> list[int]:
    """Give the ids of the environments that hold more different, or older, files of a kind than retention keeps."""
    too_many: ColumnElement[bool] = func.count(files.c.sha256.distinct()) > count
    if age is not None:
        too_many = too_many | (func.min(files.c.uploaded_at) < utc_now() - age)
    query = select(files.c.environment_id).where(files.c.uploaded_at.is_not(None)).distinct()
    return list(
        connection.scalars(query.group_by(files.c.environment_id, files.c.kind).having(too_many))
    )


def delete_beyond_retention(
    connection: Connection, environment_id: int, *, count: int, age: timedelta | None
) -> int:
    """Forget files of an environment beyond the newest `count` of a kind or older than `age`; never a current one.

    Equal bytes count once: a job that onboards the same every hour pushes nothing out.
    """
    keep = {each.id for each in list_current(connection, environment_id)}
    verified = (files.c.environment_id == environment_id) & files.c.uploaded_at.is_not(None)
    kept: dict[str, set[str]] = {}
    drop = []
    columns = select(files.c.id, files.c.kind, files.c.sha256, files.c.uploaded_at)
    for row in connection.execute(columns.where(verified).order_by(files.c.id.desc())):
        newest = kept.setdefault(row.kind, set())
        if len(newest) < count:
            newest.add(row.sha256)
        too_old = age is not None and utc_now() - row.uploaded_at > age
        if row.id not in keep and (row.sha256 not in newest or too_old):
            drop.append(row.id)
    for file_id in drop:
        connection.execute(delete(publications).where(publications.c.file_id == file_id))
        connection.execute(delete(files).where(files.c.id == file_id))
    return len(drop)


def delete_unverified(connection: Connection, age: timedelta) -> None:
    """Forget uploads that were announced longer ago than `age` and never verified."""
    stale = files.c.uploaded_at.is_(None) & (files.c.created_at < utc_now() - age)
    connection.execute(delete(files).where(stale))


def is_blob_referenced(connection: Connection, owner: int, sha256: str) -> bool:
    """Whether a file of the instance with the id `owner` is this blob."""
    joined = files.join(environments, files.c.environment_id == environments.c.id).join(
        integrations
    )
    query = select(files.c.id).select_from(joined)
    return (
        connection.execute(
            query.where(files.c.sha256 == sha256, integrations.c.instance_id == owner)
        ).first()
        is not None
    )


def _publications_query(environment_id: int) -> Select[Any]:
    joined = select(files).join(publications, publications.c.file_id == files.c.id)
    return joined.where(publications.c.environment_id == environment_id)


def _upload_from_row(row: Row[Any]) -> Upload:
    return Upload(**{name: value for name, value in row._mapping.items() if name != "token_name"})
