"""The audit log: who did what, when, and from which address."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, delete, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import audit

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MAX_ACTOR_LENGTH = 200
_MAX_ADDRESS_LENGTH = 64
_MAX_DETAIL_LENGTH = 500
# Number of newest entries that `list_failed_addresses` searches.
_SEARCHED_ENTRIES = 1000


class AuditAction(StrEnum):
    """An action in the audit log. The value is stored and displayed."""

    TOKEN_CREATED = "token.create"  # noqa: S105
    TOKEN_REVOKED = "token.revoke"  # noqa: S105
    ARTIFACT_RESTORED = "artifact.restore"
    UPLOAD_FORCED = "upload.force"
    UPLOAD_ACCEPTED = "upload.accept"
    CHECK_SKIPPED = "check.skip"
    INTEGRATION_CREATED = "integration.create"
    INTEGRATION_RENAMED = "integration.rename"
    INTEGRATION_DELETED = "integration.delete"
    INTEGRATION_UNDELETED = "integration.undelete"
    CHECKS_CHANGED = "checks.change"
    SIGNING_KEY_ROTATED = "signing_key.rotate"
    SIGN_IN_FAILED = "sign_in.fail"


@dataclass(frozen=True)
class Actor:
    """The originator of an action.

    name: the token's name, or a description. address: the IP address, if known.
    """

    name: str
    token_id: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class AuditEvent:
    """One entry of the audit log. actor: a token's name, or "command line (USER)".

    instance_id: None for a failed sign-in with an unknown token. detail: further information, such
    as a name.
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
    """Add an entry to the audit log, in the transaction of the action."""
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
    """Return at most `limit` entries of an instance or of unknown tokens, newest first.

    since: return only entries from this time on. before_id: return only entries with smaller ids.
    """
    events = []
    # A single query for both would have to sort the entire log.
    for owner in (instance_id, None):
        query = select(audit).where(audit.c.instance_id.is_not_distinct_from(owner))
        if since is not None:
            query = query.where(audit.c.at >= since)
        if before_id is not None:
            query = query.where(audit.c.id < before_id)
        rows = connection.execute(query.order_by(audit.c.id.desc()).limit(limit))
        events += [_event_from_row(row) for row in rows]
    events.sort(key=attrgetter("id"), reverse=True)
    return events[:limit]


def list_failed_addresses(
    connection: Connection, instance_id: int | None, *, since: datetime, limit: int
) -> list[str | None]:
    """Return the addresses of at most `limit` failed sign-ins since a time, newest first.

    instance_id: the instance of the token; None for unknown tokens. Only the newest entries are
    searched, so that a long log does not delay the response to a sign-in.
    """
    newest = (
        select(audit.c.id, audit.c.at, audit.c.action, audit.c.address)
        .where(audit.c.instance_id.is_not_distinct_from(instance_id))
        .order_by(audit.c.id.desc())
        .limit(_SEARCHED_ENTRIES)
        .subquery()
    )
    is_failure = newest.c.action == AuditAction.SIGN_IN_FAILED.value
    query = select(newest.c.address).where(is_failure, newest.c.at >= since)
    return list(connection.scalars(query.order_by(newest.c.id.desc()).limit(limit)))


def delete_older_than(connection: Connection, moment: datetime, *, limit: int) -> int:
    """Delete at most `limit` entries older than a time, and return how many were deleted."""
    # Ids increase over time, so the oldest entries have the smallest ids. This query reads only
    # those.
    oldest = select(audit.c.id, audit.c.at).order_by(audit.c.id).limit(limit).subquery()
    ids = select(oldest.c.id).where(oldest.c.at < moment)
    return connection.execute(delete(audit).where(audit.c.id.in_(ids))).rowcount


def _event_from_row(row: Row[Any]) -> AuditEvent:
    values = dict(row._mapping)
    # A newer release may have stored actions that this release does not define.
    if row.action in set(AuditAction):
        values["action"] = AuditAction(row.action)
    return AuditEvent(**values)
