"""Limits on requests per minute for each token, file, and address without a valid token."""

from __future__ import annotations

import threading
import time

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.types import Scope

from datapilot_defer.instance.forwarding import client_address

_MAX_TRACKED_CLIENTS = 10_000
# Each route under these paths calls `limit_token` when it authenticates a request.
_AUTHENTICATED_PATHS = ("/dbt/", "/auth_health", "/settings")
_IS_COUNTED = "is_counted"


class RateLimiter:
    """A limit of `per_minute` requests for each client.

    A client's budget is refilled evenly. 0 disables the limit.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._budgets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def acquire(self, client: str) -> float:
        """Count a request and return 0 if it is allowed.

        Otherwise, return the number of seconds until a request is allowed.
        """
        if not self._per_minute:
            return 0.0
        with self._lock:
            return self._acquire(client)

    def _acquire(self, client: str) -> float:
        per_second = self._per_minute / 60
        now = time.monotonic()
        budget, updated_at = self._budgets.pop(client, (float(self._per_minute), now))
        budget = min(self._per_minute, budget + (now - updated_at) * per_second)
        is_allowed = budget >= 1
        wait = 0.0
        if is_allowed:
            remaining = budget - 1
        else:
            remaining = budget
            wait = (1 - budget) / per_second
        if len(self._budgets) >= _MAX_TRACKED_CLIENTS:
            self._budgets.pop(next(iter(self._budgets)))
        self._budgets[client] = (remaining, now)
        return wait


def limit_token(request: Request, token_id: int | None) -> None:
    """Count a request toward the limit of its valid token, or of its address if it has none.

    A request counts only once toward the limit of its address. Raises HTTPException 429 after too
    many requests.
    """
    if token_id is not None:
        _limit(request, f"token {token_id}")
    elif not _state(request.scope).get(_IS_COUNTED):
        _limit(request, client_address(request.scope))


def limit_file(request: Request, file_id: int) -> None:
    """Count a request with a valid signed URL toward the limit of its file.

    Raises HTTPException 429 after too many requests.
    """
    _limit(request, f"file {file_id}")


def limit_address(limiter: RateLimiter, scope: Scope) -> None:
    """Count a request toward the limit of its address, unless it may later be authenticated.

    Requests for /health do not count. Raises HTTPException 429 after too many requests.
    """
    if scope["path"] == "/health" or _may_be_authenticated(scope):
        return
    _state(scope)[_IS_COUNTED] = True
    _raise_if_limited(limiter.acquire(client_address(scope)))


def count_unauthenticated(limiter: RateLimiter, scope: Scope) -> None:
    """Count a request toward the limit of its address if no route has counted it.

    Such a request failed before a route authenticated it. `limit_address` has already counted the
    requests that cannot be authenticated.
    """
    if _may_be_authenticated(scope) and not _state(scope).get(_IS_COUNTED):
        limiter.acquire(client_address(scope))


def _may_be_authenticated(scope: Scope) -> bool:
    path = scope["path"]
    if path.startswith("/files/"):
        return True
    headers = Headers(scope=scope)
    has_credentials = "authorization" in headers or "cookie" in headers
    return has_credentials and path.startswith(_AUTHENTICATED_PATHS)


def _state(scope: Scope) -> dict[str, object]:
    """Return the state that routes access as `request.state`."""
    state: dict[str, object] = scope.setdefault("state", {})
    return state


def _limit(request: Request, client: str) -> None:
    _state(request.scope)[_IS_COUNTED] = True
    limiter: RateLimiter = request.app.state.rate_limiter
    _raise_if_limited(limiter.acquire(client))


def _raise_if_limited(wait: float) -> None:
    if wait:
        raise HTTPException(429, "too many requests", headers={"Retry-After": str(int(wait) + 1)})
