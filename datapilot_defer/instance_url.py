"""URLs of instances: which ones can be used, and which ones are the same."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult


def normalize_url(url: str) -> str:
    """Return a URL in lower case and without trailing slash, to compare it."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}{separator}{rest.rstrip('/').lower()}"


def find_url_problem(url: str, *, allow_http: bool) -> str | None:
    """Return why an instance URL cannot be used. It is quoted only if it cannot hold a secret.

    allow_http: accept http also for another machine.
    """
    if "@" in url:
        return "it holds a user or a password; give only https://host"
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:
        return "it is malformed; it looks like https://host or https://host:port"
    problem = _find_part_problem(url, parts)
    if problem:
        return problem
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it holds a blank or a character that is not ASCII"
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        return (
            "http would send the token unencrypted: write https://, or add --allow-http if that "
            "is meant"
        )
    return None


def _find_part_problem(url: str, parts: SplitResult) -> str | None:
    if parts.scheme not in ("http", "https"):
        return f"it has to begin with https:// (it is {url.split('?')[0]!r})"
    if not parts.hostname:
        return "it names no host; it looks like https://host or https://host:port"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return f"it has a path or more; give only {parts.scheme}://{parts.netloc}"
    return None


def is_loopback(host: str) -> bool:
    """Return whether this host is the local machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
