"""Create and select instances."""

from __future__ import annotations

import re

from datapilot_defer.errors import NotFound, UsageError
from datapilot_defer.instance.services.token_format import generate_token, hash_token
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.audit import Actor, AuditAction, record_event
from datapilot_defer.storage.database import Connection
from datapilot_defer.storage.instances import Instance


def create_instance(storage: Storage, name: str) -> str | None:
    """Create an instance and return its first admin token; None when the name is taken.

    Raises UsageError when the name is invalid.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
        raise UsageError(
            f"{name!r} can't be an instance's name: it travels in a header, "
            "so 1 to 63 of A-Z, a-z, 0-9, '-', '_', '.'"
        )
    token = generate_token()
    with storage.database.write() as connection:
        if instance_records.find_instance(connection, name):
            return None
        instance = instance_records.create_instance(connection, name)
        token_records.create_token(
            connection,
            instance.id,
            name="first",
            sha256=hash_token(token),
            scopes=frozenset({"admin"}),
        )
    return token


def list_instance_names(storage: Storage) -> list[str]:
    """Return the names of all instances, the oldest first."""
    with storage.database.read() as connection:
        return instance_records.list_instance_names(connection)


def select_instance(connection: Connection, name: str | None) -> Instance:
    """Return the instance of this name; None selects the only one.

    Raises UsageError when there is not exactly one to select, NotFound for an unknown name.
    """
    if name is not None:
        return find_instance(connection, name)
    names = instance_records.list_instance_names(connection)
    if len(names) != 1:
        raise UsageError(f"say which instance with --instance-name; {_describe_available(names)}")
    return find_instance(connection, names[0])


def find_instance(connection: Connection, name: str) -> Instance:
    """Return the instance of this name. Raises NotFound."""
    instance = instance_records.find_instance(connection, name)
    if instance is None:
        names = instance_records.list_instance_names(connection)
        raise NotFound(f"there is no instance {name!r} here; {_describe_available(names)}")
    return instance


def _describe_available(names: list[str]) -> str:
    if not names:
        return "none was made yet: run `datapilot instance init`"
    return f"there are: {', '.join(names)}"


def rotate_signing_key(storage: Storage, name: str | None, actor: Actor) -> str:
    """Replace the signing key of an instance, which makes its signed URLs invalid.

    name: None selects the only instance. Returns the name. Raises UsageError, NotFound.
    """
    with storage.database.write() as connection:
        instance = select_instance(connection, name)
        instance_records.replace_signing_key(connection, instance.id)
        record_event(connection, instance.id, actor, AuditAction.SIGNING_KEY_ROTATED)
    return instance.name
