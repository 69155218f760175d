"""Read the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from datapilot_defer.instance.services import instances
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.storage import Storage
from datapilot_defer.storage import audit as audit_records
from datapilot_defer.storage.audit import AuditEvent


def list_events(
    storage: Storage, principal: Principal, *, limit: int, before_id: int | None = None
) -> Sequence[AuditEvent]:
    """Return the entries of the caller's instance, from new to old.

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
    """Return the entries of an instance, from new to old; None selects the only instance.

    Raises UsageError, NotFound.
    """
    with storage.database.read() as connection:
        instance = instances.select_instance(connection, instance_name)
        return audit_records.list_events(connection, instance.id, limit=limit, since=since)
