"""The application: everything that an instance answers, over records and blobs that somebody opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from datapilot_defer.errors import ArtifactRefused, Unavailable
from datapilot_defer.instance import onboarding, reading, transfer
from datapilot_defer.instance.ingestion import Worker
from datapilot_defer.instance.limits import Limits
from datapilot_defer.instance.settings import Settings
from datapilot_defer.storage.blobs import Blobs
from datapilot_defer.storage.records import Records


def create_app(records: Records, blobs: Blobs, settings: Settings) -> FastAPI:
    """Make the application; it works on what it is given and keeps nothing else."""
    app = FastAPI(title="datapilot instance", version=_version(), docs_url=None, redoc_url=None, lifespan=_life)
    app.state.records, app.state.blobs, app.state.settings = records, blobs, settings
    for part in (onboarding.router, reading.router, transfer.router):
        app.include_router(part)
    app.exception_handler(HTTPException)(_refused)
    app.exception_handler(RequestValidationError)(_misread)
    app.exception_handler(ArtifactRefused)(_not_wanted)
    app.exception_handler(Unavailable)(_unavailable)
    app.add_middleware(Limits, per_minute=settings.requests_per_minute)
    return app


def _version() -> str:
    try:
        return version("datapilot-defer")
    except PackageNotFoundError:  # run from a checkout
        return "0"


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    worker = Worker(app.state.records, app.state.blobs, app.state.settings)
    worker.start()
    try:
        yield
    finally:
        await run_in_threadpool(worker.stop)


def _answer(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """`detail` is what most clients read; the extension reads `message` when it can't create an integration."""
    return JSONResponse({"detail": detail, "message": detail}, status, headers)


async def _refused(request: Request, error: HTTPException) -> Response:
    return _answer(error.status_code, error.detail, dict(error.headers or {}))


async def _misread(request: Request, error: RequestValidationError) -> Response:
    """Say which field is wrong and why, without repeating what was sent."""
    problems = [f"{'.'.join(map(str, each['loc'][1:])) or each['loc'][0]}: {each['msg']}" for each in error.errors()]
    return _answer(422, "; ".join(problems[:10]))


async def _not_wanted(request: Request, error: Exception) -> Response:
    return _answer(422, str(error))


async def _unavailable(request: Request, error: Exception) -> Response:
    return _answer(503, str(error), {"Retry-After": "2"})
