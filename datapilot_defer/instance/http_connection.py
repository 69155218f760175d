"""HTTP connections that are limited in number and in how long they wait for their clients."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from datapilot_defer.instance.connections import Connections, Observation, Wait
from datapilot_defer.instance.request_parser import RequestParser

# The server must receive this many bytes of a request body in each period of `Wait.BODY` seconds.
_BODY_PROGRESS_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 16 * 1024
_TLS_SHUTDOWN_S = 5.0
_CONTINUE = h11.InformationalResponse(status_code=100, headers=[])


class ServerConfig(uvicorn.Config):
    """The uvicorn configuration of a server that limits its connections."""

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

    After a TLS handshake, the event loop may deliver data or the end of the connection before it
    calls `connection_made`. is_lost: whether the connection has ended.
    """

    observation: Observation
    since: float
    received_at: float
    conn: RequestParser

    def __init__(self, config: ServerConfig, *arguments: Any, **more: Any) -> None:
        super().__init__(config, *arguments, **more)
        self.conn = RequestParser(_MAX_HEADER_BYTES)
        self._registry = config.connections_in_use
        self._received_bytes = 0
        self._early_data = b""
        self._has_started = False
        self.is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start serving requests."""
        super().connection_made(transport)
        self._has_started = True
        self._registry.add(self)
        if self._early_data:
            self.data_received(self._early_data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop serving requests."""
        self.is_lost = True
        if not self._has_started:
            return
        self._registry.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process bytes from the client, or keep them until the connection has started."""
        if not self._has_started:
            self._early_data += data
            return
        if self.conn.ignores_body or self.transport.is_closing():
            return
        self._received_bytes += len(data)
        self.received_at = time.monotonic()
        super().data_received(data)

    def handle_events(self) -> None:
        """Process the requests that have arrived."""
        previous = self.cycle
        super().handle_events()
        if self.conn.held_request is not None and self.conn.they_are_waiting_for_100_continue:
            self.transport.write(self.conn.send(_CONTINUE))
        if self.cycle is not previous and self.conn.their_state is h11.SEND_BODY:
            # Do not receive the body before the application reads it.
            self.flow.pause_reading()

    def on_response_complete(self) -> None:
        """Prepare for the next request, or end the connection if no request can follow."""
        is_last = self.conn.ignores_body
        self.cycle.body.clear()
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if is_last:
            self._end_responses()
        elif self.conn.their_state is h11.SEND_BODY:
            self.handle_events()

    def _end_responses(self) -> None:
        """Signal that no further response follows.

        The client can still read the last response.
        """
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        with suppress(OSError):  # the client has closed the connection
            self.transport.write_eof()

    def timeout_keep_alive_handler(self) -> None:
        """Close the idle connection, unless the body of a new request is still arriving."""
        if self.conn.held_request is None:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Close the connection, after the current response if there is one.

        If a held request is waiting for its body, close the connection immediately.
        """
        if self.conn.held_request is not None:
            self.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Respond to an invalid request with status code 400.

        If a response has already started or must not have a body, close the connection instead.
        """
        is_head = self.cycle is not None and self.cycle.scope["method"] == "HEAD"
        if is_head or self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.abort()
            return
        if self.cycle is not None:
            # The application may be about to respond to the same request.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        super().send_400_response(msg)

    def abort(self) -> None:
        """Close the connection without waiting for the client."""
        self.transport.abort()

    def observe(self) -> Observation:
        """Return the current state of the connection, including what it waits for."""
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes:
            return Observation(Wait.RESPONSE, self.cycle, unsent_bytes)
        if self.transport.is_closing():
            return Observation(Wait.HEADER)
        if self.conn.their_state is h11.SEND_BODY:
            progress = self._received_bytes // _BODY_PROGRESS_BYTES
            return Observation(Wait.BODY, self.cycle, progress, self._reads_body())
        if self.cycle is None or self.cycle.response_complete:
            return Observation(Wait.HEADER, self.cycle)
        return Observation(None, self.cycle)

    def _reads_body(self) -> bool:
        """Return whether the server is reading a body that the client is allowed to send."""
        if self.flow.read_paused:
            return False
        return self.cycle is None or not self.cycle.waiting_for_100_continue


class TlsHandshake(asyncio.Protocol):
    """A connection during its TLS handshake."""

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
        # The first bytes belong to the handshake, which starts in the next iteration of the event
        # loop.
        transport.pause_reading()
        self._transport = transport
        self._registry.add(self)
        self._task = asyncio.get_running_loop().create_task(self._start_tls())

    def abort(self) -> None:
        """Close the connection without waiting for the client."""
        self._transport.abort()

    def observe(self) -> Observation:
        """Return the state in which the connection waits for the client's handshake."""
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
        except OSError:  # the client does not use TLS, or has closed the connection
            self.abort()
            return
        finally:
            self._registry.discard(self)
        if transport is not None and not self._http.is_lost:
            self._http.connection_made(transport)
