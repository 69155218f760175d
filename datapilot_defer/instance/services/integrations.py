"""List, create, rename and delete integrations and their environments."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime

from datapilot_defer.errors import NotFound, UsageError
from datapilot_defer.instance.services.conflicts import Conflict
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.storage import Storage
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage.audit import AuditAction, record_event
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.integrations import Environment, Integration, UploadCheck

MAX_NAME_LENGTH = 200
_MAX_ENVIRONMENT_LENGTH = 64
# Characters that Unicode calls ignorable, although str.isprintable() is true for them.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def find_integration(storage: Storage, principal: Principal, integration_id: int) -> Integration:
    """Return an integration that the token permits. Raises NotFound, also for a deleted one."""
    integration = _find_any_integration(storage, principal, integration_id)
    if integration.deleted_at is not None:
        raise NotFound(
            f"integration {integration_id} was deleted at {integration.deleted_at:%Y-%m-%d %H:%M} "
            "UTC. An admin can undo this with `datapilot dbt integrations undelete`."
        )
    return integration


def _find_any_integration(
    storage: Storage, principal: Principal, integration_id: int
) -> Integration:
    """Return an integration that the token permits, deleted or not. Raises NotFound."""
    with storage.database.read() as connection:
        integration = integration_records.find_integration(
            connection, principal.instance.id, integration_id
        )
    is_permitted = principal.token.integration_id in (None, integration_id)
    if integration is None or not is_permitted:
        name = principal.instance.name
        raise NotFound(f"instance {name!r} has no integration {integration_id}")
    return integration


def find_environment(integration: Integration, name: str) -> Environment:
    """Return an environment of an integration, ignoring case. Raises NotFound."""
    environment = integration.environment(name)
    if environment is None:
        names = ", ".join(known.name for known in integration.environments)
        raise NotFound(
            f"integration {integration.id} has no environment {name!r}; it has: {names or 'none'}"
        )
    return environment


def list_integrations(
    storage: Storage, principal: Principal, *, name_contains: str = "", limit: int | None = None
) -> Sequence[Integration]:
    """Return the integrations that the token permits, sorted by name."""
    with storage.database.read() as connection:
        return integration_records.list_integrations(
            connection,
            principal.instance.id,
            only_id=principal.token.integration_id,
            name_contains=name_contains,
            limit=limit,
        )


def list_deleted_integrations(storage: Storage, principal: Principal) -> Sequence[Integration]:
    """Return the deleted integrations that can be undeleted, sorted by name.

    Raises AccessDenied unless the caller is an admin.
    """
    require_scope(principal, "admin")
    with storage.database.read() as connection:
        return integration_records.list_integrations(
            connection, principal.instance.id, is_deleted=True
        )


def create_integration(
    storage: Storage, principal: Principal, *, name: str, environment: str, integration_type: str
) -> Integration:
    """Create an integration, or add an environment to the existing one of this name.

    Raises AccessDenied, Conflict when the environment exists, UsageError for an invalid name.
    """
    require_scope(principal, "admin")
    name = validate_name(name, "integration", MAX_NAME_LENGTH)
    environment = validate_name(environment, "environment", _MAX_ENVIRONMENT_LENGTH)
    if "/" in environment or "\\" in environment or environment in (".", ".."):
        raise UsageError(
            "the name of an environment is part of a path: "
            "it cannot contain a slash or a backslash, or consist of dots."
        )
    instance_id = principal.instance.id
    with storage.database.write() as connection:
        integration = integration_records.find_integration_by_name(connection, instance_id, name)
        if integration is None:
            integration = integration_records.create_integration(
                connection, instance_id, name=name, integration_type=integration_type
            )
        elif integration.deleted_at is not None:
            raise _reserved_name_error(integration)
        elif integration.environment(environment):
            raise Conflict(
                f"integration {integration.id} already has the name {integration.name!r} "
                f"and an environment {environment}"
            )
        integration_records.add_environment(connection, integration.id, environment)
        record_event(
            connection,
            instance_id,
            principal.actor,
            AuditAction.INTEGRATION_CREATED,
            integration_id=integration.id,
            detail=f"{integration.name}, {environment}",
        )
    return find_integration(storage, principal, integration.id)


def rename_integration(
    storage: Storage, principal: Principal, *, integration_id: int, name: str
) -> Integration:
    """Rename an integration. Raises AccessDenied, NotFound, UsageError, Conflict."""
    require_scope(principal, "admin")
    integration = find_integration(storage, principal, integration_id)
    name = validate_name(name, "integration", MAX_NAME_LENGTH)
    instance_id = principal.instance.id
    with storage.database.write() as connection:
        other = integration_records.find_integration_by_name(connection, instance_id, name)
        if other is not None and other.id != integration_id:
            if other.deleted_at is not None:
                raise _reserved_name_error(other)
            raise Conflict(f"integration {other.id} already has the name {other.name!r}")
        integration_records.rename_integration(connection, integration_id, name)
        record_event(
            connection,
            instance_id,
            principal.actor,
            AuditAction.INTEGRATION_RENAMED,
            integration_id=integration_id,
            detail=f"from {integration.name} to {name}",
        )
    return find_integration(storage, principal, integration_id)


def delete_integration(
    storage: Storage, principal: Principal, *, integration_id: int
) -> Integration:
    """Delete an integration, which can be undone until it is purged.

    Raises AccessDenied, NotFound.
    """
    require_scope(principal, "admin")
    integration = find_integration(storage, principal, integration_id)
    _set_deleted(storage, principal, integration, utc_now(), AuditAction.INTEGRATION_DELETED)
    return _find_any_integration(storage, principal, integration_id)


def undelete_integration(
    storage: Storage, principal: Principal, *, integration_id: int
) -> Integration:
    """Undo the deletion of an integration. Raises AccessDenied, NotFound."""
    require_scope(principal, "admin")
    integration = _find_any_integration(storage, principal, integration_id)
    if integration.deleted_at is not None:
        _set_deleted(storage, principal, integration, None, AuditAction.INTEGRATION_UNDELETED)
    return find_integration(storage, principal, integration_id)


def _set_deleted(
    storage: Storage,
    principal: Principal,
    integration: Integration,
    deleted_at: datetime | None,
    action: AuditAction,
) -> None:
    with storage.database.write() as connection:
        integration_records.set_deleted(connection, integration.id, deleted_at)
        record_event(
            connection,
            principal.instance.id,
            principal.actor,
            action,
            integration_id=integration.id,
            detail=integration.name,
        )


def _reserved_name_error(integration: Integration) -> Conflict:
    return Conflict(
        f"the deleted integration {integration.id} has the name {integration.name!r}, which stays "
        "reserved until it is purged. Undelete it or choose another name."
    )


def set_disabled_checks(
    storage: Storage,
    principal: Principal,
    *,
    integration_id: int,
    environment: str,
    disabled: frozenset[UploadCheck],
) -> None:
    """Set the checks that uploads to an environment skip. Raises AccessDenied, NotFound."""
    require_scope(principal, "admin")
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    names = ", ".join(sorted(disabled)) or "none"
    with storage.database.write() as connection:
        integration_records.set_disabled_checks(connection, selected.id, disabled)
        record_event(
            connection,
            principal.instance.id,
            principal.actor,
            AuditAction.CHECKS_CHANGED,
            integration_id=integration.id,
            detail=f"disabled in {selected.name}: {names}",
        )


def validate_name(text: str, kind: str, max_length: int) -> str:
    """Return a name in Unicode's form NFKC, without surrounding spaces.

    kind: what is named, for the message. Raises UsageError when the name is empty, too long, or
    has characters that cannot be seen.
    """
    name = unicodedata.normalize("NFKC", text).strip()
    if not 1 <= len(name) <= max_length:
        raise UsageError(f"the name of an {kind} has 1 to {max_length} characters")
    if not name.isprintable() or _INVISIBLE.search(name):
        raise UsageError(f"the name of an {kind} cannot contain invisible characters")
    return name
