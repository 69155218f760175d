"""Limits on connections: how many are open, and how long each may wait for its client."""

from __future__ import annotations

import asyncio
import heapq
import logging
import ssl
import time
from collections.abc import Hashable
from enum import Enum
from typing import Any, NamedTuple, Protocol

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

log = logging.getLogger("datapilot_defer.instance.connections")

# A request body must progress by this much during each `Wait.BODY`.
_BODY_PROGRESS_BYTES = 64 * 1024
_TLS_SHUTDOWN_S = 5.0
# To find the longest silent connections takes a scan of all: this part of them is closed at once.
_CLOSED_AT_LIMIT = 1 / 8


class Wait(Enum):
    """What a connection waits for its client to do, with the longest duration in seconds."""

    HEADER = 10.0  # complete a TLS handshake, a request header or the end of the connection
    BODY = 30.0
    RESPONSE = 120.0  # take any byte of a response


class Observation(NamedTuple):
    """State of a connection. While it stays equal, the client makes no progress.

    wait: None while the server has to act.
    """

    wait: Wait | None
    request: Hashable = None
    progress: int = 0


class Connection(Protocol):
    """A connection in the registry.

    since: when `observation` became what it is. received_at: when the last bytes of a body came.
    """

    observation: Observation
    since: float
    received_at: float

    def observe(self) -> Observation:
        """Return the present state."""

    def abort(self) -> None:
        """Close the connection without waiting for the client."""


class Connections:
    """The open connections of a server; `close_stalled` must be called about once a second.

    accepts_at_once: so many connections may be accepted before the first of them is counted.
    """

    def __init__(self, max_count: int, accepts_at_once: int = 16) -> None:
        self.accepts_at_once = accepts_at_once
        self._max_count = max_count
        self._open: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Count a new connection; at the limit, close those that are silent longest."""
        connection.since = connection.received_at = time.monotonic()
        connection.observation = connection.observe()
        self._open.add(connection)
        if len(self._open) > self._max_count:
            self._close_longest_silent()

    def discard(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)

    def close_stalled(self) -> None:
        """Close the connections whose clients have not made progress for too long."""
        stalled = [connection for connection in self._waiting() if _is_stalled(connection)]
        self._close(stalled)
        if stalled:
            log.info("closed %d connections whose clients made no progress", len(stalled))

    def close_all(self) -> None:
        """Close each connection."""
        self._close(list(self._open))

    def _waiting(self) -> list[Connection]:
        """Return the connections that wait for their clients."""
        now = time.monotonic()
        for connection in self._open:
            observation = connection.observe()
            if observation != connection.observation:
                connection.observation = observation
                connection.since = now
        return [connection for connection in self._open if connection.observation.wait]

    def _close_longest_silent(self) -> None:
        waiting = self._waiting()
        excess = len(self._open) - self._max_count
        count = max(excess, int(len(waiting) * _CLOSED_AT_LIMIT))
        self._close(heapq.nlargest(count, waiting, key=_silence))
        log.warning(
            "the limit of %d connections is reached: closing those that are silent longest",
            self._max_count,
        )

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._open.discard(connection)
            connection.abort()


class ServerConfig(uvicorn.Config):
    """Configuration of a server whose connections are limited."""

    tls: ssl.SSLContext

    def __init__(
        self, app: ASGIApp, connections: Connections, tls: ssl.SSLContext | None = None, **more: Any
    ) -> None:
        protocol: type[asyncio.Protocol] = HttpConnection
        if tls is not None:
            protocol = TlsHandshake
            self.tls = tls
        super().__init__(
            app,
            http=protocol,
            ws="none",
            proxy_headers=False,
            backlog=connections.accepts_at_once,
            log_config=None,
            access_log=False,
            server_header=False,
            **more,
        )
        self.connections_in_use = connections


class HttpConnection(H11Protocol):
    """A connection that serves HTTP requests.

    After a TLS handshake the event loop may deliver bytes, or the end of the connection, before
    `connection_made`. is_lost: the connection has ended.
    """

    observation: Observation
    since: float
    received_at: float

    def __init__(self, config: ServerConfig, *arguments: Any, **more: Any) -> None:
        super().__init__(config, *arguments, **more)
        self._registry = config.connections_in_use
        self._received_bytes = 0
        self._early_data = b""
        self._has_started = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to serve."""
        super().connection_made(transport)
        self._has_started = True
        self._registry.add(self)
        if self._early_data:
            self.data_received(self._early_data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to serve."""
        self.is_lost = True
        if not self._has_started:
            return
        self._registry.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process bytes of the client."""
        if not self._has_started:
            self._early_data += data
            return
        self._received_bytes += len(data)
        self.received_at = time.monotonic()
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer an invalid request, unless its response has started."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort()
            return
        if self.cycle is not None:
            # The application may be about to answer the same request.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        super().send_400_response(msg)

    def abort(self) -> None:
        """Close the connection without waiting for the client."""
        self.transport.abort()

    def observe(self) -> Observation:
        """Return what the connection waits for."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes:
            return Observation(Wait.RESPONSE, self.cycle, unsent_bytes)
        if self.transport.is_closing():
            return Observation(Wait.HEADER)
        if self._expects_body():
            return Observation(Wait.BODY, self.cycle, self._received_bytes // _BODY_PROGRESS_BYTES)
        if self.cycle is None or self.cycle.response_complete:
            return Observation(Wait.HEADER, self.cycle)
        return Observation(None, self.cycle)

    def _expects_body(self) -> bool:
        """Return whether the client has to send more of a body and the server reads it."""
        if self.conn.their_state is not h11.SEND_BODY or self.flow.read_paused:
            return False
        return self.cycle is None or not self.cycle.waiting_for_100_continue


class TlsHandshake(asyncio.Protocol):
    """A connection until its TLS handshake is complete."""

    observation: Observation
    since: float
    received_at: float

    def __init__(
        self,
        config: ServerConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._context = config.tls
        self._registry = config.connections_in_use
        self._http = HttpConnection(config, server_state, app_state, _loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the handshake."""
        # The first bytes belong to the handshake, which starts in the next turn of the loop.
        transport.pause_reading()
        self._transport = transport
        self._registry.add(self)
        self._task = asyncio.get_running_loop().create_task(self._start_tls())

    def abort(self) -> None:
        """Close the connection without waiting for the client."""
        self._transport.abort()

    def observe(self) -> Observation:
        """Return that the client has to complete the handshake."""
        return Observation(Wait.HEADER)

    async def _start_tls(self) -> None:
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport,
                self._http,
                self._context,
                server_side=True,
                ssl_handshake_timeout=Wait.HEADER.value,
                ssl_shutdown_timeout=_TLS_SHUTDOWN_S,
            )
        except OSError:  # the client does not speak TLS, or has closed the connection
            self.abort()
            return
        finally:
            self._registry.discard(self)
        if transport is not None and not self._http.is_lost:
            self._http.connection_made(transport)


def _is_stalled(connection: Connection) -> bool:
    """Return whether the client has made no progress for too long."""
    wait = connection.observation.wait
    return wait is not None and time.monotonic() - connection.since > wait.value


def _silence(connection: Connection) -> float:
    """Return how long a client has been silent, as a part of the longest allowed duration.

    Each byte of a body counts, but a part of a header does not: a header comes at once.
    """
    wait = connection.observation.wait
    if wait is None:
        return 0.0
    since = connection.since
    if wait is Wait.BODY:
        since = max(since, connection.received_at)
    return (time.monotonic() - since) / wait.value
