"""Requests that end: within a deadline, after a bounded number of tries, never with a token at the wrong host."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from datapilot_defer.client import certificates, failures
from datapilot_defer.config import read_boolean_variable
from datapilot_defer.console import Log, NoProgress, Progress
from datapilot_defer.credentials import is_loopback
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable, UsageError

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
SEND_TIMEOUT_S = (
    30.0  # for connecting and for each 16 kB on their way out: urllib3 knows one number for both
)
MAX_TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = (
    0.5,
    20.0,
)  # full jitter: a wait is random between 0 and its bound, which doubles
MAX_ANSWER_BYTES = 64 * 1024 * 1024  # an answer of the API, not an artifact
MAX_REDIRECTS = 5
_CHUNK = 256 * 1024


@dataclass(frozen=True)
class Response:
    """What came back: status, headers and, unless it went to a file, the body."""

    status: int
    headers: requests.structures.CaseInsensitiveDict[str]
    body: bytes = field(default=b"", repr=False)

    def json(self) -> object:
        """The body as JSON, or None when it is something else."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def is_truncated(self) -> bool:
        """Whether it says that it is JSON and is not: a part is missing, though the length was right."""
        says_json = self.headers.get("Content-Type", "").startswith("application/json")
        return says_json and self.json() is None and self.body.strip() != b"null"


@dataclass(frozen=True)
class Request:
    """One request, repeatable as often as needed. what: the act in words, for messages. limit_bytes: of the answer."""

    action: str
    method: str
    url: str = field(repr=False)  # it may be signed
    params: Mapping[str, str | int] | None = None
    body: object = None
    content: bytes | None = field(default=None, repr=False)
    destination: BinaryIO | None = None
    limit_bytes: int = MAX_ANSWER_BYTES
    repeatable: bool = True
    progress: Progress = field(default_factory=NoProgress)


class _TokenAuth(requests.auth.AuthBase):
    """The token and the instance name of every call to the API. As `auth` it also keeps ~/.netrc away."""

    def __init__(self, token: str, instance_name: str) -> None:
        self._headers = {"Authorization": f"Bearer {token}", "x-tenant": instance_name}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(self._headers)
        return request


class _NoRedirectSession(requests.Session):
    """One that does not even look where a redirect leads: that is decided here, and requests reads its whole body."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Nothing: a signed URL carries its own permission, and ~/.netrc has no say."""
    return request


