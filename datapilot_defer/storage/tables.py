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


class UtcDateTime(TypeDecorator[datetime]):
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


def _foreign_key(table: str, *, nullable: bool = False, name: str | None = None) -> Column[Any]:
    return Column(name or f"{table}_id", Integer, ForeignKey(f"{table}.id"), nullable=nullable)


def _not_null(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


schema = Table("schema_version", metadata, _not_null("version", Integer))

instances = Table(
    "instance",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    _not_null("signing_key", LargeBinary),
    _not_null("created_at", UtcDateTime),
)

tokens = Table(
    "token",
    metadata,
    _id(),
    _foreign_key("instance"),
    _not_null("name", String(200)),
    Column("sha256", String(64), nullable=False, unique=True),
    _not_null("scopes", String(40)),
    Column("integration_id", Integer, ForeignKey("integration.id")),
    _not_null("created_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)

integrations = Table(
    "integration",
    metadata,
    _id(),
    _foreign_key("instance"),
    _not_null("name", String(200)),
    _not_null("integration_type", String(20)),
    _not_null("created_at", UtcDateTime),
    _not_null("last_modified_at", UtcDateTime),
    Column("last_file_upload_time", UtcDateTime),
    Column("project_name", Text),
    UniqueConstraint("instance_id", "name"),
)

environments = Table(
    "environment",
    metadata,
    _id(),
    _foreign_key("integration"),
    _not_null("name", String(64)),
    _not_null("folded", String(200)),
    _not_null("created_at", UtcDateTime),
    UniqueConstraint("integration_id", "folded"),
)

files = Table(
    "file",
    metadata,
    _id(),
    _foreign_key("environment"),
    _foreign_key("token"),
    _not_null("kind", String(20)),
    _not_null("created_at", UtcDateTime),
    Column("sha256", String(64)),  # set when a blob arrived whole
    Column("size_bytes", Integer),
    Column("uploaded_at", UtcDateTime),  # set when it was verified: from then on it is visible
    Column("refusal", Text),
    Column("dbt_version", Text),
    Column("schema_version", Integer),
    Column("project_name", Text),
    Column("node_count", Integer),
    Column("model_count", Integer),
    Column("generated_at", UtcDateTime),
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
    _foreign_key("environment"),
    _not_null("kind", String(20)),
    _foreign_key("file"),
    _not_null("since", UtcDateTime),
    Index("publication_of_environment", "environment_id", "kind", "id"),
    Index("publication_of_file", "file_id"),
)

ingestions = Table(
    "ingestion",
    metadata,
    _id(),
    _foreign_key("environment"),
    _not_null("status", String(20)),
    _not_null("created_at", UtcDateTime),
    Column("lease_until", UtcDateTime),  # somebody works on it and is alive
    Column("attempts", Integer, nullable=False, default=0),
    Column("finished_at", UtcDateTime),
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
