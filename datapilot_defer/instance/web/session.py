"""Sessions of the web pages, with a random id in a cookie and CSRF protection for forms."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import Depends, Form, HTTPException, Request
from fastapi.responses import Response

from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.forwarding import client_address
from datapilot_defer.instance.rate_limit import limit_token
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.instance.services.tokens import SESSION_LIFETIME, authenticate_session

COOKIE_NAME = "datapilot_session"
_MAX_COOKIE_LENGTH = 100


class SignInRequired(Exception):
    """The request has no valid session. path: the requested page."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True)
class Session:
    """A signed-in caller. csrf: the value that the caller's forms must contain."""

    principal: Principal
    csrf: str = field(repr=False)


def set_session_cookie(response: Response, session_id: str, *, is_secure: bool) -> None:
    """Store a session id in the browser. is_secure: send the cookie only over HTTPS."""
    response.set_cookie(
        COOKIE_NAME,
        session_id,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=is_secure,
    )


def delete_session_cookie(response: Response) -> None:
    """Delete the session id from the browser."""
    response.delete_cookie(COOKIE_NAME, httponly=True, samesite="strict")


def session_id_of(request: Request) -> str:
    """Return the session id in a request's cookie, or "" if there is none."""
    return request.cookies.get(COOKIE_NAME, "")[:_MAX_COOKIE_LENGTH]


def current_session(request: Request, storage: CurrentStorage) -> Session:
    """Return the session of a request, and record the use of its token.

    Raises SignInRequired when there is no valid session, and HTTPException 429 after too many
    requests.
    """
    session_id = session_id_of(request)
    principal = None
    if session_id:
        principal = authenticate_session(storage, session_id)
    if principal is None:
        limit_token(request, None)
        raise SignInRequired(request.url.path)
    limit_token(request, principal.token.id)
    request.app.state.last_used.record(principal.token.id)
    caller = replace(principal, address=client_address(request.scope))
    session = Session(caller, _csrf_value(session_id))
    # Error pages show the navigation of the session.
    request.state.session = session
    return session


def _csrf_value(session_id: str) -> str:
    """Return a value that only the pages of a session contain. It does not reveal the cookie."""
    return hashlib.sha256(f"form {session_id}".encode(errors="replace")).hexdigest()


CurrentSession = Annotated[Session, Depends(current_session)]


def csrf_checked_session(
    session: CurrentSession, csrf: Annotated[str, Form(max_length=64)]
) -> Session:
    """Return the session of a form.

    Raises HTTPException 403 for a form from another session or site.
    """
    if not hmac.compare_digest(csrf.encode(), session.csrf.encode()):
        raise HTTPException(
            403,
            "this form belongs to another session. Go back, reload the page and submit it again.",
        )
    return session


CsrfCheckedSession = Annotated[Session, Depends(csrf_checked_session)]
