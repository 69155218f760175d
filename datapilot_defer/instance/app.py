"""The application: everything that an instance answers, over records and blobs that somebody opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import quote

from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from datapilot_defer.errors import (
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)
from datapilot_defer.instance.api import integrations, uploads
from datapilot_defer.instance.ingestion import IngestionWorker
from datapilot_defer.instance.middleware import RequestMiddleware
from datapilot_defer.instance.services import signed_urls
from datapilot_defer.instance.services.upload_checks import UnsafeUpload
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.instance.web import pages
from datapilot_defer.instance.web.session import SignInRequired
from datapilot_defer.storage.blobs import BlobStore
from datapilot_defer.storage.database import Database

# A manifest is held in memory while it is verified: one at a time, the others wait without holding anything.
_MAX_PARALLEL_VERIFICATIONS = 1


def create_app(records: Database, blobs: BlobStore, settings: InstanceSettings) -> FastAPI:
    """Make the application; it works on what it is given and keeps nothing else."""
    app = FastAPI(
        title="datapilot instance",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.records, app.state.blobs, app.state.settings = records, blobs, settings
    app.state.verifying = CapacityLimiter(_MAX_PARALLEL_VERIFICATIONS)
    for part in (uploads.router, integrations.router, signed_urls.router, pages.router):
        app.include_router(part)
    app.mount("/static", StaticFiles(packages=[("datapilot_defer.instance.web", "static")]))
    app.exception_handler(SignInRequired)(redirect_to_sign_in)
    app.exception_handler(HTTPException)(handle_http_exception)
    app.exception_handler(RequestValidationError)(handle_invalid_request)
    app.exception_handler(DatapilotError)(handle_domain_error)
    app.add_middleware(RequestMiddleware, per_minute=settings.requests_per_minute)
    return app


def _version() -> str:
    try:
        return version("datapilot-defer")
    except PackageNotFoundError:  # run from a checkout
        return "0"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.worker = worker = IngestionWorker(
        app.state.records, app.state.blobs, app.state.settings
    )
    worker.start()
    try:
        yield
    finally:
        await run_in_threadpool(worker.stop)


def error_response(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """`detail` is what most clients read; the extension reads `message` when it can't create an integration."""
    if request.url.path.startswith(("/settings", "/sign-")):
        return pages.render_page("problem.html", None, status, detail=detail)
    return JSONResponse({"detail": detail, "message": detail}, status, headers)


async def redirect_to_sign_in(request: Request, error: SignInRequired) -> Response:
    return RedirectResponse(f"/sign-in?to={quote(error.path)}", 303)


async def handle_http_exception(request: Request, error: HTTPException) -> Response:
    return error_response(request, error.status_code, error.detail, error.headers)


async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
    """Say which field is wrong and why, without repeating what was sent."""
    problems = [
        f"{'.'.join(map(str, each['loc'][1:])) or each['loc'][0]}: {each['msg']}"
        for each in error.errors()
    ]
    return error_response(request, 422, "; ".join(problems[:10]))


async def handle_domain_error(request: Request, error: DatapilotError) -> Response:
    """What a file, a name or a full disk caused; a bug is none of these and stays a 500."""
    status = next(
        (status for kind, status in STATUS_OF_ERROR.items() if isinstance(error, kind)), 400
    )
    return error_response(
        request, status, str(error), {"Retry-After": "2"} if status == 503 else None
    )


STATUS_OF_ERROR: dict[type[DatapilotError], int] = {
    UnsafeUpload: 409,
    ArtifactRefused: 422,
    UsageError: 422,
    NotFound: 404,
    Unavailable: 503,
}
