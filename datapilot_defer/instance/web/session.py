"""Sessions of the web pages: a token in a signed cookie, and forms protected against CSRF."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.services import signed_urls
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.instance.services.tokens import SessionCookie, authenticate_session

COOKIE_NAME = "datapilot_session"
_COOKIE_FORMAT = re.compile(r"(\d{1,10})\.(\d{1,10})\.([0-9a-f]{64})", re.ASCII)
_LIFETIME_S = 12 * 3600


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


def start_session(response: Response, principal: Principal, *, is_secure: bool) -> None:
    """Set a cookie that stands for the token until it is revoked, for at most 12 hours.

    is_secure: the cookie is sent over HTTPS only.
    """
    token_id = principal.token.id
    expires = signed_urls.expiry_after(_LIFETIME_S)
    signature = signed_urls.sign(principal.instance.signing_key, "session", token_id, expires)
    response.set_cookie(
        COOKIE_NAME,
        f"{token_id}.{expires}.{signature}",
        max_age=_LIFETIME_S,
        httponly=True,
        samesite="strict",
        secure=is_secure,
    )


def end_session() -> Response:
    """Return a response that deletes the cookie."""
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE_NAME, httponly=True, samesite="strict")
    return response


def current_session(request: Request, storage: CurrentStorage) -> Session:
    """Return the session of a request. Raises SignInRequired."""
    text = request.cookies.get(COOKIE_NAME, "")
    match = _COOKIE_FORMAT.fullmatch(text)
    if match is None:
        raise SignInRequired(request.url.path)
    token_id, expires, signature = match.groups()
    cookie = SessionCookie(int(token_id), int(expires), signature)
    principal = authenticate_session(storage, cookie)
    if principal is None:
        raise SignInRequired(request.url.path)
    session = Session(principal, signed_urls.sign(principal.instance.signing_key, "form", text))
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
            403, "this form is from another session: go back, reload the page and send it again"
        )
    return session


CsrfCheckedSession = Annotated[Session, Depends(csrf_checked_session)]
