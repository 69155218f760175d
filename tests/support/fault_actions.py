"""Faults of one request between a client and an instance: actions for the fault proxy."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import urlsplit

from tests.support.fault_proxy import Act, Exchange, relay

SLOW_BYTES_PER_S = 1000
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")


def answer(status: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> Act:
    """Return an action that responds instead of the instance.

    {soon} in a header is replaced by the date in two seconds.
    """
    lines = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    def act(exchange: Exchange) -> None:
        exchange.body()
        soon = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        exchange.send(
            f"HTTP/1.1 {status} Fault\r\n{head}\r\n".replace("{soon}", soon).encode() + body
        )

    return act


def redirect(status: int, location: str) -> Act:
    """Return an action that redirects the client.

    location: {target} is the request's path and query, {port} the port of this proxy.
    """

    def act(exchange: Exchange) -> None:
        target = exchange.head.split(b" ", 2)[1].decode("latin-1")
        url = location.format(target=target, port=urlsplit(exchange.proxy.url).port)
        answer(status, headers={"Location": url})(exchange)

    return act


def cut_request(after: int) -> Act:
    """Return an action that forwards the first bytes of the body and resets both connections."""

    def act(exchange: Exchange) -> None:
        with exchange.upstream() as server:
            server.sendall(exchange.forwarded_head() + exchange.body(after))
        exchange.reset()

    return act


def cut_answer(after: int, *, reset: bool = True) -> Act:
    """Return an action that sends only the first bytes of the response, including its head."""

    def act(exchange: Exchange) -> None:
        exchange.send(exchange.forward(exchange.body())[:after])
        exchange.reset() if reset else exchange.close()

    return act


def cut_body(after: int) -> Act:
    """Return an action that sends the head and some bytes of the body, then closes."""

    def act(exchange: Exchange) -> None:
        head, _, body = exchange.forward(exchange.body()).partition(b"\r\n\r\n")
        exchange.send(head + b"\r\n\r\n" + body[:after])
        exchange.close()

    return act


def stall(exchange: Exchange) -> None:
    """Read the request and never respond."""
    exchange.body()
    exchange.pause()


def stall_request(after: int) -> Act:
    """Return an action that reads the first bytes of the body and then stops reading."""

    def act(exchange: Exchange) -> None:
        exchange.body(after)
        exchange.pause()

    return act


def stall_answer(after: int) -> Act:
    """Return an action that sends only the first bytes of the response and stays connected."""

    def act(exchange: Exchange) -> None:
        exchange.send(exchange.forward(exchange.body())[:after])
        exchange.pause()

    return act


def slow_request(exchange: Exchange) -> None:
    """Read the request at 1 kB/s."""
    for _ in range(0, exchange.length, 100):
        exchange.body(100)
        if exchange.pause(100 / SLOW_BYTES_PER_S):
            return


def slow_answer(exchange: Exchange) -> None:
    """Send the response at 1 kB/s."""
    content = exchange.forward(exchange.body())
    for start in range(0, len(content), 100):
        exchange.send(content[start : start + 100])
        if exchange.pause(100 / SLOW_BYTES_PER_S):
            return


def corrupt_request(exchange: Exchange) -> None:
    """Change one byte of the request body."""
    exchange.send(exchange.forward(_damaged(exchange.body())))


def shorten_request(exchange: Exchange) -> None:
    """Forward all but the last 100 bytes with a matching Content-Length."""
    body = exchange.body()[:-100]
    head = _LENGTH.sub(b"Content-Length: %d" % len(body), exchange.head)
    exchange.send(exchange.forward(body, head=head))


def corrupt_answer(exchange: Exchange) -> None:
    """Change one byte of the response body."""
    head, _, body = exchange.forward(exchange.body()).partition(b"\r\n\r\n")
    exchange.send(head + b"\r\n\r\n" + _damaged(body))


def wrong_length(difference: int) -> Act:
    """Return an action that adds `difference` to the Content-Length of the response."""

    def act(exchange: Exchange) -> None:
        content = exchange.forward(exchange.body())
        length = int(_LENGTH.findall(content)[0]) + difference
        exchange.send(_LENGTH.sub(b"content-length: %d" % length, content, count=1))
        exchange.close()

    return act


def raw(content: bytes) -> Act:
    """Return an action that sends these bytes instead of a response and closes."""

    def act(exchange: Exchange) -> None:
        exchange.body()
        exchange.send(content)
        exchange.close()

    return act


def never_ending(exchange: Exchange) -> None:
    """Send status 200 with an endless body."""
    exchange.body()
    exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    while not exchange.proxy.stopped.is_set():
        exchange.send(b"10000\r\n" + b" " * 65536 + b"\r\n")


def close_after_response(exchange: Exchange) -> None:
    """Forward the request and close the connection despite keep-alive."""
    relay(exchange)
    exchange.close()


def _damaged(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def tunnel(exchange: Exchange) -> None:
    """Act as an HTTP proxy that resolves every host to this machine and forwards all bytes."""
    _, _, port = exchange.head.split(b" ", 2)[1].decode("ascii").rpartition(":")
    with socket.create_connection(("127.0.0.1", int(port)), timeout=30) as server:
        exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_pump, args=(server, exchange.client))
        back.start()
        _pump(exchange.client, server)
        back.join()
    exchange.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


def read_silently(client: socket.socket) -> socket.socket:
    """Read from a connection without a TLS handshake and without a response."""
    while client.recv(65536):
        pass
    raise OSError("closed by the client")


def answer_without_tls(client: socket.socket) -> None:
    """Respond to a TLS handshake like a web server without TLS."""
    client.recv(16)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def cut_handshakes(times: int) -> Callable[[socket.socket], socket.socket]:
    """Return a function that closes the first `times` connections during the handshake."""
    remaining = [times]

    def accept(client: socket.socket) -> socket.socket:
        remaining[0] -= 1
        if remaining[0] >= 0:
            client.recv(16)
            client.close()
        return client

    return accept
