"""Which URLs a token, an artifact or a signature may be sent to."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from datapilot_defer.client.failures import url_origin
from datapilot_defer.credentials import is_loopback
from datapilot_defer.errors import Unavailable, UsageError


def check_api_url(url: str, base_url: str, action: str) -> None:
    """Raise UsageError unless a URL is on the instance itself: the token goes nowhere else."""
    origin = url_origin(url)
    if origin.lower() != base_url:
        raise UsageError(
            f"{action}: {base_url} redirects to {origin}, where the token does "
            "not go; if that is the instance's address, give it as --backend-url"
        )


def check_storage_url(url: str, base_url: str, action: str) -> None:
    """Raise when an artifact or a signature would be sent without TLS.

    An instance with TLS must return https URLs. Without TLS, only the instance's own host and
    this machine are accepted.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        return
    origin = url_origin(url)
    base = urlsplit(base_url)
    if base.scheme == "https":
        raise UsageError(
            f"{action}: {base_url} returns a URL without TLS, {origin}, so no artifact is sent "
            "there or read from there. The operator of the instance corrects that: start it with "
            f"`--public-url {base_url}`, or with `--behind-proxy` when a reverse proxy ends TLS."
        )
    if not is_loopback(parts.hostname or "") and parts.netloc.lower() != base.netloc:
        raise Unavailable(
            f"{action}: {origin} is not https, so no artifact goes there or comes from there"
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
