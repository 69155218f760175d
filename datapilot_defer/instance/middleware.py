"""What is checked of every request before anything reads it, and what is said of it in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("datapilot_defer.instance")

# A call of the API holds less than 1 kB; only a signed URL takes more.
MAX_BODY_BYTES = 64 * 1024
_MAX_TRACKED_CLIENTS = 10_000
_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}


class RateLimiter:
    """How many requests each client's address may still make: `per_minute`, refilled evenly. 0: any number."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left: dict[str, tuple[float, float]] = {}

    def acquire(self, address: str) -> float:
        """Count a request; gives 0, or the seconds until the next one is welcome."""
        if not self._per_minute:
            return 0.0
        at, per_second = time.monotonic(), self._per_minute / 60
        left, since = self._left.pop(address, (float(self._per_minute), at))
        left = min(self._per_minute, left + (at - since) * per_second)
        if len(self._left) >= _MAX_TRACKED_CLIENTS:
            self._left.pop(next(iter(self._left)))
        self._left[address] = (max(left - 1, left if left < 1 else 0), at)
        return 0.0 if left >= 1 else (1 - left) / per_second


class RequestMiddleware:
    """The outermost layer of the application: rate, size, headers, the access log."""

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self._app, self._rate = app, RateLimiter(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [
                    item for item in _SECURITY_HEADERS.items() if item[0] not in given
                ]
            await send(message)

        # Somebody's instance URL ends with a slash, and the client adds another.
        scope["path"] = scope["path"].replace("//", "/")
        try:
            refused = self._reject(scope)
            await (refused or self._app)(scope, receive, send_safely)
        finally:
            self._log_request(scope, status, time.monotonic() - begun)

    def _reject(self, scope: Scope) -> JSONResponse | None:
        address = scope["client"][0] if scope["client"] else ""
        wait = 0.0 if scope["path"] == "/health" else self._rate.acquire(address)
        if wait:
            return _answer(429, "too many requests", {"Retry-After": str(int(wait) + 1)})
        headers = Headers(scope=scope)
        if scope["method"] in ("GET", "HEAD") or scope["path"].startswith("/files/"):
            return None
        if "chunked" in headers.get("transfer-encoding", ""):
            return _answer(411, "say how long the body is")
        if int(headers.get("content-length", "0")) > MAX_BODY_BYTES:
            return _answer(413, f"the body of this call has at most {MAX_BODY_BYTES} bytes")
        return None

    def _log_request(self, scope: Scope, status: int, seconds: float) -> None:
        """The path alone: a query may hold a signature."""
        address = scope["client"][0] if scope["client"] else "-"
        path = scope["path"].encode("ascii", "backslashreplace").decode()
        log.info("%s %s %s %d %.0f ms", address, scope["method"], path, status, seconds * 1000)


def _answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail, "message": detail}, status, headers)
