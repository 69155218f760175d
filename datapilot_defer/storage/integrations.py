"""Integrations and their environments."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, func, select

from datapilot_defer.storage.database import inserted_id, utc_now
from datapilot_defer.storage.tables import environments, integrations

if TYPE_CHECKING:
    from sqlalchemy import Connection

    _IntegrationIds = Sequence[int] | Select[tuple[int]]

# How long a deleted integration and its name are kept.
UNDELETE_PERIOD = timedelta(days=30)


class UploadCheck(StrEnum):
    """A check of a new manifest against the current one. The value is stored and displayed."""

    OLDER = "older"
    SMALLER = "smaller"
    PROJECT = "project"
    RELATIONS = "relations"


@dataclass(frozen=True)
class Environment:
    """An environment of an integration. Names keep their case but are compared ignoring case.

    disabled_checks: the checks that are skipped for uploads to the environment.
    """

    id: int
    integration_id: int
    name: str
    created_at: datetime
    disabled_checks: frozenset[UploadCheck] = frozenset()


@dataclass(frozen=True)
class Integration:
    """An integration, which receives the artifacts of one dbt project.

    project_name: None before the first manifest. deleted_at: None unless it is deleted.
    """

    id: int
    instance_id: int
    name: str
    integration_type: str
    created_at: datetime
    last_modified_at: datetime
    last_file_upload_time: datetime | None
    project_name: str | None
    deleted_at: datetime | None
    environments: tuple[Environment, ...] = ()

    @property
    def purge_at(self) -> datetime | None:
        """Return the end of the undelete period, or None if the integration is not deleted."""
        if self.deleted_at is None:
            return None
        return self.deleted_at + UNDELETE_PERIOD

    @property
    def is_restorable(self) -> bool:
        """Return whether the integration is deleted and can be undeleted."""
        return self.purge_at is not None and self.purge_at > utc_now()

    def environment(self, name: str) -> Environment | None:
        """Return the environment with this name, ignoring case, or None."""
        wanted = normalize_name(name)
        for environment in self.environments:
            if normalize_name(environment.name) == wanted:
                return environment
        return None


# The key for sorting integrations and searching their names.
_SORT_KEY = func.coalesce(integrations.c.name_key, func.lower(integrations.c.name))
_INTEGRATION_COLUMNS = [field.name for field in fields(Integration) if field.name != "environments"]


def normalize_name(name: str) -> str:
    """Return a name of an integration or environment in the form used for comparison."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded)


def create_integration(
    connection: Connection, instance_id: int, *, name: str, integration_type: str
) -> Integration:
    """Create an integration without environments. The name must be unused on its instance."""
    values = {
        "instance_id": instance_id,
        "name": name,
        "name_key": normalize_name(name),
        "integration_type": integration_type,
        "created_at": utc_now(),
        "last_modified_at": utc_now(),
    }
    result = connection.execute(integrations.insert().values(**values))
    query = select(integrations).where(integrations.c.id == inserted_id(result))
    return _integration_from_row(connection.execute(query).one())


def add_environment(connection: Connection, integration_id: int, name: str) -> None:
    """Add an environment to an integration. The name must be unused in the integration."""
    values = {
        "integration_id": integration_id,
        "name": name,
        "folded": normalize_name(name),
        "created_at": utc_now(),
    }
    connection.execute(environments.insert().values(**values))
    _update_integration(connection, integration_id, last_modified_at=utc_now())


def find_integration(
    connection: Connection, instance_id: int, integration_id: int
) -> Integration | None:
    """Return an instance's integration, deleted or not, by its id, or None."""
    query = select(integrations).where(
        integrations.c.instance_id == instance_id, integrations.c.id == integration_id
    )
    row = connection.execute(query).first()
    if row is None:
        return None
    integration = _integration_from_row(row)
    return _with_environments(connection, [integration], [integration.id])[0]


def get_environment(connection: Connection, environment_id: int) -> Environment:
    """Return the environment with this id, which must exist."""
    query = select(environments).where(environments.c.id == environment_id)
    return _environment_from_row(connection.execute(query).one())


def find_integration_by_name(
    connection: Connection, instance_id: int, name: str
) -> Integration | None:
    """Return an instance's integration, deleted or not, by its name, ignoring case.

    An exact match takes precedence, because release 0.1.0 allowed names that differ only in case.
    """
    key = normalize_name(name)
    is_candidate = (
        (integrations.c.name == name)
        | (integrations.c.name_key == key)
        | integrations.c.name_key.is_(None)
    )
    query = select(integrations.c.id, integrations.c.name, integrations.c.name_key).where(
        integrations.c.instance_id == instance_id, is_candidate
    )
    rows = connection.execute(query.order_by(integrations.c.id)).all()
    ranked_ids = [
        (row.name != name, row.name_key is None, row.id)
        for row in rows
        if normalize_name(row.name) == key
    ]
    if not ranked_ids:
        return None
    return find_integration(connection, instance_id, min(ranked_ids)[-1])


