"""Reading the audit log, and recording failed sign-ins."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.services.instances import select_instance
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.instance.services.token_format import hash_token, is_well_formed
from datapilot_defer.storage import Storage
from datapilot_defer.storage import audit as audit_records
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.audit import Actor, AuditAction, AuditEvent
from datapilot_defer.storage.database import Connection, utc_now
from datapilot_defer.storage.tokens import Token

# Limits on the failed sign-ins that are recorded for an instance. They permit about half a million
# entries in the 400 days for which entries are kept.
_FAILURE_WINDOW = timedelta(hours=1)
_MAX_FAILURES = 60
_MAX_FAILURES_OF_ADDRESS = 10


def list_events(
    storage: Storage, principal: Principal, *, limit: int, before_id: int | None = None
) -> Sequence[AuditEvent]:
    """Return the entries of the caller's instance and of unknown tokens, newest first.

    before_id: only entries that are older than this one. Raises AccessDenied unless the caller is
    an admin.
    """
    require_scope(principal, "admin")
    with storage.database.read() as connection:
        return audit_records.list_events(
            connection, principal.instance.id, limit=limit, before_id=before_id
        )


def list_events_of_instance(
    storage: Storage, instance_name: str | None, *, limit: int, since: datetime | None
) -> Sequence[AuditEvent]:
    """Return the entries of an instance and of unknown tokens, newest first.

    instance_name: None selects the only instance. since: only entries from this time on. Raises
    UsageError or NotFound.
    """
    with storage.database.read() as connection:
        instance = select_instance(connection, instance_name)
        return audit_records.list_events(connection, instance.id, limit=limit, since=since)


def record_failed_sign_in(storage: Storage, token: str, address: str | None) -> None:
    """Record a failed sign-in, unless too many were recorded recently.

    The entry never contains the token. If the database is unavailable, nothing is recorded.
    """
    with suppress(Unavailable):
        with storage.database.read() as connection:
            record = _find_token(connection, token)
            if _is_limit_reached(connection, record, address):
                return
        with storage.database.write() as connection:
            if _is_limit_reached(connection, record, address):
                return
            _record_failure(connection, record, address)


def _find_token(connection: Connection, token: str) -> Token | None:
    if not is_well_formed(token):
        return None
    return token_records.find_token(connection, hash_token(token))


def _is_limit_reached(connection: Connection, record: Token | None, address: str | None) -> bool:
    instance_id = None
    if record is not None:
        instance_id = record.instance_id
    addresses = audit_records.list_failed_addresses(
        connection, instance_id, since=utc_now() - _FAILURE_WINDOW, limit=_MAX_FAILURES
    )
    is_frequent = addresses.count(address) >= _MAX_FAILURES_OF_ADDRESS
    return is_frequent or len(addresses) >= _MAX_FAILURES


def _record_failure(connection: Connection, record: Token | None, address: str | None) -> None:
    instance_id = None
    actor = Actor("unknown token", address=address)
    detail = ""
    if record is not None:
        instance_id = record.instance_id
        actor = Actor(record.name, record.id, address)
        detail = "the token has expired"
        if record.revoked_at is not None:
            detail = "the token is revoked"
    audit_records.record_event(
        connection, instance_id, actor, AuditAction.SIGN_IN_FAILED, detail=detail
    )
