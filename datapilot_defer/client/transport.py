"""Requests with a deadline and a retry budget. A token is sent to one host only."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import requests
import urllib3

from datapilot_defer.client import failures, sessions
from datapilot_defer.client.allowed_urls import (
    check_api_url,
    check_storage_url,
    redirect_target,
)
from datapilot_defer.client.messages import MAX_ANSWER_BYTES, Request, Response, parse_body
from datapilot_defer.client.responses import error_detail
from datapilot_defer.client.retries import RetryBudget, TimeLimits
from datapilot_defer.client.status_errors import with_request
from datapilot_defer.errors import DatapilotError, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datapilot_defer.client.failures import RequestFailure
    from datapilot_defer.console import Log, Progress
    from datapilot_defer.credentials import Credentials
    from datapilot_defer.deadline import Deadline

CONNECT_TIMEOUT_S = 10.0
# For connecting and for each 16 kB of an upload, because urllib3 has one timeout for both.
SEND_TIMEOUT_S = 30.0
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_REDIRECTS_KEEPING_METHOD = (307, 308)
_CHUNK_BYTES = 256 * 1024
# urllib3 before 2.6 decompresses all data at once, to up to 1,032 times its size.
_COMPRESSED_CHUNK_BYTES = 8 * 1024
_COMPRESSIONS = ("gzip", "x-gzip", "deflate")


class Transport:
    """Requests of one command to one instance and to its storage."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        limits: TimeLimits,
        log: Log,
        ci_name: str | None,
    ) -> None:
        self._base_url = credentials.url.value
        self._limits = limits
        self._deadline = limits.deadline
        self._log = log
        auth = sessions.TokenAuth(credentials.token.value, credentials.instance_name.value)
        self._api = sessions.create_session(auth, ci_name=ci_name)
        self._storage = sessions.create_session(sessions.NoAuth(), ci_name=ci_name)

    def send_to_api(self, request: Request) -> Response:
        """Send an API call with the token. Follow redirects only on the same host and port."""
        absolute = replace(request, url=self._base_url + request.url)
        return self._send_following_redirects(self._api, absolute)

    def send_to_storage(self, request: Request) -> Response:
        """Send an upload or a download to a signed URL, without the token.

        `check_storage_url` applies to this URL and to the target of every redirect.
        """
        check_storage_url(request.url, self._base_url, request.action)
        return self._send_following_redirects(self._storage, request)

    def _send_following_redirects(self, session: requests.Session, request: Request) -> Response:
        for _ in range(MAX_REDIRECTS):
            response = self._send_with_retries(session, request)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            keeps_method = request.method == "GET" or response.status in _REDIRECTS_KEEPING_METHOD
            url = redirect_target(request.url, location, request.action, possible=keeps_method)
            if session is self._api:
                check_api_url(url, self._base_url, request.action)
            else:
                check_storage_url(url, self._base_url, request.action)
            # The location contains its own parameters.
            request = replace(request, url=url, params=None)
        origin = failures.url_origin(request.url)
        raise Unavailable(f"{request.action}: {origin} redirects in a circle")

    def _send_with_retries(self, session: requests.Session, request: Request) -> Response:
        budget = RetryBudget(self._limits.retry_s, self._deadline)
        if request.content is None:
            budget.start()  # not for an upload, which may take long before it fails
        while True:
            read_timeout_s = min(self._limits.read_timeout_s, budget.max_try_s)
            response, failure = self._send_once(session, request, read_timeout_s)
            if failure is None:
                return response
            wait_s = None
            if failure.retryable and (request.repeatable or failure.not_sent):
                wait_s = budget.next_wait(failure)
            if wait_s is None:
                raise _final_error(request, response, failure, budget)
            self._log.note(f"{request.action}: {failure.message}. Next attempt in {wait_s:.1f} s")
            time.sleep(wait_s)

    def _send_once(
        self, session: requests.Session, request: Request, read_timeout_s: float
    ) -> tuple[Response, RequestFailure | None]:
        label = f"{request.method} {failures.url_origin(request.url)}{urlsplit(request.url).path}"
        start = time.monotonic()
        try:
            perform = partial(self._perform, session, request, read_timeout_s)
            response = self._deadline.run(perform, request.action)
        except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
            failure = failures.failure_from_exception(error, request.url)
            self._log.detail(f"{label}: {failure.message}")
            return Response(0, requests.structures.CaseInsensitiveDict()), failure
        duration_ms = (time.monotonic() - start) * 1000
        line = f"{label}: HTTP {response.status} in {duration_ms:.0f} ms"
        self._log.detail(", ".join(filter(None, [line, response.describe_request()])))
        return response, _failure_of_response(request, response)

    def _perform(
        self, session: requests.Session, request: Request, read_timeout_s: float
    ) -> Response:
        # One second more than the remaining time, so that the deadline ends the command with its
        # own message.
        read_timeout_s = min(read_timeout_s, self._deadline.remaining() + 1)
        connect_timeout_s = CONNECT_TIMEOUT_S
        upload = None
        if request.content is not None:
            connect_timeout_s = SEND_TIMEOUT_S
            upload = _UploadBody(request.content, request.progress, self._deadline)
        with session.request(
            request.method,
            request.url,
            params=request.params,
            json=request.body,
            data=upload,
            timeout=(min(connect_timeout_s, read_timeout_s), read_timeout_s),
            allow_redirects=False,
            stream=True,
        ) as response:
            if request.destination is not None and response.status_code == 200:
                self._receive(response, request, request.destination)
                return Response(response.status_code, response.headers)
            body = b"".join(self._chunks(response, request, MAX_ANSWER_BYTES))
            # Parsing happens here so that the deadline applies to it too.
            return Response(response.status_code, response.headers, body, parse_body(body))

    def _receive(
        self, response: requests.Response, request: Request, destination: BinaryIO
    ) -> None:
        """Write the body to the destination, and overwrite the bytes of an earlier attempt."""
        request.progress.advance(-destination.seek(0, os.SEEK_END))
        destination.seek(0)
        destination.truncate()
        for chunk in self._chunks(response, request, request.limit_bytes):
            destination.write(chunk)
            request.progress.advance(len(chunk))

    def _chunks(
        self, response: requests.Response, request: Request, limit_bytes: int
    ) -> Iterator[bytes]:
        """Yield the body in chunks. Raises Unavailable after the deadline or `limit_bytes`."""
        size = 0
        for chunk in response.iter_content(_chunk_bytes(response, request.action)):
            self._deadline.check(request.action)
            size += len(chunk)
            if size > limit_bytes:
                origin = failures.url_origin(response.url)
                raise Unavailable(
                    f"{request.action}: {origin} sends more than {limit_bytes:,} bytes"
                )
            yield chunk