def rename_integration(connection: Connection, integration_id: int, name: str) -> None:
    """Rename an integration. No other integration of its instance may have the name."""
    values = {"name": name, "name_key": normalize_name(name), "last_modified_at": utc_now()}
    _update_integration(connection, integration_id, **values)


def set_disabled_checks(
    connection: Connection, environment_id: int, disabled: frozenset[UploadCheck]
) -> None:
    """Set the checks that are skipped for uploads to an environment."""
    names = ",".join(sorted(disabled))
    statement = environments.update().where(environments.c.id == environment_id)
    connection.execute(statement.values(disabled_checks=names or None))


def _update_integration(connection: Connection, integration_id: int, **values: object) -> None:
    statement = integrations.update().where(integrations.c.id == integration_id)
    connection.execute(statement.values(**values))


def list_integrations(
    connection: Connection,
    instance_id: int,
    *,
    only_id: int | None = None,
    name_contains: str = "",
    offset: int = 0,
    limit: int | None = None,
    is_deleted: bool = False,
) -> Sequence[Integration]:
    """Return an instance's integrations, sorted by name, ignoring case.

    only_id: return only the integration with this id. name_contains: return only those whose name
    contains this text, ignoring case. is_deleted: return those that can be undeleted instead.
    """
    matching = _select_matching(
        select(integrations), instance_id, only_id, name_contains, is_deleted
    )
    query = matching.order_by(_SORT_KEY, integrations.c.id).offset(offset).limit(limit)
    listed = [_integration_from_row(row) for row in connection.execute(query)]
    ids: _IntegrationIds = [integration.id for integration in listed]
    if limit is None:
        # Use a subquery, because the number of parameters in a statement is limited.
        ids = matching.with_only_columns(integrations.c.id)
    return _with_environments(connection, listed, ids)


def count_integrations(
    connection: Connection,
    instance_id: int,
    *,
    only_id: int | None = None,
    name_contains: str = "",
) -> int:
    """Return the number of integrations that `list_integrations` returns without a limit."""
    query = select(func.count()).select_from(integrations)
    matching = _select_matching(query, instance_id, only_id, name_contains, is_deleted=False)
    return int(connection.execute(matching).scalar_one())


def _select_matching(
    query: Select[Any],
    instance_id: int,
    only_id: int | None,
    name_contains: str,
    is_deleted: bool,
) -> Select[Any]:
    query = query.where(integrations.c.instance_id == instance_id)
    if is_deleted:
        query = query.where(integrations.c.deleted_at > utc_now() - UNDELETE_PERIOD)
    else:
        query = query.where(integrations.c.deleted_at.is_(None))
    if only_id is not None:
        query = query.where(integrations.c.id == only_id)
    if name_contains:
        part = normalize_name(name_contains)
        query = query.where(_SORT_KEY.contains(part, autoescape=True))
    return query


def record_publication(
    connection: Connection,
    integration_id: int,
    *,
    project_name: str | None,
    uploaded_at: datetime | None = None,
) -> None:
    """Record that an artifact of an integration has just become current.

    project_name: the dbt project of the artifact; None keeps the recorded one. uploaded_at: the
    upload time, if the upload itself made the artifact current.
    """
    values: dict[str, Any] = {"last_modified_at": utc_now()}
    if uploaded_at is not None:
        values["last_file_upload_time"] = uploaded_at
    if project_name is not None:
        values["project_name"] = project_name
    _update_integration(connection, integration_id, **values)


def _with_environments(
    connection: Connection, listed: Sequence[Integration], ids: _IntegrationIds
) -> list[Integration]:
    """Return the integrations with their environments, using one query for all of them."""
    query = select(environments).where(environments.c.integration_id.in_(ids))
    by_integration: dict[int, list[Environment]] = {}
    for row in connection.execute(query.order_by(environments.c.id)):
        environment = _environment_from_row(row)
        by_integration.setdefault(row.integration_id, []).append(environment)
    return [
        replace(integration, environments=tuple(by_integration.get(integration.id, ())))
        for integration in listed
    ]


def _integration_from_row(row: Row[Any]) -> Integration:
    return Integration(**{name: getattr(row, name) for name in _INTEGRATION_COLUMNS})


def _environment_from_row(row: Row[Any]) -> Environment:
    names = (row.disabled_checks or "").split(",")
    # A newer release may have stored checks that this release does not define.
    disabled_checks = frozenset(UploadCheck(name) for name in names if name in set(UploadCheck))
    return Environment(row.id, row.integration_id, row.name, row.created_at, disabled_checks)
