"""Sessions of the web pages: a random id in a cookie stands for a token."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import timedelta

from datapilot_defer.instance.services.audit import record_failed_sign_in
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.instance.services.token_format import hash_token
from datapilot_defer.instance.services.tokens import authenticate_token
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage import web_sessions as session_records
from datapilot_defer.storage.database import utc_now

LIFETIME = timedelta(hours=12)
_ID_BYTES = 32


def sign_in(storage: Storage, token: str, address: str | None) -> str | None:
    """Start a session with a token and return the text for its cookie.

    Returns None when the token is not valid, and records that in the audit log.
    """
    principal = authenticate_token(storage, token, address)
    if principal is None:
        record_failed_sign_in(storage, token, address)
        return None
    return start_session(storage, principal)


def start_session(storage: Storage, principal: Principal) -> str:
    """Start a session of at most LIFETIME and return the text for its cookie, which is secret."""
    cookie = secrets.token_urlsafe(_ID_BYTES)
    with storage.database.write() as connection:
        session_records.create_session(
            connection,
            token_id=principal.token.id,
            sha256=hash_token(cookie),
            expires_at=utc_now() + LIFETIME,
        )
    return cookie


def authenticate_session(
    storage: Storage, cookie: str, address: str | None = None
) -> Principal | None:
    """Return the caller with this cookie, if the session has not ended and its token is valid.

    address: the caller's IP address.
    """
    with storage.database.read() as connection:
        token_id = session_records.find_token_id(connection, hash_token(cookie))
        if token_id is None:
            return None
        token = token_records.get_token(connection, token_id)
        if token is None or not token.is_valid:
            return None
        instance = instance_records.get_instance(connection, token.instance_id)
    return Principal(instance, token, address)


def end_session(storage: Storage, cookie: str) -> None:
    """End a session, if it exists."""
    with storage.database.write() as connection:
        session_records.delete_session(connection, hash_token(cookie))


def derive_csrf_value(cookie: str) -> str:
    """Return the value that the forms of a session must have, 64 hex digits.

    It follows from the secret cookie, so that the database does not need to store it.
    """
    return hmac.new(cookie.encode(), b"form", hashlib.sha256).hexdigest()
