"""The client's address, scheme and host from the headers of a reverse proxy."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

_SCHEMES = ("http", "https")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ADDRESS_WITH_PORT = re.compile(r"\[(?P<v6>[^\]]*)\](?::[0-9]+)?|(?P<v4>[0-9.]+):[0-9]+")


def client_address(scope: Scope) -> str:
    """Return the IP address of a request's client, or "" if it is unknown."""
    if not scope.get("client"):
        return ""
    return str(scope["client"][0])


def apply_forwarded_headers(scope: Scope) -> None:
    """Set the client, scheme and host of a request to the values that the reverse proxy received.

    A client can send X-Forwarded-* headers too, and the proxy then appends its entry. Therefore
    only the last entry of each header is used, and only if it is valid.
    """
    headers = Headers(scope=scope)
    address = _parse_address(_last_entry(headers, "x-forwarded-for"))
    if address is not None:
        scope["client"] = (address, 0)
    scheme = _last_entry(headers, "x-forwarded-proto").lower()
    if scheme in _SCHEMES:
        scope["scheme"] = scheme
    host = _last_entry(headers, "x-forwarded-host")
    if _HOST.fullmatch(host):
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*others, (b"host", host.encode("ascii"))]


def find_contradiction(scope: Scope, public_url: str | None) -> str | None:
    """Return the name of a forwarded header that contradicts the instance's URLs, or None."""
    headers = Headers(scope=scope)
    scheme = _last_entry(headers, "x-forwarded-proto").lower()
    own_scheme = scope["scheme"]
    if public_url:
        own_scheme = urlsplit(public_url).scheme
    if scheme in _SCHEMES and scheme != own_scheme:
        return "X-Forwarded-Proto"
    host = _last_entry(headers, "x-forwarded-host").lower()
    if host and not public_url and host != headers.get("host", "").lower():
        return "X-Forwarded-Host"
    return None


def _last_entry(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()


def _parse_address(text: str) -> str | None:
    """Return an IP address without its port, or None if the text is not an IP address.

    An IPv4-mapped IPv6 address is returned as an IPv4 address.
    """
    match = _ADDRESS_WITH_PORT.fullmatch(text)
    if match is not None:
        text = match["v6"] or match["v4"] or ""
    if "%" in text:  # an IPv6 zone can be any text
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)
