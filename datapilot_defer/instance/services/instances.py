"""The data folder: where an instance on one machine keeps records and blobs, and what is made in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from datapilot_defer.errors import NotFound, UsageError
from datapilot_defer.instance.services import tokens
from datapilot_defer.storage import integrations
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.blobs import BlobStore, open_blobs
from datapilot_defer.storage.database import Database, has_database, sqlite_url
from datapilot_defer.storage.tokens import Token


@contextmanager
def opened(data: Path, *, new: bool = True) -> Iterator[tuple[Database, BlobStore]]:
    """Open the records and blobs in a folder, made for this user alone if it is not there and may be new.

    Raises Unavailable when that fails, UsageError when a newer program wrote it or when it may not be new but is.
    """
    if not new and not has_database(data):
        raise UsageError(
            f"{data} holds no instance: is --data right? "
            f"`datapilot instance init --data {shlex.quote(str(data))} --instance-name NAME` makes one"
        )
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{data}: can't be the data folder: {error.strerror}") from None
    records = sqlite_url(data)
    try:
        yield records, open_blobs(data / "blobs")
    finally:
        records.close()


def create_instance(records: Database, name: str) -> str | None:
    """Make an instance and its first admin token; gives the token, or None when there is such an instance already.

    Raises UsageError when this is no name for an instance.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", name):
        raise UsageError(
            f"{name!r} can't be an instance's name: it travels in a header, so 1 to 63 of A-Z, a-z, 0-9, '-', '_', '.'"
        )
    token = tokens.generate_token()
    with records.write() as connection:
        if token_records.find_instance(connection, name):
            return None
        made = token_records.create_instance(connection, name)
        scopes = frozenset({"admin"})
        token_records.create_token(
            connection, made.id, name="first", sha256=tokens.hash_token(token), scopes=scopes
        )
    return token


def instance_names(records: Database) -> list[str]:
    """Give the names of the instances in a folder, the oldest first."""
    with records.read() as connection:
        return token_records.list_instance_names(connection)


def create_token(
    records: Database,
    instance_name: str | None,
    *,
    name: str,
    scopes: frozenset[str],
    integration_id: int | None = None,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """Make a token; gives its record, and the token itself, which can't be had again.

    instance_name: None means the only one there is. Raises UsageError, NotFound.
    """
    if integration_id is not None and "admin" in scopes:
        raise UsageError(
            "admin is of the whole instance: a token for one integration has the scopes read and upload"
        )
    token = tokens.generate_token()
    with records.write() as connection:
        owner = token_records.find_instance(connection, select_instance(records, instance_name))
        if owner is None:
            raise NotFound(
                f"there is no instance {instance_name!r} here; {_available_instances(records)}"
            )
        if integration_id is not None and not integrations.find_integration(
            connection, owner.id, integration_id
        ):
            raise NotFound(f"instance {owner.name!r} has no integration {integration_id}")
        made = token_records.create_token(
            connection,
            owner.id,
            name=name,
            sha256=tokens.hash_token(token),
            scopes=scopes,
            integration_id=integration_id,
            expires_at=expires_at,
        )
    return made, token


def list_tokens(records: Database, instance_name: str | None) -> list[tuple[str, Token]]:
    """Give the tokens of one instance or, without a name, of all, each with its instance's name."""
    with records.read() as connection:
        names = [instance_name] if instance_name else token_records.list_instance_names(connection)
        owners = [(name, token_records.find_instance(connection, name)) for name in names]
        missing = [name for name, owner in owners if owner is None]
        if missing:
            raise NotFound(
                f"there is no instance {missing[0]!r} here; {_available_instances(records)}"
            )
        return [
            (name, token)
            for name, owner in owners
            if owner
            for token in token_records.list_tokens(connection, owner.id)
        ]


def revoke_token(records: Database, token_id: int) -> None:
    """Revoke a token by its id. Raises NotFound when there is none that is not revoked."""
    with records.write() as connection:
        for name in token_records.list_instance_names(connection):
            owner = token_records.find_instance(connection, name)
            if owner and token_records.revoke_token(connection, owner.id, token_id):
                return
    raise NotFound(
        f"there is no token {token_id} that is not revoked; `datapilot instance token list` shows them"
    )


def select_instance(records: Database, instance_name: str | None) -> str:
    names = instance_names(records)
    if instance_name is None and len(names) != 1:
        raise UsageError(
            f"say which instance with --instance-name; {_available_instances(records)}"
        )
    return instance_name or names[0]


def _available_instances(records: Database) -> str:
    names = instance_names(records)
    return (
        f"there are: {', '.join(names)}"
        if names
        else "none was made yet: run `datapilot instance init`"
    )
