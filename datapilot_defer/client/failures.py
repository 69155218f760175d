"""Failed requests: their messages, and whether to retry them.

The messages of the requests library are not shown, because they contain URLs with secrets.
"""

from __future__ import annotations

import math
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import BadStatusLine, RemoteDisconnected
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3
from requests import exceptions
from urllib3.util.ssl_match_hostname import CertificateError

if TYPE_CHECKING:
    from collections.abc import Iterator

# For failures that are rarely temporary: an unknown host name, another program at the port.
_SHORT_RETRY_S = 10.0
RETRIED_STATUS = frozenset({429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524})
# Exceptions of the requests library, each with its message, and whether the request certainly did
# not reach the server.
_REQUEST_FAILURES = (
    (
        exceptions.ProxyError,
        "the proxy for {origin} is unavailable or denies the request. Check HTTPS_PROXY, "
        "ALL_PROXY and NO_PROXY",
        False,
    ),
    (exceptions.ConnectTimeout, "timed out connecting to {origin}", True),
    (exceptions.Timeout, "timed out waiting for a response of {origin}", False),
    (exceptions.ChunkedEncodingError, "the response of {origin} was incomplete", False),
    (exceptions.ContentDecodingError, "the response of {origin} was incomplete", False),
)
# The same for the causes of a ConnectionError.
_CONNECTION_FAILURES = (
    (ConnectionRefusedError, "nothing listens at {origin} (connection refused)", True),
    (TimeoutError, "timed out sending the request to {origin}", False),
)
_EXPIRED = "it has expired"
_OTHER_HOST = "it is for another host"
_UNKNOWN_AUTHORITY = "it is not signed by a trusted authority"
# Source: X509_V_ERR_* of OpenSSL. With truststore: errSec* of macOS and CERT_E_* of Windows.
_CERTIFICATE_PROBLEMS = {
    10: _EXPIRED,
    62: _OTHER_HOST,
    64: _OTHER_HOST,
    -67818: _EXPIRED,
    -67602: _OTHER_HOST,
    0x800B0101: _EXPIRED,
    0x800B010F: _OTHER_HOST,
}
# LocationParseError: a name that cannot exist, such as one with a part of 64 characters.
_UNKNOWN_HOST_ERRORS = (socket.gaierror, urllib3.exceptions.LocationParseError)
_NOT_TLS_REASONS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")


@dataclass(frozen=True)
class RequestFailure:
    """One failed attempt.

    retryable: another attempt may succeed. not_sent: the request certainly did not reach the
    server. retry_after_s: how long the server asks to wait. max_retry_s: for how long retries may
    help. is_setting: the cause is a wrong setting of the user.
    """

    message: str
    retryable: bool
    not_sent: bool = False
    retry_after_s: float | None = None
    max_retry_s: float = math.inf
    is_setting: bool = False


def url_origin(url: str) -> str:
    """Return the scheme, host and port of a URL, which may be shown in messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def truncated_response(url: str) -> RequestFailure:
    """Return the failure for an incomplete response."""
    return RequestFailure(
        f"the response of {url_origin(url)} was incomplete",
        retryable=True,
        max_retry_s=_SHORT_RETRY_S,
    )


def failure_from_exception(
    error: requests.RequestException | urllib3.exceptions.HTTPError | ValueError, url: str
) -> RequestFailure:
    """Return the failure for an exception of requests, urllib3 or http.client (as a ValueError)."""
    origin = url_origin(url)
    if not isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
        return _malformed_response(origin)
    max_retry_s = math.inf
    if _is_unknown_host(error):  # the host of the proxy, for a ProxyError
        max_retry_s = _SHORT_RETRY_S
    for error_type, message, not_sent in _REQUEST_FAILURES:
        if isinstance(error, error_type):
            return RequestFailure(
                message.format(origin=origin),
                retryable=True,
                not_sent=not_sent,
                max_retry_s=max_retry_s,
            )
    if _is_invalid_proxy(error):
        return RequestFailure(
            "the value of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not a usable URL. A "
            "SOCKS proxy needs `pip install pysocks`",
            retryable=False,
            not_sent=True,
            is_setting=True,
        )
    if isinstance(error, exceptions.SSLError):
        return _tls_failure(error, origin)
    if isinstance(error, exceptions.ConnectionError | urllib3.exceptions.HTTPError):
        return _connection_failure(error, origin)
    return RequestFailure(
        f"the request to {origin} failed ({type(error).__name__})",
        retryable=False,
        not_sent=True,
    )


def failure_from_status(
    status: int, headers: requests.structures.CaseInsensitiveDict[str], url: str, reason: str
) -> RequestFailure:
    """Return the failure for a status code in RETRIED_STATUS. reason: the server's, or ""."""
    problem = "returned a server error"
    if status == requests.codes.too_many_requests:
        problem = "limits the rate of requests"
    message = f"{url_origin(url)} {problem} (HTTP {status})"
    if reason:
        message += f": {reason}"
    return RequestFailure(
        message,
        retryable=True,
        retry_after_s=parse_retry_after(headers.get("Retry-After")),
    )


