"""Who looks at the web page: a token, held by a signed cookie, and forms that only our own pages can send."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.services.principal import Principal, authenticate_session

COOKIE = "datapilot_session"
_SECONDS = 12 * 3600


class SignInRequired(Exception):
    """There is no valid session; `path` is where the visitor wanted to go."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


@dataclass(frozen=True)
class Session:
    """Somebody who signed in. csrf: what their forms must hold."""

    caller: Principal
    csrf: str


def start_session(response: Response, caller: Principal) -> None:
    """Give a cookie that stands for the caller's token until it is revoked or 12 hours are over."""
    expires = tokens.expiry(_SECONDS)
    value = f"{caller.token.id}.{expires}.{tokens.signed(caller.owner.signing_key, 'session', caller.token.id, expires)}"
    https = caller.base_url.startswith("https:")
    response.set_cookie(
        COOKIE, value, max_age=_SECONDS, httponly=True, samesite="strict", secure=https
    )


def end_session() -> Response:
    """Take the cookie back."""
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


def current_session(request: Request) -> Session:
    """Give who is signed in. Raises SignInNeeded."""
    cookie = request.cookies.get(COOKIE, "")
    found = re.fullmatch(r"(\d{1,10})\.(\d{1,10})\.([0-9a-f]{64})", cookie, re.ASCII)
    if found is None:
        raise SignInRequired(request.url.path)
    token_id, expires, signature = found.groups()
    caller = authenticate_session(
        request,
        int(token_id),
        lambda key: tokens.holds(key, signature, int(expires), "session", token_id),
    )
    if caller is None:
        raise SignInRequired(request.url.path)
    return Session(caller, tokens.signed(caller.owner.signing_key, "form", cookie))


CurrentSession = Annotated[Session, Depends(current_session)]


def csrf_checked_session(
    someone: CurrentSession, csrf: Annotated[str, Form(max_length=64)]
) -> Session:
    """Give who sent a form of ours. Raises 403 for a form that another site made."""
    if not tokens.same(csrf, someone.csrf):
        raise HTTPException(
            403, "this form is from another session: go back, reload the page and send it again"
        )
    return someone


CsrfCheckedSession = Annotated[Session, Depends(csrf_checked_session)]
