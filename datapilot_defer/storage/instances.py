"""Instances and their signing keys."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import select

from datapilot_defer.storage.database import inserted_id, utc_now
from datapilot_defer.storage.tables import instances

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class Instance:
    """An instance in the database. signing_key: the secret key that signs its URLs."""

    id: int
    name: str
    signing_key: bytes = field(repr=False)


def create_instance(connection: Connection, name: str) -> Instance:
    """Create an instance with a new signing key. The name must be unused."""
    signing_key = secrets.token_bytes(32)
    values: dict[str, object] = {
        "name": name,
        "signing_key": signing_key,
        "created_at": utc_now(),
        "stored_bytes": 0,
    }
    result = connection.execute(instances.insert().values(**values))
    return Instance(inserted_id(result), name, signing_key)


def find_instance(connection: Connection, name: str) -> Instance | None:
    """Return the instance with this name, or None."""
    row = connection.execute(select(instances).where(instances.c.name == name)).first()
    if row is None:
        return None
    return Instance(row.id, row.name, row.signing_key)


def get_instance(connection: Connection, instance_id: int) -> Instance:
    """Return the instance with this id, which must exist."""
    row = connection.execute(select(instances).where(instances.c.id == instance_id)).one()
    return Instance(row.id, row.name, row.signing_key)


def replace_signing_key(connection: Connection, instance_id: int) -> None:
    """Replace the signing key of an instance with a new one."""
    statement = instances.update().where(instances.c.id == instance_id)
    connection.execute(statement.values(signing_key=secrets.token_bytes(32)))


def lock_instance(connection: Connection, instance_id: int) -> None:
    """Block other transactions that lock this instance until the current transaction ends.

    Verifications, acceptances, restores and deletions of blobs lock their instance.
    """
    query = select(instances.c.id).where(instances.c.id == instance_id)
    connection.execute(query.with_for_update())


def list_instance_names(connection: Connection) -> list[str]:
    """Return the names of all instances, oldest first."""
    return list(connection.scalars(select(instances.c.name).order_by(instances.c.id)))
