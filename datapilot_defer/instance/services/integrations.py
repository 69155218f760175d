"""List and create integrations and environments."""

from __future__ import annotations

import re
from collections.abc import Sequence

from datapilot_defer.errors import NotFound, UsageError
from datapilot_defer.instance.services.conflicts import Conflict
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.storage import Storage
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage.integrations import Environment, Integration

MAX_NAME_LENGTH = 200
_MAX_ENVIRONMENT_LENGTH = 64
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def find_integration(storage: Storage, principal: Principal, integration_id: int) -> Integration:
    """Return an integration that the token permits. Raises NotFound."""
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
            "an environment's name is a part of a path: no slash, no backslash, not only dots"
        )
    instance_id = principal.instance.id
    with storage.database.write() as connection:
        integration = integration_records.find_integration_by_name(connection, instance_id, name)
        if integration is None:
            integration = integration_records.create_integration(
                connection, instance_id, name=name, integration_type=integration_type
            )
        elif integration.environment(environment):
            raise Conflict(
                f"integration {integration.id} has this name, "
                f"and an environment {environment}, already"
            )
        integration_records.add_environment(connection, integration.id, environment)
    return find_integration(storage, principal, integration.id)


def validate_name(text: str, kind: str, max_length: int) -> str:
    """Return a name without surrounding spaces.

    kind: what is named, for the message. Raises UsageError when the name is empty, too long or
    not printable.
    """
    name = text.strip()
    if not 1 <= len(name) <= max_length or _UNPRINTABLE.search(name):
        raise UsageError(f"the name of an {kind} has 1 to {max_length} printable characters")
    return name
