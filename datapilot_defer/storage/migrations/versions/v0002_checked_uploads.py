"""Sessions, audit log, verification results, deleted integrations and retention tombstones."""

from __future__ import annotations

import json
import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Constants of this migration, independent of what later migrations change.
_MOMENT = sa.DateTime(timezone=True)
_MAX_CHANGES_LENGTH = 64 * 1024
_BATCH_SIZE = 500


def upgrade() -> None:
    """Add tables and columns, and fill the columns that can be derived from existing ones."""
    _create_tables()
    _add_columns()
    _create_partial_indexes()
    connection = op.get_bind()
    _fill_name_keys(connection)
    op.create_index("integration_name_key", "integration", ["instance_id", "name_key"], unique=True)
    _drop_oversized_changes(connection)
    _fill_model_counts(connection)


def _create_tables() -> None:
    op.create_table(
        "session",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("token_id", sa.Integer, sa.ForeignKey("token.id"), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
    )
    op.create_index("session_of_token", "session", ["token_id"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("instance_id", sa.Integer, sa.ForeignKey("instance.id")),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("token_id", sa.Integer, sa.ForeignKey("token.id")),
        sa.Column("address", sa.String(64)),
        sa.Column("integration_id", sa.Integer),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("audit_of_instance", "audit", ["instance_id", "id"])


def _add_columns() -> None:
    op.add_column("schema_version", sa.Column("compatible_from", sa.Integer))
    op.add_column("instance", sa.Column("stored_bytes", sa.BigInteger))
    op.add_column("integration", sa.Column("name_key", sa.String(600)))
    op.add_column("integration", sa.Column("deleted_at", _MOMENT))
    op.add_column("environment", sa.Column("disabled_checks", sa.String(100)))
    op.add_column("file", sa.Column("rejection", sa.String(100)))
    op.add_column("file", sa.Column("report", sa.Text))
    for name in ("models_added", "models_removed", "models_changed"):
        op.add_column("file", sa.Column(name, sa.Integer))
    with op.batch_alter_table("publication") as publication:
        publication.alter_column("file_id", existing_type=sa.Integer, nullable=True)
        publication.add_column(sa.Column("token_id", sa.Integer))
        publication.add_column(sa.Column("reason", sa.String(20)))
        publication.create_foreign_key("publication_token", "token", ["token_id"], ["id"])
    op.create_index("publication_at", "publication", ["environment_id", "kind", "since"])
    op.create_index("publication_history", "publication", ["environment_id", "id"])


def _create_partial_indexes() -> None:
    is_shown = "uploaded_at IS NOT NULL OR refusal IS NOT NULL"
    op.create_index(
        "file_history", "file", ["environment_id", "id"], sqlite_where=sa.text(is_shown)
    )
    op.create_index(
        "file_rejected",
        "file",
        ["environment_id", "kind", "id"],
        sqlite_where=sa.text("refusal IS NOT NULL"),
    )
    op.create_index(
        "file_of_token",
        "file",
        ["environment_id", "token_id", "kind", "id"],
        sqlite_where=sa.text("sha256 IS NOT NULL"),
    )


def _fill_name_keys(connection: sa.Connection) -> None:
    """Set the keys for comparing names.

    If integrations of an instance share a key, only the oldest one gets it.
    """
    integration = sa.table(
        "integration", *map(sa.column, ("id", "instance_id", "name", "name_key"))
    )
    used_keys: set[tuple[int, str]] = set()
    query = sa.select(integration.c.id, integration.c.instance_id, integration.c.name)
    for row in connection.execute(query.order_by(integration.c.id)).all():
        key = (row.instance_id, _name_key(row.name))
        if key in used_keys:
            continue
        used_keys.add(key)
        statement = integration.update().where(integration.c.id == row.id)
        connection.execute(statement.values(name_key=key[1]))


def _name_key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded)


def _drop_oversized_changes(connection: sa.Connection) -> None:
    """Delete oversized stored changes. Release 0.1.0 did not limit the lengths of names."""
    file = sa.table("file", sa.column("changes"))
    is_oversized = sa.func.length(file.c.changes) > _MAX_CHANGES_LENGTH
    connection.execute(file.update().where(is_oversized).values(changes=None))


def _fill_model_counts(connection: sa.Connection) -> None:
    """Copy the numbers of models in the stored changes to separate columns."""
    file = sa.table(
        "file",
        *map(sa.column, ("id", "changes", "models_added", "models_removed", "models_changed")),
    )
    last_id = 0
    while True:
        query = sa.select(file.c.id, file.c.changes).where(
            file.c.id > last_id, file.c.changes.is_not(None)
        )
        rows = connection.execute(query.order_by(file.c.id).limit(_BATCH_SIZE)).all()
        if not rows:
            return
        for row in rows:
            counts = _read_counts(row.changes)
            connection.execute(file.update().where(file.c.id == row.id).values(**counts))
        last_id = rows[-1].id


def _read_counts(changes: str) -> dict[str, int | None]:
    """Return the numbers of models in stored changes, by column name.

    If they cannot be read, return only models_added, with the value None.
    """
    try:
        counts = json.loads(changes)
        return {f"models_{word}": int(counts[word]) for word in ("added", "removed", "changed")}
    except (ValueError, KeyError, TypeError):
        return {"models_added": None}
