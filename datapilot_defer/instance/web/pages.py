"""Routes of the first page, of signing in and out, and of the API's documentation."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import BaseUrl, CurrentStorage
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.web.paths import INTEGRATIONS_PATH, FormText
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import (
    CsrfCheckedSession,
    CurrentSession,
    end_session,
    start_session,
)

router = APIRouter(include_in_schema=False)


@router.get("/")
def home() -> Response:
    """Redirect to the integrations."""
    return RedirectResponse(INTEGRATIONS_PATH, 303)


@router.get("/sign-in")
def sign_in_form(to: str = INTEGRATIONS_PATH) -> Response:
    """Ask for a token."""
    return render_page("sign_in.html", None, to=to, is_wrong=False)


@router.post("/sign-in")
def sign_in(
    request: Request,
    storage: CurrentStorage,
    base_url: BaseUrl,
    token: FormText,
    to: FormText = INTEGRATIONS_PATH,
) -> Response:
    """Start a session, if the token is valid."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "another site sent this form")
    principal = tokens.authenticate_token(storage, token.strip())
    if principal is None:
        return render_page("sign_in.html", None, 401, to=to, is_wrong=True)
    target = INTEGRATIONS_PATH
    if to.startswith("/settings/"):
        target = to
    response = RedirectResponse(target, 303)
    start_session(response, principal, is_secure=base_url.startswith("https:"))
    return response


@router.post("/sign-out")
def sign_out(session: CsrfCheckedSession) -> Response:
    """End the session."""
    return end_session()


@router.get("/docs")
def docs(request: Request) -> Response:
    """Describe the API for users; /openapi.json describes it for programs."""
    return render_page("docs.html", None, api=request.app.openapi())


@router.get("/settings/{path:path}")
def not_found(session: CurrentSession) -> Response:
    """Report that there is no such page, with the navigation of the session."""
    raise HTTPException(404, "there is no page at this address")
