"""A proxy that breaks things: real TCP between a client and an instance, with one fault at one call.

What can be broken, and how, is in fault_actions.

    with fault_proxy(instance.url, At("PUT /files/", cut_request(1000), times=1)) as proxy:
        ...                                    # the client is told proxy.url
    proxy.calls                                # ["GET /dbt/v3/validate-credentials", …]

Each request is passed on over a connection of its own; the client's connection stays open, as a real one would.
An act gets one `Exchange` and does with it what it likes; what no `At` names is passed on as it is.
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
    """One request, of which the head has arrived, and the way on to the instance."""

    def __init__(
        self, proxy: FaultProxy, client: socket.socket, reader: BinaryIO, head: bytes
    ) -> None:
        self.proxy, self.client = proxy, client
        self._reader, self.head = reader, head
        found = re.search(rb"(?im)^content-length: *(\d+)", head)
        self.length = int(found.group(1)) if found else 0
        self.done = False

    @property
    def call(self) -> str:
        """Method and path, as in "PUT /files/3"; the query is left out."""
        method, target, _ = self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        return f"{method} {urlsplit(target).path}"

    def body(self, size: int | None = None) -> bytes:
        """The request's body, or its first bytes."""
        return self._reader.read(self.length if size is None else min(size, self.length))

    def forward(self, body: bytes, *, head: bytes | None = None) -> bytes:
        """Pass the request on; gives the instance's whole answer, head and body, as it came."""
        with self.upstream() as server:
            server.sendall(self.forwarded_head(head) + body)
            return b"".join(iter(lambda: server.recv(65536), b""))

    def forwarded_head(self, head: bytes | None = None) -> bytes:
        """The head as the instance gets it: with the client's Host, so that it signs URLs that lead here."""
        secure = b"X-Forwarded-Proto: https\r\n" if isinstance(self.client, ssl.SSLSocket) else b""
        kept = re.sub(rb"(?im)^connection:[^\r]*\r\n", b"", (head or self.head)[:-2])
        kept = re.sub(
            rb"(?i)^([A-Z]+) http://[^/ ]+", rb"\1 ", kept
        )  # the form in which an HTTP proxy is asked
        return kept + secure + b"Connection: close\r\n\r\n"

    def upstream(self) -> socket.socket:
        """A new connection to the instance."""
        return socket.create_connection(self.proxy.upstream, timeout=30)

    def send(self, data: bytes) -> None:
        """Give the client these bytes."""
        self.client.sendall(data)

    def reset(self) -> None:
        """Break the client's connection off at once, as a crashed machine or a firewall does (RST)."""
        self.client.setsockopt(
            socket.SOL_SOCKET,
            socket.SO_LINGER,
            struct.pack("hh" if os.name == "nt" else "ii", 1, 0),
        )
        self.close()

    def close(self) -> None:
        """End the client's connection."""
        self.done = True
        self.client.close()
        self._reader.close()

    def pause(self, seconds: float | None = None) -> bool:
        """Wait, for ever by default; True when the proxy is being closed meanwhile."""
        return self.proxy.stopped.wait(seconds)


Act = Callable[[Exchange], None]


def relay(exchange: Exchange) -> None:
    """Pass a request on and its answer back."""
    answer = exchange.forward(exchange.body())
    exchange.send(re.sub(rb"(?im)^connection: close\r\n", b"", answer, count=1))


@dataclass(frozen=True)
class At:
    """Where a fault happens: at calls that begin with `call`, after the first `skip`, `times` times (None: always)."""

    call: str
    act: Act
    times: int | None = None
    skip: int = 0

    def matches(self, calls: list[str]) -> bool:
        """Whether the last of these calls gets the fault."""
        number = sum(call.startswith(self.call) for call in calls) - self.skip
        return (
            calls[-1].startswith(self.call)
            and number > 0
            and (self.times is None or number <= self.times)
        )


Accept = Callable[[socket.socket], socket.socket]


@dataclass
class FaultProxy:
    """A running proxy. calls: every request so far; heads: what came with it; upstream: where they are passed on to."""

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
        """How many requests of this kind arrived."""
        return sum(each.startswith(call) for each in self.calls)

    def serve(self, listener: socket.socket, accept: Accept) -> None:
        """Take connections until the listener is closed."""
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
        """End every connection and the threads that serve them."""
        self.stopped.set()
        for client in self._open:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _connection(self, client: socket.socket, accept: Accept) -> None:
        client.settimeout(30)
        with suppress(
            OSError, ValueError
        ):  # either side may go at any time: that is what this is for
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
    """Everything up to and with the empty line; nothing when the client has gone."""
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
    """Stand before `upstream` on a free port.

    accept: what happens to a new connection, such as a TLS handshake. listen_after_s: so long, connections are
    refused; None: for ever.
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
