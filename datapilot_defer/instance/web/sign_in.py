"""Routes for signing in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import BaseUrl, CurrentStorage
from datapilot_defer.instance.forwarding import client_address
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.services.audit import record_failed_sign_in
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import (
    CsrfCheckedSession,
    delete_session_cookie,
    session_id_of,
    set_session_cookie,
)

router = APIRouter(include_in_schema=False)
_HOME_PATH = "/settings/integrations"


@router.get("/sign-in")
def sign_in_form(to: str = _HOME_PATH) -> Response:
    """Show the form for signing in with a token."""
    return render_page("sign_in.html", None, to=to, is_wrong=False)


@router.post("/sign-in")
def sign_in(
    request: Request,
    storage: CurrentStorage,
    base_url: BaseUrl,
    token: Annotated[str, Form(max_length=2000)],
    to: Annotated[str, Form(max_length=2000)] = _HOME_PATH,
) -> Response:
    """Start a session if the token is valid. Otherwise, show the form again."""
    _check_origin(request, base_url)
    principal = tokens.authenticate_token(storage, token.strip())
    if principal is None:
        record_failed_sign_in(storage, token.strip(), client_address(request.scope))
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
    """Raise HTTPException 403 when a browser submits a form from another site.

    Old browsers never send Sec-Fetch-Site, and new ones do not send it over plain HTTP. In that
    case, check Origin, but not its scheme, because a proxy may terminate TLS. Programs send neither
    header.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:
        own_hosts = {_host_of(base_url), request.headers.get("host", "").lower()} - {""}
        is_own = origin is None or _host_of(origin) in own_hosts
    if not is_own:
        raise HTTPException(
            403, "the form was sent by another site. Open the sign-in page of this instance."
        )


def _host_of(url: str) -> str:
    """Return the host and port of a URL, or "" for any other text."""
    _, _, rest = url.lower().partition("://")
    return rest.partition("/")[0]
