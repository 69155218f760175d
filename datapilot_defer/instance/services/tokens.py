"""Authentication with tokens and sessions, and creation, listing and revocation of tokens."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from datapilot_defer.errors import NotFound, UsageError
from datapilot_defer.instance.services import instances
from datapilot_defer.instance.services.names import MAX_NAME_LENGTH, validate_name
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
from datapilot_defer.storage import web_sessions as session_records
from datapilot_defer.storage.audit import Actor, AuditAction, record_event
from datapilot_defer.storage.database import Connection, utc_now
from datapilot_defer.storage.instances import Instance
from datapilot_defer.storage.tokens import Token

SESSION_LIFETIME = timedelta(hours=12)


def authenticate_token(storage: Storage, token: str) -> Principal | None:
    """Return the caller who has this token, or None if the token is not valid."""
    if not is_well_formed(token):
        return None
    with storage.database.read() as connection:
        record = token_records.find_token(connection, hash_token(token))
        return _principal_for(connection, record)


def start_session(storage: Storage, principal: Principal) -> str:
    """Start a session of the web pages and return its random id.

    The session ends after SESSION_LIFETIME, or when its token is revoked or expires.
    """
    session_id = secrets.token_urlsafe(32)
    with storage.database.write() as connection:
        session_records.create_session(
            connection,
            principal.token.id,
            sha256=_hash_session_id(session_id),
            expires_at=utc_now() + SESSION_LIFETIME,
        )
    return session_id


def authenticate_session(storage: Storage, session_id: str) -> Principal | None:
    """Return the caller who has this session, or None if it is unknown or has ended."""
    with storage.database.read() as connection:
        token_id = session_records.find_token_id(connection, _hash_session_id(session_id))
        if token_id is None:
            return None
        return _principal_for(connection, token_records.get_token(connection, token_id))


def end_session(storage: Storage, session_id: str) -> None:
    """End a session."""
    with storage.database.write() as connection:
        session_records.delete_session(connection, _hash_session_id(session_id))


def _hash_session_id(session_id: str) -> str:
    return hashlib.sha256(session_id.encode(errors="replace")).hexdigest()


def _principal_for(connection: Connection, token: Token | None) -> Principal | None:
    if token is None or not token.is_valid:
        return None
    return Principal(instance_records.get_instance(connection, token.instance_id), token)


def create_token(
    storage: Storage,
    instance_name: str | None,
    *,
    name: str,
    scopes: frozenset[str],
    integration_id: int | None = None,
    expires_at: datetime | None = None,
    actor: Actor,
) -> tuple[Token, str]:
    """Create a token, and return its record and the token itself, which is not stored.

    instance_name: None selects the only instance. Raises UsageError or NotFound.
    """
    if integration_id is not None and "admin" in scopes:
        raise UsageError(
            "the scope admin applies to the complete instance. "
            "Use the scopes read and upload for a token for one integration."
        )
    name = validate_name(name, "token", MAX_NAME_LENGTH)
    token = generate_token()
    with storage.database.write() as connection:
        instance = instances.select_instance(connection, instance_name)
        if integration_id is not None:
            _check_integration(connection, instance, integration_id)
        record = token_records.create_token(
            connection,
            instance.id,
            name=name,
            sha256=hash_token(token),
            scopes=scopes,
            integration_id=integration_id,
            expires_at=expires_at,
        )
        record_event(
            connection,
            instance.id,
            actor,
            AuditAction.TOKEN_CREATED,
            integration_id=integration_id,
            detail=f"{record.name} ({', '.join(sorted(scopes))})",
        )
    return record, token


def _check_integration(connection: Connection, instance: Instance, integration_id: int) -> None:
    integration = integration_records.find_integration(connection, instance.id, integration_id)
    if integration is None or integration.deleted_at is not None:
        raise NotFound(f"instance {instance.name!r} has no integration {integration_id}")


def list_tokens(storage: Storage, instance_name: str | None) -> list[tuple[str, Token]]:
    """Return the tokens of one instance or of all instances, each with its instance's name.

    Raises NotFound for an unknown instance.
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
    """Return the tokens of the caller's instance.

    Raises AccessDenied unless the caller is an admin.
    """
    require_scope(principal, "admin")
    with storage.database.read() as connection:
        return token_records.list_tokens(connection, principal.instance.id)


def revoke_own_token(storage: Storage, principal: Principal, token_id: int) -> None:
    """Revoke a token of the caller's instance, unless it is already revoked.

    Raises AccessDenied or NotFound.
    """
    require_scope(principal, "admin")
    with storage.database.write() as connection:
        token = token_records.get_token(connection, token_id)
        if token is None or token.instance_id != principal.instance.id:
            raise NotFound(f"token {token_id} not found")
        _revoke(connection, token, principal.actor)


def revoke_token(storage: Storage, token_id: int, actor: Actor) -> None:
    """Revoke a token of any instance. Raises NotFound if it is unknown or already revoked."""
    with storage.database.write() as connection:
        token = token_records.get_token(connection, token_id)
        if token and _revoke(connection, token, actor):
            return
    raise NotFound(
        f"token {token_id} does not exist or is already revoked. "
        "List the tokens with `datapilot instance token list`."
    )


def _revoke(connection: Connection, token: Token, actor: Actor) -> bool:
    """Revoke a token and end its sessions. Return False if it is already revoked."""
    if not token_records.revoke_token(connection, token.instance_id, token.id):
        return False
    session_records.delete_sessions_of_token(connection, token.id)
    record_event(
        connection,
        token.instance_id,
        actor,
        AuditAction.TOKEN_REVOKED,
        integration_id=token.integration_id,
        detail=f"{token.name} (id {token.id})",
    )
    return True
