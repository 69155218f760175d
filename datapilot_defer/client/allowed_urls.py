"""Which URLs a token, an artifact or a signature may be sent to."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from datapilot_defer.client.failures import url_origin
from datapilot_defer.credentials import is_loopback
from datapilot_defer.errors import Unavailable, UsageError


def check_api_url(url: str, base_url: str, action: str) -> None:
    """Raise unless a URL is on the instance itself: the token goes nowhere else."""
    _check_form(url, base_url, action)
    origin = url_origin(url)
    if origin.lower() == base_url:
        return
    if f"https{origin.lower().removeprefix('http')}" == base_url:
        raise _no_tls_error(origin, base_url, action)
    raise UsageError(
        f"{action}: {base_url} redirects to {origin}, where the token does "
        "not go; if that is the instance's address, give it as --backend-url"
    )


def check_storage_url(url: str, base_url: str, action: str) -> None:
    """Raise when an artifact or a signature would be sent without TLS.

    An instance with TLS must return https URLs. Without TLS, only the instance's own host and
    this machine are accepted.
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
            f"{action}: {origin} is not https, so no artifact goes there or comes from there"
        )


def _check_form(url: str, base_url: str, action: str) -> None:
    """Raise Unavailable for a URL in which two programs may see two different hosts."""
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \\")
    if not is_plain or "@" in urlsplit(url).netloc:
        raise Unavailable(
            f"{action}: {base_url} returns a URL with a blank, a backslash, user-info or a "
            "character that does not belong into a URL, so it is not used"
        )


def _no_tls_error(origin: str, base_url: str, action: str) -> UsageError:
    return UsageError(
        f"{action}: {base_url} returns a URL without TLS, {origin}, which is not used. "
        "The operator of the instance corrects that: start it with "
        f"`--public-url {base_url}`, or with `--behind-proxy` when a reverse proxy ends TLS."
    )


def redirect_target(url: str, location: str, action: str, *, possible: bool) -> str:
    """Return the URL that a redirect leads to.

    location: of the response. possible: whether the request can be sent there unchanged.
    Raises Unavailable when it is not, or the location is not a URL.
    """
    origin = url_origin(url)
    if not possible:
        raise Unavailable(f"{action}: {origin} redirects in a way that would lose the request")
    try:
        target = urljoin(url, location)
        _ = urlsplit(target).port
    except ValueError:
        raise Unavailable(f"{action}: {origin} redirects to something that is no URL") from None
    return target
