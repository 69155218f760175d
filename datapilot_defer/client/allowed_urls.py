"""Checks of the URLs to which a token, an artifact or a signature is sent."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from datapilot_defer.client.failures import url_origin
from datapilot_defer.credentials import is_loopback
from datapilot_defer.errors import Unavailable, UsageError


def check_api_url(url: str, base_url: str, action: str) -> None:
    """Raise UsageError unless a URL is on the instance, the only host that receives the token.

    Raises Unavailable for an unsafe URL.
    """
    _check_form(url, base_url, action)
    origin = url_origin(url)
    if origin.lower() == base_url:
        return
    if f"https{origin.lower().removeprefix('http')}" == base_url:
        raise _no_tls_error(origin, base_url, action)
    raise UsageError(
        f"{action}: {base_url} redirects to {origin}, to which the token is not sent. If "
        "that is the address of the instance, set it with --backend-url"
    )


def check_storage_url(url: str, base_url: str, action: str) -> None:
    """Raise UsageError or Unavailable if an artifact or a signature would be sent without TLS.

    If the instance uses TLS, the URL must be https. Otherwise, plain HTTP is also accepted for the
    instance's own host and port, and for loopback hosts. Raises Unavailable for an unsafe URL.
    """
    _check_form(url, base_url, action)
    parts = urlsplit(url)
    if parts.scheme == "https":
        return
    origin = url_origin(url)
    base = urlsplit(base_url)
    if base.scheme == "https":
        raise _no_tls_error(origin, base_url, action)
    if not is_loopback(parts.hostname or "") and parts.netloc.lower() != base.netloc:
        raise Unavailable(
            f"{action}: {origin} is not https, so no artifact is sent to or accepted from it"
        )


def _check_form(url: str, base_url: str, action: str) -> None:
    """Raise Unavailable for a URL that two programs may parse to different hosts."""
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \\")
    if not is_plain or "@" in urlsplit(url).netloc:
        raise Unavailable(
            f"{action}: {base_url} returned an unsafe URL, which contains a space, a "
            "backslash, user-info or an invalid character"
        )


def _no_tls_error(origin: str, base_url: str, action: str) -> UsageError:
    return UsageError(
        f"{action}: {base_url} returned a URL without TLS, {origin}, which is not used. "
        f"The operator must start the instance with `--public-url {base_url}`, or with "
        "`--behind-proxy` behind a reverse proxy."
    )


def redirect_target(url: str, location: str, action: str, *, possible: bool) -> str:
    """Return the URL that a redirect leads to.

    location: the Location header of the response. possible: whether the request can be sent to that
    URL unchanged.

    Raises Unavailable if it cannot, or if the location is not a URL.
    """
    origin = url_origin(url)
    if not possible:
        raise Unavailable(
            f"{action}: {origin} sent a redirect that would drop the body "
            "of the request. Check the URL of the instance"
        )
    try:
        target = urljoin(url, location)
        _ = urlsplit(target).port
    except ValueError:
        raise Unavailable(f"{action}: {origin} sent a redirect to an invalid URL") from None
    return target
