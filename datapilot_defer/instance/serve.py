"""The web server: listening, serving and shutting down."""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FrameType

import uvicorn

from datapilot_defer.errors import DatapilotError, Unavailable, UsageError
from datapilot_defer.instance.app import create_app
from datapilot_defer.instance.connections import Connections
from datapilot_defer.instance.descriptors import reserve_descriptors
from datapilot_defer.instance.http_connection import ServerConfig
from datapilot_defer.instance.log_limit import LogLimit, limited_logs
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage

log = logging.getLogger("datapilot_defer.instance")

# How long running requests may continue after the signal to stop.
_SHUTDOWN_TIMEOUT_S = 60
# Maximum number of connections that the operating system queues for the server, if it permits this
# many.
_WAITING_CONNECTIONS = 4096
# How often uvicorn calls `on_tick`.
_TICKS_PER_SECOND = 10


@dataclass(frozen=True)
class ListenAddress:
    """The address to listen on.

    port: 0 selects a free port. certificate, private_key: PEM files for TLS.
    """

    host: str
    port: int
    certificate: str | None = None
    private_key: str | None = None

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can connect."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    def url(self, port: int) -> str:
        """Return the URL at which clients reach a port of this host."""
        scheme = "https" if self.certificate else "http"
        host = self.host
        if ":" in host:
            host = f"[{host}]"
        return f"{scheme}://{host}:{port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None without a certificate.

        Raises UsageError when the certificate or its key cannot be used.
        """
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.private_key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"the TLS certificate or its key cannot be used: {error}. "
                "Check --tls-certificate and --tls-key."
            ) from None
        return context


class Server(uvicorn.Server):
    """A server that limits its connections and stops when its blob store is broken.

    on_ready: a function to call when the server accepts connections. failure: the error that
    stopped the server, or None if there is none.
    """

    config: ServerConfig

    def __init__(
        self,
        config: ServerConfig,
        storage: Storage,
        log_limit: LogLimit,
        on_ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.failure: Exception | None = None
        self._storage = storage
        self._log_limit = log_limit
        self._on_ready = on_ready
        self._signal = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, listen for connections, and call `on_ready`.

        If `on_ready` fails with an expected error, stop.
        """
        await super().startup(sockets=sockets)
        for listener in sockets or ():
            # asyncio has set the queue length to the number of connections that it accepts at once.
            listener.listen(_WAITING_CONNECTIONS)
        if not self.started:
            return
        try:
            self._on_ready()
        except (DatapilotError, OSError) as error:
            self.failure = error
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Check connections, log and blob store once a second, and return whether to stop."""
        if counter % _TICKS_PER_SECOND == 0:
            self.config.connections_in_use.close_stalled()
            self._log_limit.report_suppressed()
            if self._storage.blobs.is_broken:
                self.failure = Unavailable(
                    "the blob store has failed and cannot be used again by this process. "
                    "Restart the instance."
                )
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the running requests and stop."""
        if self._signal:
            log.info("stopping: received %s", self._signal)
        await super().shutdown(sockets=sockets)
        self.config.connections_in_use.close_all()
        if self._signal:
            log.info("stopped")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown after a signal."""
        self._signal = signal.Signals(sig).name
        super().handle_exit(sig, frame)


def serve(
    storage: Storage,
    settings: InstanceSettings,
    address: ListenAddress,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then let running requests finish for at most a minute.

    on_ready: called once with the instance's URL when the server accepts connections. No request is
    answered before the call returns. An expected error in `on_ready` stops the server and is
    raised.

    Raises UsageError when the address or the certificate cannot be used, and Unavailable when the
    blob store fails and only a new process can use it.
    """
    capacity = reserve_descriptors()
    with open_listener(address.host, address.port) as listener, limited_logs() as log_limit:
        config = ServerConfig(
            create_app(storage, settings),
            Connections(capacity.connections, capacity.accepts_at_once),
            address.tls_context(),
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
        _ignore_repeated_signals()
        url = settings.public_url or address.url(listener.getsockname()[1])
        server = Server(config, storage, log_limit, partial(on_ready, url.rstrip("/")))
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


def open_listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port. Port 0 selects a free one.

    Raises UsageError when the socket cannot listen.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The explicit protocol lets the event loop disable Nagle's algorithm, which would add 40 ms
    # to each response.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            # Reuse the port of a server that has just ended. On Windows, this option would share
            # the port with a running server.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot listen on {host} port {port}: {reason}. "
            "Use another --port, or 0 for a free one."
        ) from None
    return listener


def _ignore_repeated_signals() -> None:
    """Ignore SIGTERM and SIGINT while uvicorn does not handle them.

    uvicorn raises the received signal again after it has stopped. The default handler would then
    end the process before the cleanup is complete.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
