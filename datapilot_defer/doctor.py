"""What stands between this machine and an instance, tried step by step."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from datapilot_defer import credential_store
from datapilot_defer.artifact import Kind
from datapilot_defer.config import strip_user_info
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import DatapilotError, NotFound, Unavailable

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient

MAX_CLOCK_OFFSET_S = 300  # signed URLs of object stores stop working at 5 to 15 minutes
_NEED_THE_INSTANCE = ("TLS and clock", "credentials", "permission", "upload host")


@dataclass(frozen=True)
class CheckResult:
    """One thing that was tried. error: None when it works; what was found is in `said`."""

    name: str
    detail: str
    error: DatapilotError | None = None
    tried: bool = True


def run_checks(
    instance: InstanceClient,
    *,
    integration: int | None,
    environment: str,
    environ: Mapping[str, str],
) -> Iterator[CheckResult]:
    """Try everything that an onboarding needs, in the order in which it needs it, each by itself.

    integration: an id, to try the upload host too. Nothing is changed on the instance.
    """
    url = urlsplit(instance.url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    proxy = _find_proxy(url.scheme, host)
    attempts: list[tuple[str, Callable[[], str]]] = [
        ("proxy", lambda: f"{proxy} is used for {host}" if proxy else "none is used for this host"),
        *([] if proxy else [("DNS", lambda: _check_dns(host, port))]),
        ("TLS and clock", lambda: _check_clock(instance)),
        ("credentials", lambda: _said(instance.check_credentials, "accepted")),
        ("permission", lambda: _said(instance.check_permissions, "the token may upload")),
        ("upload host", lambda: _check_upload_host(instance, integration or 0, environment)),
        ("keyring", lambda: _check_keyring(environ)),
    ]
    unreachable = False
    for name, attempt in attempts:
        if unreachable and name in _NEED_THE_INSTANCE:
            yield CheckResult(name, "not tried", tried=False)
            continue
        if name == "upload host" and integration is None:
            yield CheckResult(name, "not tried; give --integration-id to try it", tried=False)
            continue
        try:
            yield CheckResult(name, attempt())
        except DatapilotError as error:
            unreachable = unreachable or isinstance(error, Unavailable)
            yield CheckResult(name, str(error), error)


def _said(attempt: Callable[[], None], words: str) -> str:
    attempt()
    return words


def _find_proxy(scheme: str, host: str) -> str | None:
    """Host and port of the proxy for this host, without its user and password."""
    found = getproxies().get(scheme) or getproxies().get("all")
    if not found or proxy_bypass(host):
        return None
    return strip_user_info(found).rpartition("://")[2].rstrip("/")


def _check_dns(host: str, port: int) -> str:
    try:
        found = Deadline(10).run(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), f"resolving {host}"
        )
    except (socket.gaierror, UnicodeError):
        raise Unavailable(
            f"the name {host} can't be resolved: is it spelled right, and is the network up?"
        ) from None
    return f"{host} is {', '.join(sorted({str(entry[4][0]) for entry in found}))}"


def _check_clock(instance: InstanceClient) -> str:
    date = instance.health()
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return "it answers; it does not say what time it is"
    theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    offset = (datetime.now(UTC) - theirs).total_seconds()
    if abs(offset) > MAX_CLOCK_OFFSET_S:
        raise Unavailable(
            f"the clocks are {abs(offset):.0f} s apart; signed URLs will be refused: set this machine's clock"
        )
    return "it answers, and the clocks agree"


def _check_upload_host(instance: InstanceClient, integration: int, environment: str) -> str:
    place = instance.request_upload_url(Kind.MANIFEST, integration, environment)
    parts = urlsplit(place.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if _find_proxy(parts.scheme, host):
        return f"{host}, through the proxy"
    if not host:
        raise NotFound("the instance signed a URL without a host")
    try:
        with socket.create_connection((host, port), timeout=10):
            return f"{host} takes connections"
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Unavailable(
            f"{host}, where uploads go, can't be reached from here ({reason}): is it blocked?"
        ) from None


def _check_keyring(environ: Mapping[str, str]) -> str:
    if not credential_store.is_keyring_enabled(environ):
        return "not asked in CI"
    try:
        found = credential_store.find_in_keyring(None, None)
    except Unavailable as error:
        return f"{error}; environment variables and the config file work without it"
    return "holds credentials" if found else "works; no credentials in it"
