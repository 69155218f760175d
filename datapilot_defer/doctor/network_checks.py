"""Steps for the network: proxy, host name, and connection to the storage."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from datapilot_defer.client import sessions
from datapilot_defer.config import strip_user_info
from datapilot_defer.deadline import Deadline
from datapilot_defer.doctor.steps import Step, StepName, failed, passed, skipped
from datapilot_defer.errors import NotFound, Unavailable, UsageError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from datapilot_defer.client.connection import Connection

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TIMEOUT_S = 10.0  # for each name and each connection


def check_way(connection: Connection) -> list[Step]:
    """Check the proxy and the host name. Both checks need only the URL of the instance."""
    try:
        url = urlsplit(connection.url)
    except UsageError:
        reason = "not tried: no instance is configured"
        return [skipped(StepName.PROXY, reason), skipped(StepName.DNS, reason)]
    return [check_proxy(url), check_dns(url, _time_limit(connection))]


def _time_limit(connection: Connection) -> Deadline:
    try:
        return connection.deadline
    except UsageError:  # another step reports it
        return Deadline(_TIMEOUT_S)


def check_proxy(url: SplitResult) -> Step:
    """Report the proxy that is used for the host of a URL."""
    proxy = _find_proxy(url)
    if proxy is None:
        return passed(StepName.PROXY, f"none is used for {url.hostname}")
    return passed(StepName.PROXY, f"{proxy} is used for {url.hostname}")


def _find_proxy(url: SplitResult) -> str | None:
    """Return host and port of the proxy for a URL, without user and password; None without one."""
    proxy = sessions.find_proxy(url.geturl())
    if not proxy:
        return None
    return strip_user_info(proxy).rpartition("://")[2].rstrip("/")


def check_dns(url: SplitResult, deadline: Deadline) -> Step:
    """Resolve the host name of a URL, unless a proxy does that.

    deadline: the deadline of the command.
    """
    if _find_proxy(url):
        return skipped(StepName.DNS, "the proxy resolves the name")
    host, port = _host_and_port(url)
    resolve = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        if deadline.remaining() > _TIMEOUT_S:
            deadline = Deadline(_TIMEOUT_S, is_option=False)
        entries = deadline.run(resolve, f"resolving {host}")
    except Unavailable as error:
        return failed(StepName.DNS, error)
    except (OSError, UnicodeError):
        message = f"cannot resolve the name {host}. Check its spelling and the network"
        return failed(StepName.DNS, Unavailable(message))
    addresses = sorted({str(entry[4][0]) for entry in entries})
    return passed(StepName.DNS, f"{host} is {', '.join(addresses)}")


def connect_to_storage(url: SplitResult, deadline: Deadline) -> str:
    """Connect to the host of a signed URL, unless a proxy is used. Return the result as text.

    deadline: the deadline of the command. Raises Unavailable if the host cannot be reached, and
    NotFound for a URL without a host.
    """
    host, port = _host_and_port(url)
    if not host:
        raise NotFound("the instance signed a URL without a host")
    if _find_proxy(url):
        return f"{host}, through the proxy"
    connect = partial(socket.create_connection, (host, port), timeout=_TIMEOUT_S)
    try:
        deadline.run(connect, f"connecting to the storage {host}").close()
        return f"{host} accepts connections"
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise Unavailable(
            f"cannot reach the storage {host} ({reason}). Check that no firewall blocks it"
        ) from None


def _host_and_port(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or _DEFAULT_PORTS.get(url.scheme, 80)
