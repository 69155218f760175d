"""What goes wrong between here and an instance, in plain words: what to say, and whether to try again.

Nothing of requests' own messages is shown: they hold URLs with their secrets.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import BadStatusLine, RemoteDisconnected
from urllib.parse import urlsplit

import requests
import urllib3

RETRIED_STATUS = frozenset({429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524})


@dataclass(frozen=True)
class RequestFailure:
    """One failed try. again: whether another one may help. unsent: the request surely never reached the other side."""

    message: str
    retryable: bool
    not_sent: bool = False
    retry_after_s: float | None = None


def url_origin(url: str) -> str:
    """Scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def truncated_response(url: str) -> RequestFailure:
    """An answer of which only a part arrived."""
    return RequestFailure(f"the answer of {url_origin(url)} was cut off", retryable=True)


def failure_from_exception(error: requests.RequestException, url: str) -> RequestFailure:
    """Read a failed try off the exception that requests raised for it."""
    place = url_origin(url)
    if isinstance(error, requests.exceptions.ProxyError):
        return RequestFailure(
            f"the proxy on the way to {place} refuses or is not there; see HTTPS_PROXY and NO_PROXY",
            retryable=True,
        )
    if isinstance(error, requests.exceptions.SSLError):
        return _tls_failure(error, place)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return RequestFailure(
            f"{place} did not answer the connection in time", retryable=True, not_sent=True
        )
    if isinstance(error, requests.exceptions.Timeout):
        return RequestFailure(f"{place} accepted the request and then fell silent", retryable=True)
    if isinstance(
        error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError
    ):
        return truncated_response(url)
    if isinstance(error, requests.exceptions.ConnectionError):
        return _connection_failure(error, url)
    return RequestFailure(
        f"the request to {place} could not be made ({type(error).__name__})",
        retryable=False,
        not_sent=True,
    )


def failure_from_status(
    status: int, headers: requests.structures.CaseInsensitiveDict[str], url: str
) -> RequestFailure:
    """A status that says "later"."""
    words = "asks to slow down" if status == 429 else "has a fault of its own"
    return RequestFailure(
        f"{url_origin(url)} {words} (HTTP {status})",
        retryable=True,
        retry_after_s=parse_retry_after(headers.get("Retry-After")),
    )


def parse_retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None when it says neither."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def _tls_failure(error: requests.exceptions.SSLError, place: str) -> RequestFailure:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        reason = (
            "it has expired" if "expired" in text else "it is not signed by an authority known here"
        )
        if "ostname mismatch" in text or "doesn't match" in text or "not valid for" in text:
            reason = "it is for another host"
        help_ = "REQUESTS_CA_BUNDLE names a file with own authorities, DATAPILOT_SYSTEM_CERTIFICATES=1 takes the system's"
        return RequestFailure(
            f"the TLS certificate of {place} is refused: {reason}; {help_}",
            retryable=False,
            not_sent=True,
        )
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
        return RequestFailure(
            f"{place} does not speak TLS: is it http, or another port?",
            retryable=False,
            not_sent=True,
        )
    return RequestFailure(f"the TLS handshake with {place} failed", retryable=True, not_sent=True)


def _connection_failure(error: requests.exceptions.ConnectionError, url: str) -> RequestFailure:
    causes, place = list(_causes(error)), url_origin(url)
    if any(
        isinstance(cause, urllib3.exceptions.NameResolutionError | socket.gaierror)
        for cause in causes
    ):
        return RequestFailure(
            f"the name of {place} can't be resolved: is it spelled right, and is the network up?",
            True,
            True,
        )
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return RequestFailure(
            f"nothing listens at {place} (connection refused)", retryable=True, not_sent=True
        )
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return RequestFailure(f"{place} stopped taking what is sent", retryable=True)
    if any(
        isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected)
        for cause in causes
    ):
        return RequestFailure(
            f"{place} does not speak HTTP: is that the instance's port?", retryable=True
        )
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in causes):
        reason = next(
            (cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror),
            "no route",
        )
        return RequestFailure(f"{place} can't be reached ({reason})", retryable=True, not_sent=True)
    return RequestFailure(f"{place} broke the connection off", retryable=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that this one wraps, however requests and urllib3 nested them."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [
            current.__cause__,
            current.__context__,
            getattr(current, "reason", None),
            *current.args,
        ]
