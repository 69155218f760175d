"""The web application of an instance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from datapilot_defer.errors import DatapilotError, Unavailable
from datapilot_defer.instance import error_responses
from datapilot_defer.instance.api import artifacts, integrations, signed_urls, status, uploads
from datapilot_defer.instance.background import BackgroundThread
from datapilot_defer.instance.descriptors import UPLOADS_AT_ONCE
from datapilot_defer.instance.last_used import LastUsed
from datapilot_defer.instance.middleware import RequestMiddleware
from datapilot_defer.instance.rate_limit import RateLimiter
from datapilot_defer.instance.services.quota import Reservations
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.instance.token_slots import TokenSlots
from datapilot_defer.instance.upload_turns import UploadTurns
from datapilot_defer.instance.web import audit as audit_pages
from datapilot_defer.instance.web import environments as environment_pages
from datapilot_defer.instance.web import integrations as integration_pages
from datapilot_defer.instance.web import pages, sign_in
from datapilot_defer.instance.web import tokens as token_pages
from datapilot_defer.instance.web import uploads as upload_pages
from datapilot_defer.instance.web.new_tokens import NewTokens
from datapilot_defer.instance.web.session import SignInRequired
from datapilot_defer.instance.worker import VerificationPool, WorkerLimits
from datapilot_defer.storage import Storage
from datapilot_defer.version import program_version

# The order of the routers determines the order of the calls at /docs.
_ROUTERS = (
    uploads.router,
    status.router,
    integrations.router,
    artifacts.router,
    signed_urls.router,
    integration_pages.router,
    environment_pages.router,
    upload_pages.router,
    token_pages.router,
    audit_pages.router,
    sign_in.router,
    pages.router,
)


def create_app(storage: Storage, settings: InstanceSettings) -> FastAPI:
    """Return the application. All persistent state is in the storage."""
    app = FastAPI(
        title="datapilot instance",
        version=program_version(),
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.storage = storage
    app.state.settings = settings
    app.state.new_tokens = NewTokens()
    app.state.last_used = LastUsed()
    app.state.rate_limiter = RateLimiter(settings.requests_per_minute)
    app.state.uploads = UploadTurns(UPLOADS_AT_ONCE, UPLOADS_AT_ONCE // 4)
    app.state.reservations = Reservations()
    app.state.verifying = CapacityLimiter(settings.verification_workers)
    app.state.verifications = TokenSlots(max(1, settings.verification_workers // 2))
    for router in _ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(packages=[("datapilot_defer.instance.web", "static")]))
    app.exception_handler(SignInRequired)(error_responses.redirect_to_sign_in)
    app.exception_handler(HTTPException)(error_responses.handle_http_exception)
    app.exception_handler(RequestValidationError)(error_responses.handle_invalid_request)
    app.exception_handler(DatapilotError)(error_responses.handle_domain_error)
    app.add_middleware(RequestMiddleware, settings=settings, rate_limiter=app.state.rate_limiter)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    background = BackgroundThread(app.state.storage, app.state.settings, app.state.last_used)
    app.state.background = background
    verification = _create_verification_pool(app.state.settings)
    app.state.verification = verification
    background.start()
    with suppress(Unavailable):  # the first upload will try again
        verification.start()
    try:
        yield
    finally:
        await run_in_threadpool(verification.stop)
        await run_in_threadpool(background.stop)


def _create_verification_pool(settings: InstanceSettings) -> VerificationPool:
    limits = WorkerLimits(
        memory_bytes=settings.verification_memory_bytes, seconds=settings.verification_seconds
    )
    return VerificationPool(settings.verification_workers, limits)
