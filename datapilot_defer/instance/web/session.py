"""Sessions of the web pages: the cookie, and the check of forms against CSRF."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Form, HTTPException, Request
from fastapi.responses import Response

from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.services import web_sessions
from datapilot_defer.instance.services.principal import Principal

COOKIE_NAME = "datapilot_session"


class SignInRequired(Exception):
    """There is no valid session. path: the requested page."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True)
class Session:
    """A signed-in caller. csrf: the value that the caller's forms must have."""

    principal: Principal
    csrf: str = field(repr=False)


def set_session_cookie(response: Response, cookie: str, *, is_secure: bool) -> None:
    """Set the cookie of a session. is_secure: the browser sends it over HTTPS only."""
    response.set_cookie(
        COOKIE_NAME,
        cookie,
        max_age=int(web_sessions.LIFETIME.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=is_secure,
    )


def delete_session_cookie(response: Response) -> None:
    """Delete the cookie of the session."""
    response.delete_cookie(COOKIE_NAME, httponly=True, samesite="strict")


def client_address(request: Request) -> str | None:
    """Return the IP address of the client, as far as the server knows it."""
    if request.client is None:
        return None
    return request.client.host


def current_session(request: Request, storage: CurrentStorage) -> Session:
    """Return the session of a request. Raises SignInRequired."""
    cookie = request.cookies.get(COOKIE_NAME, "")
    principal = None
    if cookie:
        principal = web_sessions.authenticate_session(storage, cookie, client_address(request))
    if principal is None:
        raise SignInRequired(request.url.path)
    session = Session(principal, web_sessions.derive_csrf_value(cookie))
    # Pages that report an error keep the navigation of the session.
    request.state.session = session
    return session


CurrentSession = Annotated[Session, Depends(current_session)]


def csrf_checked_session(
    session: CurrentSession, csrf: Annotated[str, Form(max_length=64)]
) -> Session:
    """Return the session of a form. Raises HTTPException 403 for a form of another site."""
    if not hmac.compare_digest(csrf.encode(), session.csrf.encode()):
        raise HTTPException(
            403, "this form is from another session. Go back, reload the page and send it again."
        )
    return session


CsrfCheckedSession = Annotated[Session, Depends(csrf_checked_session)]
