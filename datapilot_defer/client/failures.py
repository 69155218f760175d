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
class Fault:
    """One failed try. again: whether another one may help. unsent: the request surely never reached the other side."""

    message: str
    again: bool
    unsent: bool = False
    wait_s: float | None = None


def origin(url: str) -> str:
    """Scheme, host and port of a URL: what may be shown of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def cut_off(url: str) -> Fault:
    """An answer of which only a part arrived."""
    return Fault(f"the answer of {origin(url)} was cut off", again=True)


def of_error(error: requests.RequestException, url: str) -> Fault:
    """Read a failed try off the exception that requests raised for it."""
    place = origin(url)
    if isinstance(error, requests.exceptions.ProxyError):
        return Fault(
            f"the proxy on the way to {place} refuses or is not there; see HTTPS_PROXY and NO_PROXY",
            again=True,
        )
    if isinstance(error, requests.exceptions.SSLError):
        return _tls(error, place)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Fault(f"{place} did not answer the connection in time", again=True, unsent=True)
    if isinstance(error, requests.exceptions.Timeout):
        return Fault(f"{place} accepted the request and then fell silent", again=True)
    if isinstance(
        error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError
    ):
        return cut_off(url)
    if isinstance(error, requests.exceptions.ConnectionError):
        return _connection(error, url)
    return Fault(
        f"the request to {place} could not be made ({type(error).__name__})",
        again=False,
        unsent=True,
    )


def of_status(
    status: int, headers: requests.structures.CaseInsensitiveDict[str], url: str
) -> Fault:
    """A status that says "later"."""
    words = "asks to slow down" if status == 429 else "has a fault of its own"
    return Fault(
        f"{origin(url)} {words} (HTTP {status})",
        again=True,
        wait_s=retry_after(headers.get("Retry-After")),
    )


def retry_after(value: str | None) -> float | None:
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


def _tls(error: requests.exceptions.SSLError, place: str) -> Fault:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        reason = (
            "it has expired" if "expired" in text else "it is not signed by an authority known here"
        )
        if "ostname mismatch" in text or "doesn't match" in text or "not valid for" in text:
            reason = "it is for another host"
        help_ = "REQUESTS_CA_BUNDLE names a file with own authorities, DATAPILOT_SYSTEM_CERTIFICATES=1 takes the system's"
        return Fault(
            f"the TLS certificate of {place} is refused: {reason}; {help_}",
            again=False,
            unsent=True,
        )
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text:
        return Fault(
            f"{place} does not speak TLS: is it http, or another port?", again=False, unsent=True
        )
    return Fault(f"the TLS handshake with {place} failed", again=True, unsent=True)


def _connection(error: requests.exceptions.ConnectionError, url: str) -> Fault:
    causes, place = list(_causes(error)), origin(url)
    if any(
        isinstance(cause, urllib3.exceptions.NameResolutionError | socket.gaierror)
        for cause in causes
    ):
        return Fault(
            f"the name of {place} can't be resolved: is it spelled right, and is the network up?",
            True,
            True,
        )
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return Fault(f"nothing listens at {place} (connection refused)", again=True, unsent=True)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return Fault(f"{place} stopped taking what is sent", again=True)
    if any(
        isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected)
        for cause in causes
    ):
        return Fault(f"{place} does not speak HTTP: is that the instance's port?", again=True)
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in causes):
        reason = next(
            (cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror),
            "no route",
        )
        return Fault(f"{place} can't be reached ({reason})", again=True, unsent=True)
    return Fault(f"{place} broke the connection off", again=True)


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
