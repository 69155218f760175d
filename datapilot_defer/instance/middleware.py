"""Rate limit, body size, security headers and access log of every request."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("datapilot_defer.instance")

# The body of an API call has less than 1 kB; only a signed URL accepts more.
MAX_BODY_BYTES = 64 * 1024
_MAX_TRACKED_CLIENTS = 10_000
_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"default-src 'none'; style-src 'self'; script-src 'self'; "
    b"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


class RateLimiter:
    """Requests that each client IP may still make: `per_minute`, refilled evenly. 0: no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._budgets: dict[str, tuple[float, float]] = {}

    def acquire(self, address: str) -> float:
        """Count a request; return 0, or the seconds until the next one is allowed."""
        if not self._per_minute:
            return 0.0
        per_second = self._per_minute / 60
        now = time.monotonic()
        budget, updated_at = self._budgets.pop(address, (float(self._per_minute), now))
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
        self._budgets[address] = (remaining, now)
        return wait


class RequestMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self._app = app
        self._rate_limiter = RateLimiter(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.monotonic()
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_security_headers(message)
            await send(message)

        # The user's instance URL ends with a slash, and the client adds another one.
        scope["path"] = scope["path"].replace("//", "/")
        try:
            app = self._reject(scope) or self._app
            await app(scope, receive, send_with_headers)
        finally:
            _log_request(scope, status, time.monotonic() - started_at)

    def _reject(self, scope: Scope) -> JSONResponse | None:
        """Return the error response to a request that must not be processed."""
        wait = 0.0
        if scope["path"] != "/health":
            wait = self._rate_limiter.acquire(_client_address(scope))
        if wait:
            return _answer(429, "too many requests", {"Retry-After": str(int(wait) + 1)})
        if scope["method"] in ("GET", "HEAD") or scope["path"].startswith("/files/"):
            return None
        headers = Headers(scope=scope)
        if "chunked" in headers.get("transfer-encoding", ""):
            return _answer(411, "say how long the body is")
        if int(headers.get("content-length", "0")) > MAX_BODY_BYTES:
            return _answer(413, f"the body of this call has at most {MAX_BODY_BYTES} bytes")
        return None


def _client_address(scope: Scope) -> str:
    if not scope["client"]:
        return ""
    return str(scope["client"][0])


def _add_security_headers(message: Message) -> None:
    present = {name.lower() for name, _ in message["headers"]}
    message["headers"] += [
        (name, value) for name, value in _SECURITY_HEADERS.items() if name not in present
    ]


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    """Log the path without the query, which may hold a signature."""
    address = _client_address(scope) or "-"
    path = scope["path"].encode("ascii", "backslashreplace").decode()
    log.info("%s %s %s %d %.0f ms", address, scope["method"], path, status, seconds * 1000)


def _answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail, "message": detail}, status, headers)
