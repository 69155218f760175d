"""The caller of a request, and what its token permits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from datapilot_defer.errors import AccessDenied
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.audit import Actor
from datapilot_defer.storage.database import Connection
from datapilot_defer.storage.instances import Instance
from datapilot_defer.storage.tokens import Token

Scope = Literal["read", "upload", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_SCOPE_DESCRIPTIONS: dict[Scope, str] = {
    "read": "read here",
    "upload": "upload here",
    "admin": "administer this instance",
}
_INTEGRATION_SCOPE_DESCRIPTIONS: dict[Scope, str] = {
    "read": "read",
    "upload": "upload to",
    "admin": "administer",
}


class AuthenticationFailed(AccessDenied):
    """The caller's token is no longer valid."""


@dataclass(frozen=True)
class Principal:
    """An authenticated caller: its instance, its valid token and its IP address."""

    instance: Instance
    token: Token
    address: str | None = None

    @property
    def actor(self) -> Actor:
        """Return the caller as the actor of an audit log entry."""
        return Actor(self.token.name, self.token.id, self.address)


def require_scope(principal: Principal, scope: Scope, integration_id: int | None = None) -> None:
    """Raise AccessDenied unless the token has a scope, for one integration if an id is given."""
    if principal.token.permits(scope, integration_id):
        return
    action = _SCOPE_DESCRIPTIONS[scope]
    if integration_id is not None:
        action = f"{_INTEGRATION_SCOPE_DESCRIPTIONS[scope]} integration {integration_id}"
    raise AccessDenied(f"the token {principal.token.name!r} may not {action}")


def require_valid_token(connection: Connection, principal: Principal) -> None:
    """Raise AuthenticationFailed if the token was revoked or expired since the request began."""
    token = token_records.get_token(connection, principal.token.id)
    if token is None or not token.is_valid:
        raise AuthenticationFailed(f"the token {principal.token.name!r} was revoked or has expired")
