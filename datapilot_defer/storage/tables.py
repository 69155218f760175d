"""Table definitions of the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
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
    text,
)

metadata = MetaData()
# The largest value that an id column can have in every database.
MAX_ID = 2**31 - 1


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware timestamp in UTC, even on databases that do not store a time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a timestamp to UTC for the database."""
        if value is None:
            return None
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return a timestamp from the database as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=value.tzinfo or UTC)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _foreign_key(table: str, *, nullable: bool = False) -> Column[Any]:
    return Column(f"{table}_id", Integer, ForeignKey(f"{table}.id"), nullable=nullable)


def _not_null(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _partial_index(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where))


# Only release 0.1.0 reads "version", and it accepts only 1. "compatible_from" is the number of the
# migration that a program must include to use the database.
schema = Table(
    "schema_version",
    metadata,
    _not_null("version", Integer),
    Column("compatible_from", Integer),
)

instances = Table(
    "instance",
    metadata,
    _id(),
    Column("name", String(63), nullable=False, unique=True),
    _not_null("signing_key", LargeBinary),
    _not_null("created_at", UtcDateTime),
    # Total size of all blobs. Exact after a sweep; uploads add to it. NULL: not yet measured.
    Column("stored_bytes", BigInteger),
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

# Sessions of the web pages. sha256: the hash of the random id in the cookie.
sessions = Table(
    "session",
    metadata,
    _id(),
    _foreign_key("token"),
    Column("sha256", String(64), nullable=False, unique=True),
    _not_null("created_at", UtcDateTime),
    _not_null("expires_at", UtcDateTime),
    Index("session_of_token", "token_id"),
)

# instance_id: NULL for a failed sign-in with an unknown token. integration_id: not a foreign key,
# because the integration may have been deleted since.
audit = Table(
    "audit",
    metadata,
    _id(),
    _foreign_key("instance", nullable=True),
    _not_null("at", UtcDateTime),
    _not_null("action", String(40)),
    _not_null("actor", String(200)),
    _foreign_key("token", nullable=True),
    Column("address", String(64)),
    Column("integration_id", Integer),
    _not_null("detail", Text),
    Index("audit_of_instance", "instance_id", "id"),
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
    # normalize_name(name). NULL if another integration has the same key or release 0.1.0 created
    # it.
    Column("name_key", String(600)),
    Column("deleted_at", UtcDateTime),
    UniqueConstraint("instance_id", "name"),
    Index("integration_name_key", "instance_id", "name_key", unique=True),
)

environments = Table(
    "environment",
    metadata,
    _id(),
    _foreign_key("integration"),
    _not_null("name", String(64)),
    _not_null("folded", String(200)),
    _not_null("created_at", UtcDateTime),
    Column("disabled_checks", String(100)),  # values of UploadCheck, separated by commas
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
    Column("sha256", String(64)),  # set when all bytes are stored
    Column("size_bytes", Integer),
    Column("uploaded_at", UtcDateTime),  # set by verification, which makes the upload visible
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
    Column("ingestion", String(20)),  # see ingestions
    Column("rejection", String(100)),  # a Rejection, or the failed checks
    Column("report", Text),  # lines of the verification report
    # Differences from the previous manifest. changes: JSON of a model_changes.ModelChanges. Lists
    # do not select this column because it is long.
    Column("models_added", Integer),
    Column("models_removed", Integer),
    Column("models_changed", Integer),
    Column("changes", Text),
    Index("file_of_environment", "environment_id", "kind", "uploaded_at"),
    # Uploads that were only announced are left out, because a token can announce any number of
    # them.
    _partial_index(
        "file_history",
        "environment_id",
        "id",
        where="uploaded_at IS NOT NULL OR refusal IS NOT NULL",
    ),
    _partial_index("file_rejected", "environment_id", "kind", "id", where="refusal IS NOT NULL"),
    _partial_index(
        "file_of_token", "environment_id", "token_id", "kind", "id", where="sha256 IS NOT NULL"
    ),
    Index("file_of_blob", "sha256"),
)

# When each upload became current. The newest row is the current upload; a restore adds a row.
# file_id: NULL when retention has removed the upload.
publications = Table(
    "publication",
    metadata,
    _id(),
    _foreign_key("environment"),
    _not_null("kind", String(20)),
    _foreign_key("file", nullable=True),
    _not_null("since", UtcDateTime),
    _foreign_key("token", nullable=True),
    Column("reason", String(20)),  # a value of PublicationReason
    Index("publication_of_environment", "environment_id", "kind", "id"),
    Index("publication_at", "environment_id", "kind", "since"),
    Index("publication_history", "environment_id", "id"),
    Index("publication_of_file", "file_id"),
)

# Only release 0.1.0 uses this table and "file.ingestion". Keep both until no supported release can
# share a database with release 0.1.0.
ingestions = Table(
    "ingestion",
    metadata,
    _id(),
    _foreign_key("environment"),
    _not_null("status", String(20)),
    _not_null("created_at", UtcDateTime),
    Column("lease_until", UtcDateTime),
    Column("attempts", Integer, nullable=False, default=0),
    Column("finished_at", UtcDateTime),
    Column("log", Text, nullable=False, default=""),
    Index("ingestion_of_environment", "environment_id", "id"),
    Index("ingestion_to_do", "status", "lease_until"),
)
