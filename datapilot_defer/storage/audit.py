"""The audit log: who did what, when, and from which address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, delete, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import audit

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MAX_ACTOR_LENGTH = 200
_MAX_ADDRESS_LENGTH = 64
_MAX_DETAIL_LENGTH = 500


class AuditAction(StrEnum):
    """What was done. The value is stored and shown."""

    TOKEN_CREATED = "token.create"  # noqa: S105
    TOKEN_REVOKED = "token.revoke"  # noqa: S105
    ARTIFACT_RESTORED = "artifact.restore"
    UPLOAD_FORCED = "upload.force"
    UPLOAD_ACCEPTED = "upload.accept"
    INTEGRATION_CREATED = "integration.create"
    INTEGRATION_RENAMED = "integration.rename"
    INTEGRATION_DELETED = "integration.delete"
    INTEGRATION_UNDELETED = "integration.undelete"
    CHECKS_CHANGED = "checks.change"
    SIGNING_KEY_ROTATED = "signing_key.rotate"
    SIGN_IN_FAILED = "sign_in.fail"


@dataclass(frozen=True)
class Actor:
    """Who does something. name: of the token, or a description. address: IP address, if known."""

    name: str
    token_id: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class AuditEvent:
    """One entry of the audit log. actor: a token's name, or "command line (USER)".

    instance_id: None for a failed sign-in with an unknown token. detail: such as a name.
    """

    id: int
    instance_id: int | None
    at: datetime
    action: AuditAction | str
    actor: str
    token_id: int | None
    address: str | None
    integration_id: int | None
    detail: str


def record_event(
    connection: Connection,
    instance_id: int | None,
    actor: Actor,
    action: AuditAction,
    *,
    integration_id: int | None = None,
    detail: str = "",
) -> None:
    """Add an entry to the audit log, in the transaction of what it records."""
    address = None
    if actor.address is not None:
        address = actor.address[:_MAX_ADDRESS_LENGTH]
    values = {
        "instance_id": instance_id,
        "at": utc_now(),
        "action": action.value,
        "actor": actor.name[:_MAX_ACTOR_LENGTH],
        "token_id": actor.token_id,
        "address": address,
        "integration_id": integration_id,
        "detail": detail[:_MAX_DETAIL_LENGTH],
    }
    connection.execute(audit.insert().values(**values))


def list_events(
    connection: Connection,
    instance_id: int,
    *,
    limit: int,
    since: datetime | None = None,
    before_id: int | None = None,
) -> Sequence[AuditEvent]:
    """Return the entries of an instance, the newest first, with those of unknown tokens."""
    query = select(audit).where(
        (audit.c.instance_id == instance_id) | audit.c.instance_id.is_(None)
    )
    if since is not None:
        query = query.where(audit.c.at >= since)
    if before_id is not None:
        query = query.where(audit.c.id < before_id)
    rows = connection.execute(query.order_by(audit.c.id.desc()).limit(limit))
    return [_event_from_row(row) for row in rows]


def delete_events_before(connection: Connection, moment: datetime) -> None:
    """Delete the entries that are older than a time."""
    connection.execute(delete(audit).where(audit.c.at < moment))


def _event_from_row(row: Row[Any]) -> AuditEvent:
    values = dict(row._mapping)
    # A newer release may have stored actions that this one does not have.
    if row.action in set(AuditAction):
        values["action"] = AuditAction(row.action)
    return AuditEvent(**values)
