"""Diagnosis of the way from this machine to an instance, check by check."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from datapilot_defer import credential_store
from datapilot_defer.artifact import Kind
from datapilot_defer.config import strip_user_info
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import DatapilotError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.credentials import Credentials

MAX_CLOCK_OFFSET_S = 300  # signed URLs of object stores stop working at 5 to 15 minutes
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TIMEOUT_S = 10.0  # for one name or one connection


class Check(Enum):
    """One check: its name, and whether it needs an instance that can be reached."""

    CONFIGURATION = ("configuration", False)
    PROXY = ("proxy", False)
    DNS = ("DNS", False)
    TLS_AND_CLOCK = ("TLS and clock", True)
    CREDENTIALS = ("credentials", True)
    PERMISSION = ("permission", True)
    UPLOAD_HOST = ("upload host", True)
    KEYRING = ("keyring", False)

    def __init__(self, label: str, needs_instance: bool) -> None:
        self.label = label
        self.needs_instance = needs_instance


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. error: why it failed. skipped: it was not made."""

    check: Check
    detail: str
    error: DatapilotError | None = None
    skipped: bool = False

    @property
    def passed(self) -> bool:
        """Return whether the check was made and found no problem."""
        return self.error is None and not self.skipped


@dataclass(frozen=True)
class _Context:
    """What the checks need."""

    instance: InstanceClient
    integration_id: int | None
    environment: str
    environ: Mapping[str, str]

    @property
    def url(self) -> SplitResult:
        """Return the parts of the instance's URL."""
        return urlsplit(self.instance.url)


def check_configuration(credentials: Credentials) -> CheckResult:
    """Return the result of finding the credentials, which the other checks need."""
    url = credentials.url
    detail = f"{url.value} (from {url.origin}), token from {credentials.token.origin}"
    return CheckResult(Check.CONFIGURATION, detail)


def run_checks(
    instance: InstanceClient,
    *,
    integration_id: int | None,
    environment: str,
    environ: Mapping[str, str],
) -> Iterator[CheckResult]:
    """Make every check that an upload depends on, in the order in which it does.

    integration_id: None skips the check of the upload host. Changes nothing on the instance.
    """
    context = _Context(instance, integration_id, environment, environ)
    is_reachable = True
    for check in _CHECK_FUNCTIONS:
        if check is Check.DNS and _find_proxy(context.url):
            continue  # the proxy resolves the name
        if check.needs_instance and not is_reachable:
            yield CheckResult(check, "not tried", skipped=True)
            continue
        result = _run_check(check, context)
        is_reachable = is_reachable and not isinstance(result.error, Unavailable)
        yield result


def _run_check(check: Check, context: _Context) -> CheckResult:
    if check is Check.UPLOAD_HOST and context.integration_id is None:
        return CheckResult(check, "not tried; give --integration-id to try it", skipped=True)
    try:
        return CheckResult(check, _CHECK_FUNCTIONS[check](context))
    except DatapilotError as error:
        return CheckResult(check, str(error), error)


def _check_proxy(context: _Context) -> str:
    proxy = _find_proxy(context.url)
    if proxy is None:
        return "none is used for this host"
    return f"{proxy} is used for {context.url.hostname or ''}"


def _find_proxy(url: SplitResult) -> str | None:
    """Return host and port of the proxy for this URL, without its user and password."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.hostname or ""):
        return None
    return strip_user_info(proxy).rpartition("://")[2].rstrip("/")


def _check_dns(context: _Context) -> str:
    host, port = _host_and_port(context.url)
    resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        entries = Deadline(_TIMEOUT_S).run(resolve, f"resolving {host}")
    except (socket.gaierror, UnicodeError):
        raise Unavailable(
            f"the name {host} can't be resolved: is it spelled right, and is the network up?"
        ) from None
    addresses = sorted({str(entry[4][0]) for entry in entries})
    return f"{host} is {', '.join(addresses)}"


def _check_clock(context: _Context) -> str:
    date = context.instance.health()
    try:
        server_time = parsedate_to_datetime(date or "")
    except ValueError:
        return "it answers; it does not say what time it is"
    if server_time.tzinfo is None:
        server_time = server_time.replace(tzinfo=UTC)
    offset_s = abs((datetime.now(UTC) - server_time).total_seconds())
    if offset_s > MAX_CLOCK_OFFSET_S:
        raise Unavailable(
            f"the clocks are {offset_s:.0f} s apart; signed URLs will be refused: "
            "set this machine's clock"
        )
    return "it answers, and the clocks agree"


def _check_credentials(context: _Context) -> str:
    context.instance.check_credentials()
    return "accepted"


def _check_permission(context: _Context) -> str:
    context.instance.check_permissions()
    return "the token may upload"


def _check_upload_host(context: _Context) -> str:
    target = context.instance.request_upload_url(
        Kind.MANIFEST, context.integration_id or 0, context.environment
    )
    url = urlsplit(target.url)
    host, port = _host_and_port(url)
    if _find_proxy(url):
        return f"{host}, through the proxy"
    if not host:
        raise NotFound("the instance signed a URL without a host")
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S):
            return f"{host} takes connections"
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Unavailable(
            f"{host}, where uploads go, can't be reached from here ({reason}): is it blocked?"
        ) from None


def _check_keyring(context: _Context) -> str:
    if not credential_store.is_keyring_enabled(context.environ):
        return "not asked in CI"
    try:
        stored = credential_store.find_in_keyring(None, None)
    except Unavailable as error:
        return f"{error}; environment variables and the config file work without it"
    if stored is None:
        return "works; no credentials in it"
    return "holds credentials"


def _host_and_port(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or _DEFAULT_PORTS.get(url.scheme, 80)


_CHECK_FUNCTIONS = {
    Check.PROXY: _check_proxy,
    Check.DNS: _check_dns,
    Check.TLS_AND_CLOCK: _check_clock,
    Check.CREDENTIALS: _check_credentials,
    Check.PERMISSION: _check_permission,
    Check.UPLOAD_HOST: _check_upload_host,
    Check.KEYRING: _check_keyring,
}
