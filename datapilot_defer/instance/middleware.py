"""Processing of every request: forwarded headers, limits, security headers and access log."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from datapilot_defer.formatting import to_single_line
from datapilot_defer.instance.error_responses import error_response
from datapilot_defer.instance.forwarding import (
    apply_forwarded_headers,
    client_address,
    find_contradiction,
)
from datapilot_defer.instance.rate_limit import RateLimiter, count_unauthenticated, limit_address
from datapilot_defer.instance.request_parser import MAX_HELD_BODY_BYTES
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.instance.token_slots import too_busy
from datapilot_defer.version import program_version

log = logging.getLogger("datapilot_defer.instance")

# Maximum number of uploads that run, wait for their turn, or are not yet authenticated.
_MAX_UPLOADS = 256
_MAX_LOGGED_METHOD = 20
_MAX_LOGGED_PATH = 500
_MAX_LOGGED_USER_AGENT = 200
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"default-src 'none'; style-src 'self'; script-src 'self'; "
    b"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}
_HTTPS_HEADERS = {**_SECURITY_HEADERS, b"strict-transport-security": b"max-age=31536000"}


class RequestMiddleware:
    """The outermost middleware of the application."""

    def __init__(self, app: ASGIApp, settings: InstanceSettings, rate_limiter: RateLimiter) -> None:
        self._app = app
        self._settings = settings
        self._rate_limiter = rate_limiter
        self._has_warned = False
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.monotonic()
        status = 500
        request_id = self._request_id(scope)
        identity = [
            (b"x-request-id", request_id.encode()),
            (b"x-datapilot-version", program_version().encode()),
        ]

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_security_headers(scope, message)
                message["headers"] += identity
            await send(message)

        self._apply_proxy(scope)
        # If the user's instance URL ends with a slash, the client adds another one.
        scope["path"] = scope["path"].replace("//", "/")
        try:
            await self._handle(scope, receive, send_with_headers)
        finally:
            count_unauthenticated(self._rate_limiter, scope)
            _log_request(scope, status, time.monotonic() - started_at, request_id)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request, and count it while it runs if it is an upload.

        An upload counts only until its response begins, because the client might never read it.
        """
        app = self._reject(scope) or self._app
        counted = int(scope["method"] == "PUT")
        self._uploads += counted
        has_begun = False

        async def send_and_count(message: Message) -> None:
            nonlocal counted, has_begun
            self._uploads -= counted
            counted = 0
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, send_and_count)
        except asyncio.CancelledError:  # the server is stopping and has waited long enough
            if not has_begun:
                response = error_response(Request(scope), 503, "the instance is stopping")
                await response(scope, receive, send)
        finally:
            self._uploads -= counted

    def _request_id(self, scope: Scope) -> str:
        """Return the request id that a trusted reverse proxy sent, or otherwise a random one."""
        request_id = Headers(scope=scope).get("x-request-id", "")
        if self._settings.behind_proxy and _REQUEST_ID.fullmatch(request_id):
            return request_id
        return secrets.token_hex(8)

    def _apply_proxy(self, scope: Scope) -> None:
        """Apply the forwarded headers if the instance is behind a reverse proxy.

        Otherwise, log one warning when ignored headers contradict the instance's URLs.
        """
        if self._settings.behind_proxy:
            apply_forwarded_headers(scope)
            return
        if self._has_warned:
            return
        header = find_contradiction(scope, self._settings.public_url)
        if header is None:
            return
        self._has_warned = True
        log.warning(
            "ignoring the forwarded headers of a request: %s contradicts the URLs that this "
            "instance returns. If a reverse proxy forwards the requests, start the instance with "
            "--behind-proxy.",
            header,
        )

    def _reject(self, scope: Scope) -> ASGIApp | None:
        """Return the error response for a request that must not be processed, or None."""
        try:
            limit_address(self._rate_limiter, scope)
            _check_body(scope)
            if scope["method"] == "PUT" and self._uploads >= _MAX_UPLOADS:
                raise too_busy()
        except HTTPException as error:
            return error_response(Request(scope), error.status_code, error.detail, error.headers)
        return None


def _check_body(scope: Scope) -> None:
    """Raise HTTPException if the request body is not acceptable.

    The status code is 411 for a request with a Transfer-Encoding header, and 413 for an API call
    that is too large.
    """
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        raise HTTPException(411, "the request has no Content-Length header")
    if scope["method"] == "PUT" and scope["path"].startswith("/files/"):
        return
    # The body of an API call is smaller than 1 kB. The limit does not apply to uploads to a signed
    # URL.
    if int(headers.get("content-length", "0")) > MAX_HELD_BODY_BYTES:
        raise HTTPException(
            413, f"the request body is too large: the limit is {MAX_HELD_BODY_BYTES} bytes"
        )


def _add_security_headers(scope: Scope, message: Message) -> None:
    present = {name.lower() for name, _ in message["headers"]}
    headers = _SECURITY_HEADERS
    if scope["scheme"] == "https" and not _is_localhost(scope):
        headers = _HTTPS_HEADERS
    message["headers"] += [(name, value) for name, value in headers.items() if name not in present]


def _is_localhost(scope: Scope) -> bool:
    """Return whether the host is localhost.

    Strict-Transport-Security would also apply to its other ports, which may serve plain HTTP.
    """
    host = Headers(scope=scope).get("host", "")
    return host.partition(":")[0].lower() == "localhost"


def _log_request(scope: Scope, status: int, seconds: float, request_id: str) -> None:
    """Log a request.

    The path is logged as the client sent it. The query is omitted, because it may contain a
    signature.
    """
    address = client_address(scope) or "-"
    method = to_single_line(scope["method"], _MAX_LOGGED_METHOD)
    path = to_single_line(scope["raw_path"].decode("ascii", "replace"), _MAX_LOGGED_PATH)
    user_agent = to_single_line(
        Headers(scope=scope).get("user-agent", "-").replace('"', "'"), _MAX_LOGGED_USER_AGENT
    )
    log.info(
        '%s %s %s %d %.0f ms %s "%s"',
        *(address, method, path, status, seconds * 1000, request_id, user_agent),
    )
