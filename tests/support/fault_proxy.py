"""Fault injection: a TCP proxy between a client and an instance that breaks selected requests.

fault_actions.py contains the faults.

    with fault_proxy(instance.url, At("PUT /files/", cut_request(1000), times=1)) as proxy:
        ...                                    # the client uses proxy.url
    proxy.calls                                # ["GET /dbt/v3/validate-credentials", …]

Each request is forwarded over a new connection. The client's connection stays open, as with a real
server. An action handles one `Exchange`. A request that no `At` matches is forwarded unchanged.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import urlsplit


class Exchange:
    """A request whose head has arrived, and the connections to client and instance."""

    def __init__(
        self, proxy: FaultProxy, client: socket.socket, reader: BinaryIO, head: bytes
    ) -> None:
        self.proxy = proxy
        self.client = client
        self._reader = reader
        self.head = head
        match = re.search(rb"(?im)^content-length: *(\d+)", head)
        self.length = int(match.group(1)) if match else 0
        self.done = False

    @property
    def call(self) -> str:
        """Return method and path without the query, as in "PUT /files/3"."""
        method, target, _ = self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        return f"{method} {urlsplit(target).path}"

    def body(self, size: int | None = None) -> bytes:
        """Return the request body or its first bytes."""
        return self._reader.read(self.length if size is None else min(size, self.length))

    def forward(self, body: bytes, *, head: bytes | None = None) -> bytes:
        """Forward the request and return the complete response, head and body."""
        with self.upstream() as server:
            server.sendall(self.forwarded_head(head) + body)
            return b"".join(iter(lambda: server.recv(65536), b""))

    def forwarded_head(self, head: bytes | None = None) -> bytes:
        """Return the head to forward.

        It keeps the client's Host, so that the instance signs URLs of this proxy.
        """
        secure = b"X-Forwarded-Proto: https\r\n" if isinstance(self.client, ssl.SSLSocket) else b""
        kept = re.sub(rb"(?im)^connection:[^\r]*\r\n", b"", (head or self.head)[:-2])
        # HTTP proxies receive the absolute form of the URL.
        kept = re.sub(rb"(?i)^([A-Z]+) http://[^/ ]+", rb"\1 ", kept)
        return kept + secure + b"Connection: close\r\n\r\n"

    def upstream(self) -> socket.socket:
        """Open a connection to the instance."""
        return socket.create_connection(self.proxy.upstream, timeout=30)

    def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.client.sendall(data)

    def reset(self) -> None:
        """Reset the client's connection (RST), like a crashed server or a firewall."""
        self.client.setsockopt(
            socket.SOL_SOCKET,
            socket.SO_LINGER,
            struct.pack("hh" if os.name == "nt" else "ii", 1, 0),
        )
        self.close()

    def close(self) -> None:
        """Close the client's connection."""
        self.done = True
        self.client.close()
        self._reader.close()

    def pause(self, seconds: float | None = None) -> bool:
        """Wait, by default forever. Return True if the proxy is closed during that time."""
        return self.proxy.stopped.wait(seconds)


Act = Callable[[Exchange], None]


def relay(exchange: Exchange) -> None:
    """Forward a request and its response."""
    answer = exchange.forward(exchange.body())
    exchange.send(re.sub(rb"(?im)^connection: close\r\n", b"", answer, count=1))


@dataclass(frozen=True)
class At:
    """A fault of the calls that start with `call`, after the first `skip` of them.

    times: the number of calls that get the fault; None for all.
    """

    call: str
    act: Act
    times: int | None = None
    skip: int = 0

    def matches(self, calls: list[str]) -> bool:
        """Return whether the last of these calls gets the fault."""
        number = sum(call.startswith(self.call) for call in calls) - self.skip
        return (
            calls[-1].startswith(self.call)
            and number > 0
            and (self.times is None or number <= self.times)
        )


Accept = Callable[[socket.socket], socket.socket]


@dataclass
class FaultProxy:
    """A running proxy. calls, heads: all requests so far. upstream: the instance."""

    url: str
    upstream: tuple[str, int]
    faults: tuple[At, ...] = ()
    calls: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    _open: list[socket.socket] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def count(self, call: str) -> int:
        """Return the number of requests whose call starts with this text."""
        return sum(each.startswith(call) for each in self.calls)

    def serve(self, listener: socket.socket, accept: Accept) -> None:
        """Accept connections until the listener is closed."""
        while not self.stopped.is_set():
            with suppress(TimeoutError):
                try:
                    client, _ = listener.accept()
                except OSError:
                    if self.stopped.is_set():
                        return
                    raise
                self.connections += 1
                self._open.append(client)
                self._threads.append(
                    threading.Thread(target=self._connection, args=(client, accept))
                )
                self._threads[-1].start()

    def close(self) -> None:
        """Close every connection and join the threads that serve them."""
        self.stopped.set()
        for client in self._open:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _connection(self, client: socket.socket, accept: Accept) -> None:
        client.settimeout(30)
        with suppress(OSError, ValueError):  # Either side may close at any time.
            self._requests(accept(client))
        client.close()

    def _requests(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as reader:
            while not self.stopped.is_set() and (head := _head(reader)):
                exchange = Exchange(self, client, reader, head)
                self._exchange(exchange)
                if exchange.done:
                    return

    def _exchange(self, exchange: Exchange) -> None:
        self.calls.append(exchange.call)
        self.heads.append(exchange.head.decode("latin-1"))
        act = next((at.act for at in self.faults if at.matches(self.calls)), relay)
        act(exchange)


def _head(reader: BinaryIO) -> bytes:
    """Return the request up to the empty line, or b"" if the client closed the connection."""
    lines = b""
    for line in iter(reader.readline, b""):
        lines += line
        if line == b"\r\n":
            return lines
    return b""


@contextmanager
def fault_proxy(
    upstream: str,
    *faults: At,
    scheme: str = "http",
    host: str = "127.0.0.1",
    accept: Accept = lambda client: client,
    listen_after_s: float | None = 0,
) -> Iterator[FaultProxy]:
    """Run a proxy for `upstream` on a free port.

    accept: a function called with each new connection, for example for a TLS handshake.
    listen_after_s: the time without a listening socket; None never listens.
    """
    target = urlsplit(upstream)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        url = f"{scheme}://{host}:{listener.getsockname()[1]}"
        proxy = FaultProxy(url, (target.hostname or "", target.port or 80), faults)

        def run() -> None:
            if listen_after_s is not None and not proxy.stopped.wait(listen_after_s):
                listener.listen(64)
                proxy.serve(listener, accept)

        if listen_after_s == 0:
            listener.listen(64)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.close()
            thread.join()
