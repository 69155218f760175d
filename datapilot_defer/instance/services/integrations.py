"""Finding, listing, creating, changing and deleting integrations and their environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from datapilot_defer.errors import NotFound
from datapilot_defer.instance.services.conflicts import Conflict
from datapilot_defer.instance.services.names import (
    MAX_NAME_LENGTH,
    validate_environment_name,
    validate_name,
)
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.storage import Storage
from datapilot_defer.storage import deleted_integrations as deleted_records
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage.audit import AuditAction, record_event
from datapilot_defer.storage.database import Connection, utc_now
from datapilot_defer.storage.integrations import Environment, Integration, UploadCheck


def find_integration(storage: Storage, principal: Principal, integration_id: int) -> Integration:
    """Return an undeleted integration that the token permits. Raises NotFound if there is none."""
    with storage.database.read() as connection:
        return find_active_integration(connection, principal, integration_id)


def find_active_integration(
    connection: Connection, principal: Principal, integration_id: int
) -> Integration:
    """Return an integration as `find_integration` does, within the given transaction."""
    integration = _find_permitted(connection, principal, integration_id)
    if integration.deleted_at is None:
        return integration
    message = f"integration {integration.id} was deleted."
    if principal.token.permits("admin"):
        message = f"{message} {_undelete_advice(integration)}"
    raise NotFound(message)


def _find_permitted(
    connection: Connection, principal: Principal, integration_id: int
) -> Integration:
    """Return an integration that the token permits, deleted or not. Raises NotFound."""
    instance = principal.instance
    integration = integration_records.find_integration(connection, instance.id, integration_id)
    is_permitted = principal.token.integration_id in (None, integration_id)
    if integration is None or not is_permitted:
        raise NotFound(f"instance {instance.name!r} has no integration {integration_id}")
    return integration


def _undelete_advice(integration: Integration) -> str:
    if not integration.is_restorable:
        return "It can no longer be restored and will be removed soon."
    return (
        f"It can be restored until {integration.purge_at:%Y-%m-%d}: "
        f"`datapilot dbt integrations undelete --integration-id {integration.id}`."
    )


def find_environment(integration: Integration, name: str) -> Environment:
    """Return an integration's environment by its name, ignoring case, or otherwise by its id.

    The VS Code extension puts the id into the command line that it offers. Raises NotFound.
    """
    environment = integration.environment(name)
    if environment is None:
        ids = {str(known.id): known for known in integration.environments}
        environment = ids.get(name)
    if environment is None:
        names = ", ".join(known.name for known in integration.environments)
        raise NotFound(
            f"integration {integration.id} has no environment {name!r}. "
            f"Its environments: {names or 'none'}."
        )
    return environment


def list_integrations(
    storage: Storage,
    principal: Principal,
    *,
    name_contains: str = "",
    limit: int | None = None,
) -> Sequence[Integration]:
    """Return the integrations that the token permits, sorted by name.

    name_contains: only integrations whose name contains this text, ignoring case. Deleted
    integrations are omitted.
    """
    with storage.database.read() as connection:
        return integration_records.list_integrations(
            connection,
            principal.instance.id,
            only_id=principal.token.integration_id,
            name_contains=name_contains,
            limit=limit,
        )


def list_deleted_integrations(storage: Storage, principal: Principal) -> Sequence[Integration]:
    """Return the integrations that can be undeleted, sorted by name.

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
    """Create an integration, or add an environment to the existing integration with this name.

    An existing integration keeps its type. Raises AccessDenied, UsageError for an invalid name, and
    Conflict when the environment exists or the name belongs to a deleted integration.
    """
    require_scope(principal, "admin")
    name = validate_name(name, "integration", MAX_NAME_LENGTH)
    environment = validate_environment_name(environment)
    instance_id = principal.instance.id
    with storage.database.write() as connection:
        integration = integration_records.find_integration_by_name(connection, instance_id, name)
        if integration is None:
            integration = integration_records.create_integration(
                connection, instance_id, name=name, integration_type=integration_type
            )
        elif integration.deleted_at is not None:
            raise _name_conflict(integration)
        elif integration.environment(environment):
            raise Conflict(
                f"integration {integration.id} already has the name {integration.name!r} and an "
                f"environment {environment!r}"
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
    """Rename an integration and return it.

    Raises AccessDenied, NotFound, UsageError for an invalid name, and Conflict when another
    integration, deleted or not, already has the name.
    """
    require_scope(principal, "admin")
    name = validate_name(name, "integration", MAX_NAME_LENGTH)
    instance_id = principal.instance.id
    with storage.database.write() as connection:
        integration = find_active_integration(connection, principal, integration_id)
        other = integration_records.find_integration_by_name(connection, instance_id, name)
        if other is not None and other.id != integration.id:
            raise _name_conflict(other)
        if integration.name == name:
            return integration
        integration_records.rename_integration(connection, integration.id, name)
        record_event(
            connection,
            instance_id,
            principal.actor,
            AuditAction.INTEGRATION_RENAMED,
            integration_id=integration.id,
            detail=f"from {integration.name} to {name}",
        )
    return replace(integration, name=name)


def _name_conflict(other: Integration) -> Conflict:
    """Return the error for a name that another integration already has."""
    if other.deleted_at is None:
        return Conflict(f"integration {other.id} already has the name {other.name!r}")
    return Conflict(
        f"the name {other.name!r} is reserved for the deleted integration {other.id}. "
        f"{_undelete_advice(other)} Otherwise use another name."
    )


def delete_integration(
    storage: Storage, principal: Principal, *, integration_id: int
) -> Integration:
    """Mark an integration as deleted and return it.

    The integration is kept and its name is reserved until `purge_at`. Raises AccessDenied or
    NotFound.
    """
    require_scope(principal, "admin")
    with storage.database.write() as connection:
        integration = find_active_integration(connection, principal, integration_id)
        deleted = replace(integration, deleted_at=utc_now())
        _set_deleted_at(connection, principal, deleted, AuditAction.INTEGRATION_DELETED)
    return deleted


def undelete_integration(
    storage: Storage, principal: Principal, *, integration_id: int
) -> Integration:
    """Restore a deleted integration with its artifacts, and return it.

    Raises AccessDenied, NotFound when it is unknown or can no longer be restored, and Conflict when
    it is not deleted.
    """
    require_scope(principal, "admin")
    with storage.database.write() as connection:
        integration = _find_permitted(connection, principal, integration_id)
        if integration.deleted_at is None:
            raise Conflict(f"integration {integration.id} is not deleted")
        if not integration.is_restorable:
            days = integration_records.UNDELETE_PERIOD.days
            raise NotFound(
                f"integration {integration.id} can no longer be restored: this is possible for "
                f"{days} days after its deletion"
            )
        undeleted = replace(integration, deleted_at=None)
        _set_deleted_at(connection, principal, undeleted, AuditAction.INTEGRATION_UNDELETED)
    return undeleted


def _set_deleted_at(
    connection: Connection, principal: Principal, integration: Integration, action: AuditAction
) -> None:
    deleted_records.set_deleted_at(connection, integration.id, integration.deleted_at)
    record_event(
        connection,
        principal.instance.id,
        principal.actor,
        action,
        integration_id=integration.id,
        detail=integration.name,
    )


def set_disabled_checks(
    storage: Storage,
    principal: Principal,
    *,
    integration_id: int,
    environment: str,
    disabled: frozenset[UploadCheck],
) -> Environment:
    """Set the checks that uploads to an environment skip, and return the environment.

    Raises AccessDenied or NotFound.
    """
    require_scope(principal, "admin")
    with storage.database.write() as connection:
        integration = find_active_integration(connection, principal, integration_id)
        selected = find_environment(integration, environment)
        changed = replace(selected, disabled_checks=disabled)
        if changed == selected:
            return selected
        integration_records.set_disabled_checks(connection, selected.id, changed.disabled_checks)
        names = ", ".join(sorted(changed.disabled_checks)) or "none"
        record_event(
            connection,
            principal.instance.id,
            principal.actor,
            AuditAction.CHECKS_CHANGED,
            integration_id=integration.id,
            detail=f"disabled in {selected.name}: {names}",
        )
    return changed
