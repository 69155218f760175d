"""Creation and selection of instances, their admin tokens and their signing keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from datapilot_defer.errors import NotFound, UsageError
from datapilot_defer.instance.services.token_format import hash_token
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.audit import Actor, AuditAction, record_event
from datapilot_defer.storage.database import Connection
from datapilot_defer.storage.instances import Instance
from datapilot_defer.storage.tokens import Token


def check_instance_name(name: str) -> None:
    """Raise UsageError unless a text is a valid instance name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
        raise UsageError(
            f"{name!r} is not a valid instance name. Use 1 to 63 characters from A-Z, "
            "a-z, 0-9, '-', '_' and '.', starting with a letter or digit."
        )


@contextmanager
def creating_instance(storage: Storage, name: str, *, token: str, actor: Actor) -> Iterator[bool]:
    """Create an instance and its first admin token if the block ends without an exception.

    The block must print or save the token, because the database contains only its hash. If the
    block fails, the token does not become valid. Yield whether the instance is new. If the name is
    taken, nothing is created. Raises UsageError when the name is invalid, or differs from a taken
    one only in case.
    """
    check_instance_name(name)
    with storage.database.write() as connection:
        is_new = instance_records.find_instance(connection, name) is None
        if is_new:
            _check_similar_names(connection, name)
            instance = instance_records.create_instance(connection, name)
            _create_admin_token(connection, instance, "first", token, actor)
        yield is_new


def _check_similar_names(connection: Connection, name: str) -> None:
    for known in instance_records.list_instance_names(connection):
        if known.lower() == name.lower():
            raise UsageError(
                f"the instance name {name!r} differs from the existing {known!r} only in case. "
                "Use the existing instance or another name."
            )


def register_admin_token(
    storage: Storage, instance_name: str | None, token: str, *, actor: Actor
) -> Token:
    """Register a token as an admin token, and return its record.

    The record of a token that is already registered is returned unchanged. instance_name: None
    selects the only instance. Raises UsageError or NotFound.
    """
    with storage.database.write() as connection:
        record = token_records.find_token(connection, hash_token(token))
        if record is not None:
            return record
        instance = select_instance(connection, instance_name)
        return _create_admin_token(connection, instance, "admin token file", token, actor)


def _create_admin_token(
    connection: Connection, instance: Instance, name: str, token: str, actor: Actor
) -> Token:
    record = token_records.create_token(
        connection,
        instance.id,
        name=name,
        sha256=hash_token(token),
        scopes=frozenset({"admin"}),
    )
    record_event(
        connection, instance.id, actor, AuditAction.TOKEN_CREATED, detail=f"{name} (admin)"
    )
    return record


def list_names_without_admin(storage: Storage) -> list[str]:
    """Return the names of the instances that have no valid admin token."""
    names = []
    with storage.database.read() as connection:
        for name in instance_records.list_instance_names(connection):
            instance = find_instance(connection, name)
            tokens = token_records.list_tokens(connection, instance.id)
            if not any(token.is_valid and token.permits("admin") for token in tokens):
                names.append(name)
    return names


def list_instance_names(storage: Storage) -> list[str]:
    """Return the names of all instances, oldest first."""
    with storage.database.read() as connection:
        return instance_records.list_instance_names(connection)


def select_instance(connection: Connection, name: str | None) -> Instance:
    """Return the instance with this name. None selects the only instance.

    Raises NotFound for an unknown name, and UsageError when the name is None and there is not
    exactly one instance.
    """
    if name is not None:
        return find_instance(connection, name)
    names = instance_records.list_instance_names(connection)
    if len(names) != 1:
        raise UsageError(f"select an instance with --instance-name. {_describe_available(names)}")
    return find_instance(connection, names[0])


def find_instance(connection: Connection, name: str) -> Instance:
    """Return the instance with this name. Raises NotFound."""
    instance = instance_records.find_instance(connection, name)
    if instance is None:
        names = instance_records.list_instance_names(connection)
        raise NotFound(f"instance {name!r} not found. {_describe_available(names)}")
    return instance


def _describe_available(names: list[str]) -> str:
    if not names:
        return "There are no instances yet. Create one with `datapilot instance init`."
    return f"Available instances: {', '.join(names)}."


def rotate_signing_key(storage: Storage, name: str | None, actor: Actor) -> str:
    """Replace the signing key of an instance, which invalidates its signed URLs.

    name: None selects the only instance. Return the instance's name. Raises UsageError or NotFound.
    """
    with storage.database.write() as connection:
        instance = select_instance(connection, name)
        instance_records.replace_signing_key(connection, instance.id)
        record_event(connection, instance.id, actor, AuditAction.SIGNING_KEY_ROTATED)
    return instance.name