class Transport:
    """Sends requests for one command. note: told of each wait; detail: of each request."""

    def __init__(
        self,
        base_url: str,
        *,
        deadline: Deadline,
        user_agent: str,
        log: Log,
        max_tries: int = MAX_TRIES,
    ) -> None:
        self.base_url = base_url
        self.deadline = deadline
        self._log = log
        self._user_agent = user_agent
        self._max_tries = max_tries
        self._api = self._create_session()
        self._storage = self._create_session()
        self._storage.auth = _no_auth

    def authenticate(self, token: str, instance_name: str) -> None:
        """Send these with every later call to the API, and to nobody else."""
        self._api.auth = _TokenAuth(token, instance_name)

    def send_to_api(self, request: Request) -> Response:
        """A call to the instance's API; `request.url` is a path. Redirects are followed only on the same host."""
        return self._send_following_redirects(
            self._api, request, self.base_url + request.url, self._check_same_origin
        )

    def send_to_storage(self, request: Request) -> Response:
        """A transfer at a signed URL, without the token. Redirects are followed to any host that is as safe."""
        self._check_secure_url(request.url, request.action)
        return self._send_following_redirects(
            self._storage, request, request.url, self._check_secure_url
        )

    def _send_following_redirects(
        self,
        session: requests.Session,
        request: Request,
        url: str,
        check: Callable[[str, str], None],
    ) -> Response:
        for _ in range(MAX_REDIRECTS):
            answer = self._send_with_retries(session, request, url)
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                return answer
            if request.method != "GET" and answer.status not in (307, 308):
                raise Unavailable(
                    f"{request.action}: {failures.url_origin(url)} redirects in a way that would lose the request"
                )
            url = _redirect_target(url, location, request.action)
            request = replace(
                request, params=None
            )  # the new URL has them, if they are wanted there
            check(url, request.action)
        raise Unavailable(f"{request.action}: {failures.url_origin(url)} redirects in a circle")

    def _send_with_retries(self, session: requests.Session, request: Request, url: str) -> Response:
        tries = 0
        while True:
            tries += 1
            answer, fault = self._send_once(session, request, url)
            if fault is None:
                return answer
            may_repeat = fault.retryable and (request.repeatable or fault.not_sent)
            if not may_repeat or tries == self._max_tries:
                after = f" (tried {tries} times)" if tries > 1 else ""
                raise Unavailable(f"{request.action}: {fault.message}{after}")
            self._wait(request, fault, tries)

    def _wait(self, request: Request, fault: failures.RequestFailure, tries: int) -> None:
        bound = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (tries - 1))
        wait = fault.retry_after_s if fault.retry_after_s is not None else random.uniform(0, bound)  # noqa: S311 - no secret
        if wait > self.deadline.remaining():
            raise Unavailable(
                f"{request.action}: {fault.message}; the next try would be in {wait:.0f} s, "
                f"past the {self.deadline.seconds:g} s of --timeout"
            )
        self._log.note(
            f"{request.action}: {fault.message}; try {tries + 1} of {self._max_tries} in {wait:.1f} s"
        )
        time.sleep(wait)

    def _send_once(
        self, session: requests.Session, request: Request, url: str
    ) -> tuple[Response, failures.RequestFailure | None]:
        began = time.monotonic()
        try:
            answer = self.deadline.run(lambda: self._perform(session, request, url), request.action)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            wrapped = (
                error
                if isinstance(error, requests.RequestException)
                else requests.ConnectionError(error)
            )
            fault = failures.failure_from_exception(wrapped, url)
            self._log.detail(
                f"{request.method} {failures.url_origin(url)}{urlsplit(url).path}: {fault.message}"
            )
            return Response(0, requests.structures.CaseInsensitiveDict()), fault
        took = (time.monotonic() - began) * 1000
        self._log.detail(
            f"{request.method} {failures.url_origin(url)}{urlsplit(url).path}: HTTP {answer.status} in {took:.0f} ms"
        )
        if answer.status in failures.RETRIED_STATUS:
            return answer, failures.failure_from_status(answer.status, answer.headers, url)
        if (
            request.destination is None
            and request.content is None
            and 200 <= answer.status < 300
            and answer.is_truncated
        ):
            return answer, failures.truncated_response(url)
        return answer, None

    def _perform(self, session: requests.Session, request: Request, url: str) -> Response:
        # Longer than what is left: it is the deadline that ends the command then, and says so.
        read_timeout = min(READ_TIMEOUT_S, self.deadline.remaining() + 1)
        connect_timeout = CONNECT_TIMEOUT_S if request.content is None else SEND_TIMEOUT_S
        body = (
            None
            if request.content is None
            else _UploadBody(request.content, request.progress, self.deadline)
        )
        with session.request(
            request.method,
            url,
            params=request.params,
            json=request.body,
            data=body,
            timeout=(min(connect_timeout, read_timeout), read_timeout),
            allow_redirects=False,
            stream=True,
        ) as response:
            if request.destination is not None and response.status_code == 200:
                self._receive(response, request, request.destination)
                return Response(response.status_code, response.headers)
            return Response(
                response.status_code, response.headers, b"".join(self._chunks(response, request))
            )

    def _receive(self, response: requests.Response, request: Request, sink: BinaryIO) -> None:
        """Write the body to the sink, from its beginning, whatever an earlier try left there."""
        request.progress.advance(-sink.seek(0, os.SEEK_END))
        sink.seek(0)
        sink.truncate()
        for chunk in self._chunks(response, request):
            sink.write(chunk)
            request.progress.advance(len(chunk))

    def _chunks(self, response: requests.Response, request: Request) -> Iterator[bytes]:
        """The body, as long as it comes in time and is no longer than it may be."""
        size = 0
        for chunk in response.iter_content(_CHUNK):
            self.deadline.check(request.action)
            size += len(chunk)
            if size > request.limit_bytes:
                raise Unavailable(
                    f"{request.action}: {failures.url_origin(response.url)} sends more than {request.limit_bytes:,} bytes"
                )
            yield chunk

    def _check_same_origin(self, url: str, what: str) -> None:
        if failures.url_origin(url).lower() != self.base_url:
            raise UsageError(
                f"{what}: {self.base_url} redirects to {failures.url_origin(url)}, where the token does not go; "
                "if that is the instance's address, give it as --backend-url"
            )

    def _check_secure_url(self, url: str, what: str) -> None:
        parts = urlsplit(url)
        same_host = parts.netloc.lower() == urlsplit(self.base_url).netloc
        if parts.scheme != "https" and not is_loopback(parts.hostname or "") and not same_host:
            raise Unavailable(
                f"{what}: {failures.url_origin(url)} is not https, so no artifact goes there or comes from there"
            )

    def _create_session(self) -> requests.Session:
        session = _NoRedirectSession()
        session.headers.update({"User-Agent": self._user_agent, "Accept": "application/json, */*"})
        bundle = certificates.find_ca_bundle(os.environ)
        if bundle:
            session.verify = bundle
        if read_boolean_variable(os.environ, "DATAPILOT_SYSTEM_CERTIFICATES"):
            session.mount("https://", certificates.create_system_store_adapter())
        return session


def _redirect_target(url: str, location: str, what: str) -> str:
    """Where a redirect leads. Raises Unavailable when that is no URL."""
    try:
        target = urljoin(url, location)
        _ = urlsplit(target).port
    except ValueError:
        raise Unavailable(
            f"{what}: {failures.url_origin(url)} redirects to something that is no URL"
        ) from None
    return target


class _UploadBody:
    """Bytes on their way out: counted for the progress bar, stopped at the deadline, never copied as a whole."""

    def __init__(self, content: bytes, progress: Progress, deadline: Deadline) -> None:
        self._view = memoryview(content)
        self._sent = 0
        self._progress, self._deadline = progress, deadline

    def __len__(self) -> int:
        return len(self._view)

    def read(self, size: int = -1) -> bytes:
        self._deadline.check("the upload")
        end = len(self._view) if size < 0 else self._sent + size
        chunk = bytes(self._view[self._sent : end])
        self._sent += len(chunk)
        self._progress.advance(len(chunk))
        return chunk