def parse_retry_after(value: str | None) -> float | None:
    """Return the wait in seconds that a Retry-After header requests; None if it has none.

    The header contains a number of seconds or a date.
    """
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _tls_failure(error: exceptions.SSLError, origin: str) -> RequestFailure:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            problem = _CERTIFICATE_PROBLEMS.get(cause.verify_code, _UNKNOWN_AUTHORITY)
            return _certificate_failure(origin, problem)
        if isinstance(cause, CertificateError):
            return _certificate_failure(origin, _OTHER_HOST)
        if isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS_REASONS:
            return RequestFailure(
                f"{origin} does not use TLS. Check the scheme and the port",
                retryable=False,
                not_sent=True,
            )
    return RequestFailure(f"the TLS handshake with {origin} failed", retryable=True, not_sent=True)


def _certificate_failure(origin: str, problem: str) -> RequestFailure:
    return RequestFailure(
        f"the TLS certificate of {origin} is invalid: {problem}. REQUESTS_CA_BUNDLE sets "
        "a file of trusted authorities, DATAPILOT_SYSTEM_CERTIFICATES=1 uses those of "
        "the system",
        retryable=False,
        not_sent=True,
    )


def _connection_failure(error: Exception, origin: str) -> RequestFailure:
    causes = list(_causes(error))
    failure = _wrong_address_failure(causes, origin)
    if failure is not None:
        return failure
    for error_type, message, not_sent in _CONNECTION_FAILURES:
        if any(isinstance(cause, error_type) for cause in causes):
            return RequestFailure(message.format(origin=origin), retryable=True, not_sent=not_sent)
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in causes):
        reason = _system_message(causes) or "no route"
        return RequestFailure(f"cannot reach {origin} ({reason})", retryable=True, not_sent=True)
    return RequestFailure(f"{origin} closed the connection unexpectedly", retryable=True)


def _wrong_address_failure(causes: list[BaseException], origin: str) -> RequestFailure | None:
    """Return the failure for a URL that is probably wrong, or None."""
    if any(isinstance(cause, _UNKNOWN_HOST_ERRORS) for cause in causes):
        return RequestFailure(
            f"cannot resolve the host name of {origin}. Check its spelling and the network",
            retryable=True,
            not_sent=True,
            max_retry_s=_SHORT_RETRY_S,
        )
    if any(_is_not_http(cause) for cause in causes):
        return _malformed_response(origin)
    return None


def _malformed_response(origin: str) -> RequestFailure:
    return RequestFailure(
        f"{origin} does not use HTTP. Check the port of the instance",
        retryable=True,
        max_retry_s=_SHORT_RETRY_S,
    )


def _is_invalid_proxy(error: Exception) -> bool:
    """Return whether the proxy setting, rather than the URL of the request, is unusable."""
    if isinstance(error, exceptions.InvalidSchema | exceptions.InvalidProxyURL):
        return True
    return isinstance(error, exceptions.InvalidURL) and error.request is not None


def _is_unknown_host(error: BaseException) -> bool:
    return any(isinstance(cause, _UNKNOWN_HOST_ERRORS) for cause in _causes(error))


def _is_not_http(cause: BaseException) -> bool:
    return isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected)


def _system_message(causes: list[BaseException]) -> str | None:
    """Return the operating system's message, such as "Network is unreachable", or None."""
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and those that it wraps, in any nesting of requests and urllib3."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__, getattr(current, "reason", None)]
        pending += current.args
