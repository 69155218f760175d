"""Routes of the first page, of the API's documentation, and of addresses without a page."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.web.paths import INTEGRATIONS_PATH
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import CurrentSession

router = APIRouter(include_in_schema=False)


@router.get("/")
def home() -> Response:
    """Redirect to the integrations."""
    return RedirectResponse(INTEGRATIONS_PATH, 303)


@router.get("/docs")
def docs(request: Request) -> Response:
    """Describe the API for users; /openapi.json describes it for programs."""
    return render_page("docs.html", None, api=request.app.openapi())


@router.get("/settings/{path:path}")
def not_found(session: CurrentSession) -> Response:
    """Report that there is no such page, with the navigation of the session."""
    raise HTTPException(404, "there is no page at this address")
