"""Instances and the tokens that admit callers to them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import instances, tokens

if TYPE_CHECKING:
    from sqlalchemy import Connection

# "Last used" is exact to this much, so that reading does not write every time.
_LAST_USED_STEP = timedelta(minutes=1)


@dataclass(frozen=True)
class Instance:
    """An instance in the records. signing_key: what its signed URLs and sessions are made with; never leaves it."""

    id: int
    name: str
    signing_key: bytes


@dataclass(frozen=True)
class Token:
    """What is known of a token; the token itself is nowhere.

    scopes: of "read", "upload", "admin". integration_id: the only integration that it opens; None: all of them.
    """

    id: int
    instance_id: int
    name: str
    sha256: str
    scopes: frozenset[str]
    integration_id: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @property
    def is_valid(self) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > utc_now())

    def permits(self, scope: str, integration_id: int | None = None) -> bool:
        """Whether it admits to "read", "upload" or "admin", and to this integration if one is meant.

        "admin" is of the whole instance: a token for one integration never admits to it.
        """
        if self.integration_id is not None and (
            scope == "admin" or integration_id not in (None, self.integration_id)
        ):
            return False
        return "admin" in self.scopes or scope in self.scopes


def create_instance(connection: Connection, name: str) -> Instance:
    """Make an instance with a signing key of its own. The name must be free."""
    key = secrets.token_bytes(32)
    made = connection.execute(
        instances.insert().values(name=name, signing_key=key, created_at=utc_now())
    )
    return Instance(_inserted_id(made), name, key)


def find_instance(connection: Connection, name: str) -> Instance | None:
    """Give the instance of this name."""
    row = connection.execute(select(instances).where(instances.c.name == name)).first()
    return Instance(row.id, row.name, row.signing_key) if row else None


def get_instance(connection: Connection, instance_id: int) -> Instance:
    """Give the instance with this id, which must exist."""
    row = connection.execute(select(instances).where(instances.c.id == instance_id)).one()
    return Instance(row.id, row.name, row.signing_key)


def lock_instance(connection: Connection, instance_id: int) -> None:
    """Let no upload to this instance be verified until the transaction ends."""
    connection.execute(
        select(instances.c.id).where(instances.c.id == instance_id).with_for_update()
    )


def list_instance_names(connection: Connection) -> list[str]:
    """Give the names of all instances, the oldest first."""
    return list(connection.scalars(select(instances.c.name).order_by(instances.c.id)))


def create_token(
    connection: Connection,
    instance_id: int,
    *,
    name: str,
    sha256: str,
    scopes: frozenset[str],
    integration_id: int | None = None,
    expires_at: datetime | None = None,
) -> Token:
    """Record a token by the sha256 of it."""
    values = {
        "instance_id": instance_id,
        "name": name,
        "sha256": sha256,
        "integration_id": integration_id,
    }
    times = {"created_at": utc_now(), "expires_at": expires_at}
    made = connection.execute(
        tokens.insert().values(**values, **times, scopes=",".join(sorted(scopes)))
    )
    return _token_from_row(
        connection.execute(select(tokens).where(tokens.c.id == _inserted_id(made))).one()
    )


def find_token(connection: Connection, sha256: str) -> Token | None:
    """Give the token with this sha256, valid or not."""
    row = connection.execute(select(tokens).where(tokens.c.sha256 == sha256)).first()
    return _token_from_row(row) if row else None


def get_token(connection: Connection, token_id: int) -> Token | None:
    """Give the token with this id, valid or not."""
    row = connection.execute(select(tokens).where(tokens.c.id == token_id)).first()
    return _token_from_row(row) if row else None


def list_tokens(connection: Connection, instance_id: int) -> Sequence[Token]:
    """Give an instance's tokens, the newest first, revoked ones too."""
    rows = connection.execute(
        select(tokens).where(tokens.c.instance_id == instance_id).order_by(tokens.c.id.desc())
    )
    return [_token_from_row(row) for row in rows]


def revoke_token(connection: Connection, instance_id: int, token_id: int) -> bool:
    """Revoke a token of an instance; False when it has no such token that is not revoked."""
    mine = (
        (tokens.c.id == token_id)
        & (tokens.c.instance_id == instance_id)
        & tokens.c.revoked_at.is_(None)
    )
    return (
        connection.execute(tokens.update().where(mine).values(revoked_at=utc_now())).rowcount == 1
    )


def is_last_used_outdated(token: Token) -> bool:
    """Whether `touch_token` is due."""
    return token.last_used_at is None or utc_now() - token.last_used_at > _LAST_USED_STEP


def update_last_used(connection: Connection, token_id: int) -> None:
    """Record that a token was used now."""
    connection.execute(
        tokens.update().where(tokens.c.id == token_id).values(last_used_at=utc_now())
    )


def _token_from_row(row: Row[Any]) -> Token:
    return Token(**{**row._mapping, "scopes": frozenset(row.scopes.split(","))})


def _inserted_id(made: Any) -> int:
    return int(made.inserted_primary_key[0])
