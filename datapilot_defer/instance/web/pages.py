"""Routes of the home page, the API documentation and unknown pages."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.web.paths import INTEGRATIONS_PATH
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import CurrentSession

router = APIRouter(include_in_schema=False)


@router.get("/")
def home() -> Response:
    """Redirect to the list of integrations."""
    return RedirectResponse(INTEGRATIONS_PATH, 303)


@router.get("/docs")
def docs(request: Request) -> Response:
    """Show the API documentation to users. Programs can read /openapi.json instead."""
    return render_page("docs.html", None, api=request.app.openapi())


@router.get("/settings/{path:path}")
def not_found(session: CurrentSession) -> Response:
    """Report an unknown page below /settings, and show the navigation of the session."""
    raise HTTPException(404, "this page does not exist")
