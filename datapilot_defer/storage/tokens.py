"""API tokens, stored as sha256 hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, bindparam, select

from datapilot_defer.storage.database import inserted_id, utc_now
from datapilot_defer.storage.tables import tokens

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class Token:
    """The record of a token. The token itself is not stored.

    scopes: any of "read", "upload" and "admin". integration_id: the only integration that the token
    gives access to; None for all integrations.
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
        """Return whether the token is neither revoked nor expired."""
        if self.revoked_at is not None:
            return False
        return self.expires_at is None or self.expires_at > utc_now()

    def permits(self, scope: str, integration_id: int | None = None) -> bool:
        """Return whether the token permits a scope, for one integration if an id is given.

        The scope "admin" includes all other scopes. It covers the complete instance, so a token for
        one integration never permits it.
        """
        if self.integration_id is not None:
            if scope == "admin":
                return False
            if integration_id not in (None, self.integration_id):
                return False
        return "admin" in self.scopes or scope in self.scopes


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
    """Create the record of a token from the token's sha256."""
    values = {
        "instance_id": instance_id,
        "name": name,
        "sha256": sha256,
        "scopes": ",".join(sorted(scopes)),
        "integration_id": integration_id,
        "created_at": utc_now(),
        "expires_at": expires_at,
    }
    result = connection.execute(tokens.insert().values(**values))
    query = select(tokens).where(tokens.c.id == inserted_id(result))
    return _token_from_row(connection.execute(query).one())


def find_token(connection: Connection, sha256: str) -> Token | None:
    """Return the token with this sha256, valid or not, or None."""
    row = connection.execute(select(tokens).where(tokens.c.sha256 == sha256)).first()
    if row is None:
        return None
    return _token_from_row(row)


def get_token(connection: Connection, token_id: int) -> Token | None:
    """Return the token with this id, valid or not, or None."""
    row = connection.execute(select(tokens).where(tokens.c.id == token_id)).first()
    if row is None:
        return None
    return _token_from_row(row)


def list_tokens(connection: Connection, instance_id: int) -> Sequence[Token]:
    """Return the tokens of an instance, including revoked ones, newest first."""
    query = select(tokens).where(tokens.c.instance_id == instance_id).order_by(tokens.c.id.desc())
    return [_token_from_row(row) for row in connection.execute(query)]


def store_last_used(connection: Connection, moments: Mapping[int, datetime]) -> None:
    """Store the time of the last use of each token, by token id."""
    statement = tokens.update().where(tokens.c.id == bindparam("token_id"))
    values = [{"token_id": token_id, "moment": moment} for token_id, moment in moments.items()]
    connection.execute(statement.values(last_used_at=bindparam("moment")), values)


def revoke_token(connection: Connection, instance_id: int, token_id: int) -> bool:
    """Revoke a token of an instance. Return False if it is already revoked or does not exist."""
    statement = tokens.update().where(
        tokens.c.id == token_id,
        tokens.c.instance_id == instance_id,
        tokens.c.revoked_at.is_(None),
    )
    result = connection.execute(statement.values(revoked_at=utc_now()))
    return result.rowcount == 1


def _token_from_row(row: Row[Any]) -> Token:
    values = dict(row._mapping)
    values["scopes"] = frozenset(row.scopes.split(","))
    return Token(**values)
