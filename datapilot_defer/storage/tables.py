"""The tables of the records, and the way from an older version of them to this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    inspect,
    select,
)

from datapilot_defer.errors import UsageError

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """A moment, aware and in UTC, also on databases that keep no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the moment in UTC to the database."""
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Take a moment from the database as UTC."""
        return value.replace(tzinfo=value.tzinfo or UTC) if value else None


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _of(table: str, *, nullable: bool = False, name: str | None = None) -> Column[Any]:
    return Column(name or f"{table}_id", Integer, ForeignKey(f"{table}.id"), nullable=nullable)


def _required(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


schema = Table("schema_version", metadata, _required("version", Integer))

instances = Table(
    "instance",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    _required("signing_key", LargeBinary),
    _required("created_at", Instant),
)

tokens = Table(
    "token",
    metadata,
    _id(),
    _of("instance"),
    _required("name", String(200)),
    Column("sha256", String(64), nullable=False, unique=True),
    _required("scopes", String(40)),
    Column("integration_id", Integer, ForeignKey("integration.id")),
    _required("created_at", Instant),
    Column("expires_at", Instant),
    Column("last_used_at", Instant),
    Column("revoked_at", Instant),
)

integrations = Table(
    "integration",
    metadata,
    _id(),
    _of("instance"),
    _required("name", String(200)),
    _required("integration_type", String(20)),
    _required("created_at", Instant),
    _required("last_modified_at", Instant),
    Column("last_file_upload_time", Instant),
    Column("project_name", Text),
    UniqueConstraint("instance_id", "name"),
)

environments = Table(
    "environment",
    metadata,
    _id(),
    _of("integration"),
    _required("name", String(64)),
    _required("folded", String(200)),
    _required("created_at", Instant),
    UniqueConstraint("integration_id", "folded"),
)

files = Table(
    "file",
    metadata,
    _id(),
    _of("environment"),
    _of("token"),
    _required("kind", String(20)),
    _required("created_at", Instant),
    Column("sha256", String(64)),  # set when a blob arrived whole
    Column("size_bytes", Integer),
    Column("uploaded_at", Instant),  # set when it was verified: from then on it is visible
    Column("refusal", Text),
    Column("dbt_version", Text),
    Column("schema_version", Integer),
    Column("project_name", Text),
    Column("node_count", Integer),
    Column("model_count", Integer),
    Column("generated_at", Instant),
    Column("invocation_id", Text),
    Column("commit", Text),
    Column("branch", Text),
    Column("build_url", Text),
    Column("ingestion", String(20)),
    Column(
        "changes", Text
    ),  # JSON: models added, removed and changed since the one that was current before
    Index("file_of_environment", "environment_id", "kind", "uploaded_at"),
    Index("file_of_blob", "sha256"),
)

# Which file was current from when on: the newest row is the current one, a restore adds a row.
publications = Table(
    "publication",
    metadata,
    _id(),
    _of("environment"),
    _required("kind", String(20)),
    _of("file"),
    _required("since", Instant),
    Index("publication_of_environment", "environment_id", "kind", "id"),
    Index("publication_of_file", "file_id"),
)

ingestions = Table(
    "ingestion",
    metadata,
    _id(),
    _of("environment"),
    _required("status", String(20)),
    _required("created_at", Instant),
    Column("lease_until", Instant),  # somebody works on it and is alive
    Column("attempts", Integer, nullable=False, default=0),
    Column("finished_at", Instant),
    Column("log", Text, nullable=False, default=""),
    Index("ingestion_of_environment", "environment_id", "id"),
    Index("ingestion_to_do", "status", "lease_until"),
)

# From version n to n + 1. Never change one that was released: append.
MIGRATIONS: Sequence[Callable[[Connection], None]] = (metadata.create_all,)


def migrate(connection: Connection) -> None:
    """Bring the tables to this program's version, in the transaction of `connection`.

    Raises UsageError when they belong to a newer program: an older one would lose what it does not know.
    """
    known = inspect(connection).has_table(schema.name)
    version = connection.scalar(select(schema.c.version)) if known else 0
    newest = len(MIGRATIONS)
    if version is None or version > newest:
        raise UsageError(
            f"the records have schema version {version}, this program knows versions up to {newest}; "
            "install the newest datapilot-defer[instance]"
        )
    for migration in MIGRATIONS[version:]:
        migration(connection)
    if not known:
        connection.execute(schema.insert().values(version=newest))
    elif version < newest:
        connection.execute(schema.update().values(version=newest))
