"""Build the application of an instance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from datapilot_defer.errors import DatapilotError
from datapilot_defer.instance import error_responses
from datapilot_defer.instance.api import artifacts, integrations, signed_urls, status, uploads
from datapilot_defer.instance.middleware import RequestMiddleware
from datapilot_defer.instance.retention import BackgroundThread
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.instance.web import api_keys, pages, sign_in
from datapilot_defer.instance.web.session import SignInRequired
from datapilot_defer.instance.worker import VerificationWorker, WorkerLimits
from datapilot_defer.storage import Storage

# In the order of the documentation at /docs.
_ROUTERS = (
    uploads.router,
    status.router,
    integrations.router,
    artifacts.router,
    signed_urls.router,
    sign_in.router,
    pages.router,
    api_keys.router,
)


def create_app(storage: Storage, settings: InstanceSettings) -> FastAPI:
    """Return the application; all its state is in the storage."""
    app = FastAPI(
        title="datapilot instance",
        version=_version(),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.storage = storage
    app.state.settings = settings
    app.state.verifying = CapacityLimiter(settings.verification_workers)
    for router in _ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(packages=[("datapilot_defer.instance.web", "static")]))
    app.exception_handler(SignInRequired)(error_responses.redirect_to_sign_in)
    app.exception_handler(HTTPException)(error_responses.handle_http_exception)
    app.exception_handler(RequestValidationError)(error_responses.handle_invalid_request)
    app.exception_handler(DatapilotError)(error_responses.handle_domain_error)
    app.add_middleware(RequestMiddleware, per_minute=settings.requests_per_minute)
    return app


def _version() -> str:
    try:
        return version("datapilot-defer")
    except PackageNotFoundError:  # run from a checkout
        return "0"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    background = BackgroundThread(app.state.storage, app.state.settings)
    app.state.background = background
    worker = VerificationWorker(_worker_limits(app.state.settings))
    app.state.worker = worker
    background.start()
    worker.start()
    try:
        yield
    finally:
        await run_in_threadpool(worker.stop)
        await run_in_threadpool(background.stop)


def _worker_limits(settings: InstanceSettings) -> WorkerLimits:
    return WorkerLimits(
        memory_bytes=settings.verification_memory_bytes, seconds=settings.verification_seconds
    )
