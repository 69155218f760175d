"""What can go wrong with one request between a client and an instance: acts for the fault proxy."""

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
    """Answer in the instance's place; {soon} in a header is the date in two seconds."""
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
    """Send the client elsewhere. location: {target} is the request's path and query, {port} this proxy's."""

    def act(exchange: Exchange) -> None:
        target = exchange.head.split(b" ", 2)[1].decode("latin-1")
        where = location.format(target=target, port=urlsplit(exchange.proxy.url).port)
        answer(status, headers={"Location": where})(exchange)

    return act


def cut_request(after: int) -> Act:
    """Pass on so many bytes of the body, then break both sides off."""

    def act(exchange: Exchange) -> None:
        with exchange.upstream() as server:
            server.sendall(exchange.forwarded_head() + exchange.body(after))
        exchange.reset()

    return act


def cut_answer(after: int, *, reset: bool = True) -> Act:
    """Have the instance do all of it, then give the client only so many bytes of the answer, head included."""

    def act(exchange: Exchange) -> None:
        exchange.send(exchange.forward(exchange.body())[:after])
        exchange.reset() if reset else exchange.close()

    return act


def cut_body(after: int) -> Act:
    """Give the client the answer's whole head and only so many bytes of its body, then end as if all was well."""

    def act(exchange: Exchange) -> None:
        head, _, body = exchange.forward(exchange.body()).partition(b"\r\n\r\n")
        exchange.send(head + b"\r\n\r\n" + body[:after])
        exchange.close()

    return act


def stall(exchange: Exchange) -> None:
    """Take the request and never answer."""
    exchange.body()
    exchange.pause()


def stall_request(after: int) -> Act:
    """Take so many bytes of the request's body and no more, for ever."""

    def act(exchange: Exchange) -> None:
        exchange.body(after)
        exchange.pause()

    return act


def stall_answer(after: int) -> Act:
    """Give so many bytes of the answer, head included, and then nothing, for ever."""

    def act(exchange: Exchange) -> None:
        exchange.send(exchange.forward(exchange.body())[:after])
        exchange.pause()

    return act


def slow_request(exchange: Exchange) -> None:
    """Take the request at 1 kB/s."""
    for _ in range(0, exchange.length, 100):
        exchange.body(100)
        if exchange.pause(100 / SLOW_BYTES_PER_S):
            return


def slow_answer(exchange: Exchange) -> None:
    """Give the answer at 1 kB/s."""
    content = exchange.forward(exchange.body())
    for start in range(0, len(content), 100):
        exchange.send(content[start : start + 100])
        if exchange.pause(100 / SLOW_BYTES_PER_S):
            return


def corrupt_request(exchange: Exchange) -> None:
    """Change one byte of the body on its way to the instance."""
    exchange.send(exchange.forward(_damaged(exchange.body())))


def shorten_request(exchange: Exchange) -> None:
    """Pass on all but the last 100 bytes, and say that this is all."""
    body = exchange.body()[:-100]
    head = _LENGTH.sub(b"Content-Length: %d" % len(body), exchange.head)
    exchange.send(exchange.forward(body, head=head))


def corrupt_answer(exchange: Exchange) -> None:
    """Change one byte of the answer's body."""
    head, _, body = exchange.forward(exchange.body()).partition(b"\r\n\r\n")
    exchange.send(head + b"\r\n\r\n" + _damaged(body))


def wrong_length(difference: int) -> Act:
    """Say a Content-Length that is wrong by so many bytes, send the whole answer, and end the connection."""

    def act(exchange: Exchange) -> None:
        content = exchange.forward(exchange.body())
        length = int(_LENGTH.findall(content)[0]) + difference
        exchange.send(_LENGTH.sub(b"content-length: %d" % length, content, count=1))
        exchange.close()

    return act


def raw(content: bytes) -> Act:
    """Send these bytes instead of an answer, and end the connection."""

    def act(exchange: Exchange) -> None:
        exchange.body()
        exchange.send(content)
        exchange.close()

    return act


def never_ending(exchange: Exchange) -> None:
    """Answer 200 with a body that does not end."""
    exchange.body()
    exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    while not exchange.proxy.stopped.is_set():
        exchange.send(b"10000\r\n" + b" " * 65536 + b"\r\n")


def hang_up_after(exchange: Exchange) -> None:
    """Answer, promise to keep the connection, and close it."""
    relay(exchange)
    exchange.close()


def _damaged(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def tunnel(exchange: Exchange) -> None:
    """Be an HTTP proxy that does as it is told: connect, then pass bytes both ways."""
    host, _, port = exchange.head.split(b" ", 2)[1].decode("ascii").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as server:
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


def swallow(client: socket.socket) -> socket.socket:
    """Take a connection and whatever comes, and say nothing: no TLS handshake, no answer."""
    while client.recv(65536):
        pass
    raise OSError("gone")


def misunderstand(client: socket.socket) -> None:
    """Answer a TLS handshake as a web server without TLS does."""
    client.recv(16)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def hang_up(times: int) -> Callable[[socket.socket], socket.socket]:
    """Cut so many connections off in the handshake."""
    left = [times]

    def accept(client: socket.socket) -> socket.socket:
        left[0] -= 1
        if left[0] >= 0:
            client.recv(16)
            client.close()
        return client

    return accept