def _chunk_bytes(response: requests.Response, action: str) -> int:
    """Return how many bytes of a body to read at once, to limit the use of memory.

    Raises Unavailable for a compression that was not requested, such as two combined.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return _CHUNK_BYTES
    if encoding in _COMPRESSIONS:
        return _COMPRESSED_CHUNK_BYTES
    origin = failures.url_origin(response.url)
    raise Unavailable(f"{action}: {origin} used a compression that was not requested")


def _final_error(
    request: Request, response: Response, failure: RequestFailure, budget: RetryBudget
) -> DatapilotError:
    """Return the error for a request that is not repeated."""
    message = f"{request.action}: {failure.message}{budget.describe_end(failure)}"
    if failure.is_setting:
        return UsageError(message)
    return with_request(Unavailable(message), response)


def _failure_of_response(request: Request, response: Response) -> RequestFailure | None:
    """Return the failure if a response is a reason to repeat the request; None otherwise."""
    if response.status in failures.RETRIED_STATUS:
        reason = error_detail(response.json())
        return failures.failure_from_status(response.status, response.headers, request.url, reason)
    is_transfer = request.destination is not None or request.content is not None
    if not is_transfer and response.is_success and response.is_truncated:
        return failures.truncated_response(request.url)
    return None


class _UploadBody:
    """The content of an upload, which reports progress and stops at the deadline."""

    def __init__(self, content: bytes, progress: Progress, deadline: Deadline) -> None:
        self._view = memoryview(content)
        self._sent = 0
        self._progress = progress
        self._deadline = deadline

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int = -1) -> bytes:
        self._deadline.check("the upload")
        end = self._sent + size
        if size < 0:
            end = len(self._view)
        chunk = bytes(self._view[self._sent : end])
        self._sent += len(chunk)
        self._progress.advance(len(chunk))
        return chunk
