"""Responses for errors: JSON for the API, a page for the web pages."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from datapilot_defer.errors import DatapilotError, Unavailable
from datapilot_defer.instance.error_statuses import status_of
from datapilot_defer.instance.services.principal import AuthenticationFailed
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import SignInRequired

_RETRY_AFTER_S = 2
_MAX_PROBLEMS = 10


def error_response(
    request: Request,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    facts: Mapping[str, object] | None = None,
) -> Response:
    """Return an error as a page or as JSON.

    The response is a page for a browser or the path of a web page, and JSON otherwise. facts:
    additional fields of the JSON. Most API clients read `detail`. The VS Code extension reads
    `message` when it cannot create an integration.
    """
    is_page = request.scope["path"].startswith(("/settings", "/sign-"))
    if is_page or "text/html" in request.headers.get("accept", ""):
        # A session is set only if it is valid. The page then shows the navigation.
        session = getattr(request.state, "session", None)
        page = render_page("problem.html", session, status, problem=detail)
        page.headers.update(headers or {})
        return page
    body = {**(facts or {}), "detail": detail, "message": detail}
    return JSONResponse(body, status, headers)


async def redirect_to_sign_in(request: Request, error: SignInRequired) -> Response:
    """Return a redirect to the sign-in page.

    After sign-in, that page redirects back to the requested page.
    """
    return RedirectResponse(f"/sign-in?to={quote(error.path)}", 303)


async def handle_http_exception(request: Request, error: HTTPException) -> Response:
    """Return the response for an HTTPException, such as the one for an unknown path."""
    return error_response(request, error.status_code, error.detail, error.headers)


async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
    """Return a 422 response that states which fields are invalid and why.

    It lists at most _MAX_PROBLEMS problems and does not repeat the values.
    """
    problems = []
    for problem in error.errors()[:_MAX_PROBLEMS]:
        first, *path = problem["loc"]
        field = ".".join(map(str, path)) or first
        problems.append(f"{field}: {problem['msg']}")
    return error_response(request, 422, "; ".join(problems))


async def handle_domain_error(request: Request, error: DatapilotError) -> Response:
    """Return the response for an expected error.

    Any other exception results in a 500 response.
    """
    headers = None
    if isinstance(error, Unavailable):
        headers = {"Retry-After": str(_RETRY_AFTER_S)}
    if isinstance(error, AuthenticationFailed):
        headers = {"WWW-Authenticate": "Bearer"}
    return error_response(request, status_of(error), str(error), headers, error.details)
