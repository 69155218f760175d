"""Authenticate, create, list and revoke tokens."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from datapilot_defer.errors import NotFound, Unavailable, UsageError
from datapilot_defer.instance.services import instances, signed_urls
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.instance.services.token_format import (
    generate_token,
    hash_token,
    is_well_formed,
)
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.instances import Instance
from datapilot_defer.storage.tokens import Token


@dataclass(frozen=True)
class SessionCookie:
    """A session of the web pages as its cookie states it; `signature` proves it."""

    token_id: int
    expires: int
    signature: str = field(repr=False)


def authenticate_token(storage: Storage, token: str) -> Principal | None:
    """Return the caller with this token, if the token is valid."""
    if not is_well_formed(token):
        return None
    sha256 = hash_token(token)
    with storage.database.read() as connection:
        record = token_records.find_token(connection, sha256)
        if record is None:
            return None
        instance = instance_records.get_instance(connection, record.instance_id)
    if not hmac.compare_digest(record.sha256, sha256):
        return None
    return _principal_for(storage, instance, record)


def authenticate_session(storage: Storage, cookie: SessionCookie) -> Principal | None:
    """Return the caller with this session, if its token is still valid."""
    with storage.database.read() as connection:
        token = token_records.get_token(connection, cookie.token_id)
        if token is None:
            return None
        instance = instance_records.get_instance(connection, token.instance_id)
    is_signed = signed_urls.verify_signature(
        instance.signing_key, cookie.signature, cookie.expires, "session", cookie.token_id
    )
    if not is_signed:
        return None
    return _principal_for(storage, instance, token)


def _principal_for(storage: Storage, instance: Instance, token: Token) -> Principal | None:
    if not token.is_valid:
        return None
    if token_records.is_last_used_outdated(token):
        # A full disk must not prevent reading.
        with suppress(Unavailable), storage.database.write() as connection:
            token_records.update_last_used(connection, token.id)
    return Principal(instance, token)


def create_token(
    storage: Storage,
    instance_name: str | None,
    *,
    name: str,
    scopes: frozenset[str],
    integration_id: int | None = None,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """Create a token; return its record and the token itself, which is not stored.

    instance_name: None selects the only instance. Raises UsageError, NotFound.
    """
    if integration_id is not None and "admin" in scopes:
        raise UsageError(
            "admin is of the whole instance: "
            "a token for one integration has the scopes read and upload"
        )
    token = generate_token()
    with storage.database.write() as connection:
        instance = instances.select_instance(connection, instance_name)
        if integration_id is not None:
            integration = integration_records.find_integration(
                connection, instance.id, integration_id
            )
            if integration is None:
                raise NotFound(f"instance {instance.name!r} has no integration {integration_id}")
        record = token_records.create_token(
            connection,
            instance.id,
            name=name,
            sha256=hash_token(token),
            scopes=scopes,
            integration_id=integration_id,
            expires_at=expires_at,
        )
    return record, token


def list_tokens(storage: Storage, instance_name: str | None) -> list[tuple[str, Token]]:
    """Return the tokens of an instance, or of all, each with its instance's name.

    Raises NotFound when there is no such instance.
    """
    with storage.database.read() as connection:
        if instance_name:
            names = [instance_name]
        else:
            names = instance_records.list_instance_names(connection)
        listed: list[tuple[str, Token]] = []
        for name in names:
            instance = instances.find_instance(connection, name)
            tokens = token_records.list_tokens(connection, instance.id)
            listed += [(name, token) for token in tokens]
    return listed


def list_own_tokens(storage: Storage, principal: Principal) -> Sequence[Token]:
    """Return the tokens of the caller's instance. Raises AccessDenied unless it is an admin."""
    require_scope(principal, "admin")
    with storage.database.read() as connection:
        return token_records.list_tokens(connection, principal.instance.id)


def revoke_own_token(storage: Storage, principal: Principal, token_id: int) -> None:
    """Revoke a token of the caller's instance, if it exists. Raises AccessDenied."""
    require_scope(principal, "admin")
    with storage.database.write() as connection:
        token_records.revoke_token(connection, principal.instance.id, token_id)


def revoke_token(storage: Storage, token_id: int) -> None:
    """Revoke a token of any instance. Raises NotFound when there is no such unrevoked token."""
    with storage.database.write() as connection:
        token = token_records.get_token(connection, token_id)
        if token and token_records.revoke_token(connection, token.instance_id, token_id):
            return
    raise NotFound(
        f"there is no token {token_id} that is not revoked; "
        "`datapilot instance token list` shows them"
    )
