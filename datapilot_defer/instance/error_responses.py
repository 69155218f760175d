"""HTTP status and body of every error: JSON for the API, a page for the web pages."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)
from datapilot_defer.instance.services.conflicts import Conflict, QuotaExceeded
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import SignInRequired

# The status of a subclass is that of its nearest base class in this table.
STATUS_OF_ERROR: dict[type[BaseException], int] = {
    UsageError: 422,
    ArtifactRefused: 422,
    QuotaExceeded: 402,
    Conflict: 409,
    AccessDenied: 403,
    NotFound: 404,
    Unavailable: 503,
    DatapilotError: 400,
}
_RETRY_AFTER_S = 2
_MAX_PROBLEMS = 10


def error_response(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as a page or as JSON.

    Most clients read `detail`; the VS Code extension reads `message` when it cannot create an
    integration.
    """
    if request.url.path.startswith(("/settings", "/sign-")):
        return render_page("problem.html", None, status, detail=detail)
    return JSONResponse({"detail": detail, "message": detail}, status, headers)


async def redirect_to_sign_in(request: Request, error: SignInRequired) -> Response:
    """Return a redirect to the sign-in page, which leads back to the requested page."""
    return RedirectResponse(f"/sign-in?to={quote(error.path)}", 303)


async def handle_http_exception(request: Request, error: HTTPException) -> Response:
    """Return the response of an error that the API or a page raised."""
    return error_response(request, error.status_code, error.detail, error.headers)


async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
    """Return which fields are invalid and why, without repeating their values."""
    problems = []
    for problem in error.errors()[:_MAX_PROBLEMS]:
        first, *path = problem["loc"]
        field = ".".join(map(str, path)) or first
        problems.append(f"{field}: {problem['msg']}")
    return error_response(request, 422, "; ".join(problems))


async def handle_domain_error(request: Request, error: DatapilotError) -> Response:
    """Return the response of an expected error. A bug is none and becomes a 500."""
    base_classes = type(error).__mro__
    status = next(STATUS_OF_ERROR[base] for base in base_classes if base in STATUS_OF_ERROR)
    headers = None
    if isinstance(error, Unavailable):
        headers = {"Retry-After": str(_RETRY_AFTER_S)}
    return error_response(request, status, str(error), headers)
