"""Routes that start and end a session."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import BaseUrl, CurrentStorage
from datapilot_defer.instance.forwarding import client_address
from datapilot_defer.instance.services import web_sessions
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import (
    CsrfCheckedSession,
    delete_session_cookie,
    session_id_of,
    set_session_cookie,
)

router = APIRouter(include_in_schema=False)
_SIGN_IN_PATH = "/sign-in"
_START_PATH = "/settings/integrations"
# Values of Sec-Fetch-Site for a form of this site, or an address that the user typed.
_OWN_SITES = ("same-origin", "none")


@router.get(_SIGN_IN_PATH)
def sign_in_form(to: str = _START_PATH) -> Response:
    """Ask for a token."""
    return render_page("sign_in.html", None, to=to, is_wrong=False)


@router.post(_SIGN_IN_PATH)
def sign_in(
    request: Request,
    storage: CurrentStorage,
    base_url: BaseUrl,
    token: Annotated[str, Form(max_length=2000)],
    to: Annotated[str, Form(max_length=2000)] = _START_PATH,
) -> Response:
    """Start a session, if the token is valid."""
    if not _is_from_own_site(request, base_url):
        raise HTTPException(
            403, "another site sent this form. Open the sign-in page of this instance."
        )
    cookie = web_sessions.sign_in(storage, token.strip(), client_address(request.scope))
    if cookie is None:
        return render_page("sign_in.html", None, 401, to=to, is_wrong=True)
    target = _START_PATH
    if to.startswith("/settings/"):
        target = to
    response = RedirectResponse(target, 303)
    set_session_cookie(response, cookie, is_secure=base_url.startswith("https:"))
    return response


@router.post("/sign-out")
def sign_out(request: Request, storage: CurrentStorage, session: CsrfCheckedSession) -> Response:
    """End the session."""
    web_sessions.end_session(storage, session_id_of(request))
    response = RedirectResponse(_SIGN_IN_PATH, 303)
    delete_session_cookie(response)
    return response


def _is_from_own_site(request: Request, base_url: str) -> bool:
    """Return whether a page of this instance sent a form, or a client that is not a browser.

    Browsers do not send Sec-Fetch-Site over plain HTTP, old ones never: then Origin counts. The
    scheme is not compared, because a proxy may end TLS.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _OWN_SITES
    origin = request.headers.get("origin")
    if origin is None:
        return True
    return _host_of(origin) in {_host_of(base_url), request.headers.get("host", "").lower()} - {""}


def _host_of(url: str) -> str:
    """Return host and port of a URL, or "" for other text. Any text is allowed."""
    _, _, rest = url.lower().partition("://")
    return rest.partition("/")[0]
