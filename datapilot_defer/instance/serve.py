"""Listen, run the web server, shut down."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from datapilot_defer.errors import DatapilotError, UsageError
from datapilot_defer.instance.app import create_app
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage

# Running uploads may continue for this long after the signal to stop.
_SHUTDOWN_TIMEOUT_S = 60


@dataclass(frozen=True)
class ListenAddress:
    """Where to listen. port: 0 selects a free one. certificate, private_key: PEM files for TLS."""

    host: str
    port: int
    certificate: str | None = None
    private_key: str | None = None

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can connect."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    def url(self, port: int) -> str:
        """Return the URL under which clients connect to a port of this host."""
        scheme = "https" if self.certificate else "http"
        host = self.host
        if ":" in host:
            host = f"[{host}]"
        return f"{scheme}://{host}:{port}"


class _Server(uvicorn.Server):
    """A server that reports when it accepts connections, and stops when that fails."""

    def __init__(self, config: uvicorn.Config, url: str, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._url = url
        self._on_ready = on_ready
        self.failure: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen."""
        await super().startup(sockets=sockets)
        if not self.started:
            return
        try:
            self._on_ready(self._url)
        except (DatapilotError, OSError) as error:
            self.failure = error
            self.should_exit = True


def serve(
    storage: Storage,
    settings: InstanceSettings,
    address: ListenAddress,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then finish running uploads, for at most a minute.

    on_ready: called once with the instance's URL when it accepts connections; no request is
    answered before it returns. Its errors end the server and are raised.
    Raises UsageError when the address or the certificate cannot be used.
    """
    with open_listener(address.host, address.port) as listener:
        config = uvicorn.Config(
            create_app(storage, settings),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=settings.behind_proxy,
            forwarded_allow_ips="*",
            ssl_certfile=address.certificate,
            ssl_keyfile=address.private_key,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"the TLS certificate or its key can't be used: {error}") from None
        _ignore_repeated_signals()
        url = settings.public_url or address.url(listener.getsockname()[1])
        server = _Server(config, url.rstrip("/"), on_ready)
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


def open_listener(host: str, port: int) -> socket.socket:
    """Listen on a port; 0 selects a free one. Raises UsageError when that fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The explicit protocol lets the event loop disable Nagle's algorithm, which would add 40 ms
    # to each response.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            # Reuse the port of a server that has just ended. On Windows the option would share
            # the port of a running one.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"can't listen on {host} port {port}: {reason}; "
            "choose another --port, or 0 for a free one"
        ) from None
    return listener


def _ignore_repeated_signals() -> None:
    """Ignore signals outside uvicorn, which raises its signal again after it has stopped.

    The default handler would end the process before it has cleaned up.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
