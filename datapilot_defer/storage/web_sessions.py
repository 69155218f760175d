"""Sessions of the web pages. A session belongs to a token and ends with it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import sessions

if TYPE_CHECKING:
    from sqlalchemy import Connection


def create_session(
    connection: Connection, token_id: int, *, sha256: str, expires_at: datetime
) -> None:
    """Create a session. sha256: the hash of the random id in the browser's cookie."""
    values = {
        "token_id": token_id,
        "sha256": sha256,
        "created_at": utc_now(),
        "expires_at": expires_at,
    }
    connection.execute(sessions.insert().values(**values))


def find_token_id(connection: Connection, sha256: str) -> int | None:
    """Return the id of a session's token, or None if the session has expired or does not exist."""
    query = select(sessions.c.token_id).where(
        sessions.c.sha256 == sha256, sessions.c.expires_at > utc_now()
    )
    return connection.scalar(query)


def delete_session(connection: Connection, sha256: str) -> None:
    """Delete a session, if it exists."""
    connection.execute(delete(sessions).where(sessions.c.sha256 == sha256))


def delete_sessions_of_token(connection: Connection, token_id: int) -> None:
    """Delete all sessions of a token."""
    connection.execute(delete(sessions).where(sessions.c.token_id == token_id))


def delete_expired(connection: Connection) -> int:
    """Delete the expired sessions and return how many were deleted."""
    return connection.execute(delete(sessions).where(sessions.c.expires_at <= utc_now())).rowcount
