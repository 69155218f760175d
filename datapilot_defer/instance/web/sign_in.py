"""Routes to sign in and out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import BaseUrl, CurrentStorage
from datapilot_defer.instance.forwarding import client_address
from datapilot_defer.instance.rate_limit import RateLimiter
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import (
    CsrfCheckedSession,
    delete_session_cookie,
    session_id_of,
    set_session_cookie,
)

router = APIRouter(include_in_schema=False)
_HOME_PATH = "/settings/integrations"
# Entries that failed attempts may add to the audit log, per minute: of one address, and of all.
_failures_of_address = RateLimiter(10)
_failures = RateLimiter(60)


@router.get("/sign-in")
def sign_in_form(to: str = _HOME_PATH) -> Response:
    """Ask for a token."""
    return render_page("sign_in.html", None, to=to, is_wrong=False)


@router.post("/sign-in")
def sign_in(
    request: Request,
    storage: CurrentStorage,
    base_url: BaseUrl,
    token: Annotated[str, Form(max_length=2000)],
    to: Annotated[str, Form(max_length=2000)] = _HOME_PATH,
) -> Response:
    """Start a session, if the token is valid."""
    _check_origin(request, base_url)
    principal = tokens.authenticate_token(storage, token.strip())
    if principal is None:
        _record_failure(request, storage)
        return render_page("sign_in.html", None, 401, to=to, is_wrong=True)
    target = _HOME_PATH
    if to.startswith("/settings/"):
        target = to
    response = RedirectResponse(target, 303)
    session_id = tokens.start_session(storage, principal)
    set_session_cookie(response, session_id, is_secure=base_url.startswith("https:"))
    return response


@router.post("/sign-out")
def sign_out(request: Request, storage: CurrentStorage, session: CsrfCheckedSession) -> Response:
    """End the session."""
    tokens.end_session(storage, session_id_of(request))
    response = RedirectResponse("/sign-in", 303)
    delete_session_cookie(response)
    return response


def _check_origin(request: Request, base_url: str) -> None:
    """Raise HTTPException 403 when a browser sends the form of another site.

    Old browsers send Origin without Sec-Fetch-Site. Programs send neither.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        is_foreign = site not in ("same-origin", "none")
    else:
        is_foreign = origin is not None and urlsplit(origin).netloc != urlsplit(base_url).netloc
    if is_foreign:
        raise HTTPException(403, "the form was sent by another site. Open the sign-in page here.")


def _record_failure(request: Request, storage: CurrentStorage) -> None:
    address = client_address(request.scope)
    if _failures_of_address.acquire(address or "") or _failures.acquire(""):
        return
    tokens.record_failed_sign_in(storage, address)
