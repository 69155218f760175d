"""Integrations and their environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, func, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import environments, integrations

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class Environment:
    """An environment of an integration. name: as it was first written; it is found without regard to case."""

    id: int
    integration_id: int
    name: str
    created_at: datetime


@dataclass(frozen=True)
class Integration:
    """Receives one dbt project's artifacts. project_name: that project, None before the first manifest."""

    id: int
    instance_id: int
    name: str
    integration_type: str
    created_at: datetime
    last_modified_at: datetime
    last_file_upload_time: datetime | None
    project_name: str | None
    environments: tuple[Environment, ...] = ()

    def environment(self, name: str) -> Environment | None:
        """Give the environment of this name, without regard to case."""
        return next(
            (
                each
                for each in self.environments
                if normalize_name(each.name) == normalize_name(name)
            ),
            None,
        )


def normalize_name(name: str) -> str:
    """Give the form in which names of environments are compared."""
    return name.casefold()


def create_integration(
    connection: Connection, instance_id: int, *, name: str, integration_type: str
) -> Integration:
    """Make an integration without environments. The name must be free on its instance."""
    times = {"created_at": utc_now(), "last_modified_at": utc_now()}
    values = {"instance_id": instance_id, "name": name, "integration_type": integration_type}
    made = connection.execute(integrations.insert().values(**values, **times))
    key: Any = made.inserted_primary_key
    return _with_environments(
        connection, connection.execute(select(integrations).where(integrations.c.id == key[0]))
    )[0]


def add_environment(connection: Connection, integration_id: int, name: str) -> None:
    """Add an environment to an integration that has none of this name."""
    values = {
        "integration_id": integration_id,
        "name": name,
        "folded": normalize_name(name),
        "created_at": utc_now(),
    }
    connection.execute(environments.insert().values(**values))
    changed = integrations.update().where(integrations.c.id == integration_id)
    connection.execute(changed.values(last_modified_at=utc_now()))


def find_integration(
    connection: Connection, instance_id: int, integration_id: int
) -> Integration | None:
    """Give an instance's integration by its id."""
    mine = (integrations.c.instance_id == instance_id) & (integrations.c.id == integration_id)
    found = _with_environments(connection, connection.execute(select(integrations).where(mine)))
    return found[0] if found else None


def find_integration_by_name(
    connection: Connection, instance_id: int, name: str
) -> Integration | None:
    """Give an instance's integration by its exact name."""
    mine = (integrations.c.instance_id == instance_id) & (integrations.c.name == name)
    found = _with_environments(connection, connection.execute(select(integrations).where(mine)))
    return found[0] if found else None


def list_integrations(
    connection: Connection,
    instance_id: int,
    *,
    only: int | None = None,
    like: str = "",
    limit: int | None = None,
) -> Sequence[Integration]:
    """Give an instance's integrations by name, without regard to case.

    only: the one with this id. like: those whose name contains this. limit: at most so many.
    """
    wanted = [integrations.c.instance_id == instance_id]
    if only is not None:
        wanted.append(integrations.c.id == only)
    if like:
        wanted.append(integrations.c.name.icontains(like, autoescape=True))
    query = (
        select(integrations)
        .where(*wanted)
        .order_by(func.lower(integrations.c.name), integrations.c.id)
        .limit(limit)
    )
    return _with_environments(
        connection, connection.execute(query), everything=len(wanted) == 1 and limit is None
    )


def record_publication(
    connection: Connection,
    integration_id: int,
    *,
    project_name: str | None,
    uploaded_at: datetime | None = None,
) -> None:
    """Record that a file of an integration became current now, and which dbt project it belongs to, if that is known.

    uploaded_at: when it was uploaded, if that is what made it current.
    """
    values: dict[str, Any] = {"last_modified_at": utc_now()}
    if uploaded_at is not None:
        values["last_file_upload_time"] = uploaded_at
    if project_name is not None:
        values["project_name"] = project_name
    connection.execute(
        integrations.update().where(integrations.c.id == integration_id).values(**values)
    )


def _with_environments(
    connection: Connection, rows: Any, *, everything: bool = False
) -> list[Integration]:
    """Add their environments to integrations, with one query for all of them."""
    found = [Integration(**row._mapping) for row in rows]
    if not found:
        return []
    wanted: ColumnElement[bool]
    if everything:
        of_instance = select(integrations.c.id).where(
            integrations.c.instance_id == found[0].instance_id
        )
        wanted = environments.c.integration_id.in_(of_instance)
    else:
        wanted = environments.c.integration_id.in_([each.id for each in found])
    by_integration: dict[int, list[Environment]] = {}
    for row in connection.execute(select(environments).where(wanted).order_by(environments.c.id)):
        by_integration.setdefault(row.integration_id, []).append(_environment(row))
    return [replace(each, environments=tuple(by_integration.get(each.id, ()))) for each in found]


def _environment(row: Row[Any]) -> Environment:
    return Environment(row.id, row.integration_id, row.name, row.created_at)
