"""Request bodies: with a length, in pieces, and sent only when the server asks for them."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import h11
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from datapilot_defer.instance.connections import Connections
from datapilot_defer.instance.http_connection import HttpConnection
from datapilot_defer.instance.request_parser import RequestParser
from tests.support.instance_calls import SECONDS, announce, make_integration
from tests.support.instances import RunningInstance, running_instance

HEADER = b"POST /nope HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ONE_BYTE_CHUNK = b"1\r\nx\r\n"
MAX_HEADER_BYTES = 16 * 1024


def parse(*parts: bytes) -> tuple[RequestParser, list[h11.Event]]:
    """Return a parser and the events of what arrived in parts."""
    parser = RequestParser(MAX_HEADER_BYTES)
    events: list[h11.Event] = []
    for part in parts:
        parser.receive_data(part)
        while isinstance(event := parser.next_event(), h11.Event):
            events.append(event)
    return parser, events


def test_a_chunked_body_is_never_parsed() -> None:
    parser, events = parse(HEADER + CHUNKED + ONE_BYTE_CHUNK * 50_000, ONE_BYTE_CHUNK * 50_000)
    assert [type(event) for event in events] == [h11.Request]
    assert parser.ignores_body
    # The remaining bytes are not kept.
    assert len(parser.trailing_data[0]) <= len(ONE_BYTE_CHUNK) * 50_000


def test_a_body_that_arrives_byte_by_byte_is_one_piece() -> None:
    content = bytes(range(256))
    header = HEADER + b"Content-Length: 256\r\n\r\n"
    _, events = parse(header, *[bytes([value]) for value in content])
    data = [event for event in events if isinstance(event, h11.Data)]
    assert [bytes(event.data) for event in data] == [content]
    assert isinstance(events[-1], h11.EndOfMessage)


def test_a_small_request_is_parsed_when_its_body_is_complete() -> None:
    parser, events = parse(HEADER + b"Content-Length: 5\r\n\r\n", b"ab", b"cd")
    assert events == []
    assert parser.held_request is not None
    parser.receive_data(b"e")
    following = [parser.next_event() for _ in range(3)]
    assert [type(event) for event in following] == [h11.Request, h11.Data, h11.EndOfMessage]
    assert parser.held_request is None


@pytest.mark.parametrize("part_bytes", [1000, 65_536, 100_000, 300_000])
def test_a_large_body_comes_in_pieces_of_64_kb(part_bytes: int) -> None:
    content = bytes(200_000)
    header = HEADER + b"Content-Length: 200000\r\n\r\n"
    parts = [content[start : start + part_bytes] for start in range(0, 200_000, part_bytes)]
    _, events = parse(header, *parts)
    sizes = [len(event.data) for event in events if isinstance(event, h11.Data)]
    assert sum(sizes) == 200_000
    assert len(sizes) <= 4
    assert isinstance(events[-1], h11.EndOfMessage)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 16_383, 16_384, 16_385, 65_536, 150_000]), max_size=4),
    cuts=st.lists(st.integers(1, 80_000), max_size=8),
)
@settings(deadline=None, max_examples=100)
def test_the_parts_in_which_requests_arrive_do_not_matter(
    sizes: list[int], cuts: list[int]
) -> None:
    stream = b"".join(HEADER + b"Content-Length: %d\r\n\r\n" % size + b"x" * size for size in sizes)
    parser = RequestParser(MAX_HEADER_BYTES)
    received: list[int] = []
    for cut in [*cuts, len(stream)]:
        part, stream = stream[:cut], stream[cut:]
        if part:  # an empty part would be the end of the connection
            parser.receive_data(part)
            parse_requests(parser, received)
    assert received == sizes


def parse_requests(parser: RequestParser, sizes: list[int]) -> None:
    """Answer each complete request; add the size of each body to a list."""
    while isinstance(event := parser.next_event(), h11.Event):
        if isinstance(event, h11.Request):
            sizes.append(0)
        elif isinstance(event, h11.Data):
            sizes[-1] += len(event.data)
        else:
            parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            parser.send(h11.EndOfMessage())
            parser.start_next_cycle()


def test_requests_of_one_connection_are_parsed_one_after_the_other() -> None:
    request = HEADER + b"Content-Length: 3\r\n\r\nabc"
    parser, events = parse(request + request)
    assert [type(event) for event in events] == [h11.Request, h11.Data, h11.EndOfMessage]
    parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
    parser.send(h11.EndOfMessage())
    parser.start_next_cycle()
    following = [parser.next_event() for _ in range(3)]
    assert [type(event) for event in following] == [h11.Request, h11.Data, h11.EndOfMessage]


def connect(instance: RunningInstance, first: bytes) -> socket.socket:
    parts = urlsplit(instance.url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=SECONDS)
    connection.sendall(first)
    return connection


def send_until(connection: socket.socket, moment: float) -> None:
    """Send chunks until a moment of the monotonic clock, or until the connection ends."""
    while time.monotonic() < moment:
        connection.sendall(ONE_BYTE_CHUNK * 1000)


def read_all(connection: socket.socket) -> bytes:
    """Return what the server sends until it ends the connection."""
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def upload_target(instance: RunningInstance) -> bytes:
    url = urlsplit(announce(instance, make_integration(instance)).json()["url"])
    return f"{url.path}?{url.query}".encode()


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT"])
def test_a_chunked_request_is_rejected_and_answered(
    instance: RunningInstance, method: bytes
) -> None:
    header = method + b" /nope HTTP/1.1\r\nHost: x\r\n" + CHUNKED
    with connect(instance, header + ONE_BYTE_CHUNK * 1000) as connection:
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 411")
    assert b"no Content-Length" in answer


def test_a_chunked_request_is_answered_after_another_one(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(instance, HEALTH + HEADER + CHUNKED + ONE_BYTE_CHUNK) as connection:
        answers = read_all(connection)
    assert answers.index(b"HTTP/1.1 200") < answers.index(b"HTTP/1.1 411")
    assert "Traceback" not in caplog.text


def test_a_chunked_upload_is_rejected(instance: RunningInstance, upload_target: bytes) -> None:
    header = b"PUT " + upload_target + b" HTTP/1.1\r\nHost: x\r\n" + CHUNKED
    with connect(instance, header + ONE_BYTE_CHUNK) as connection:
        assert read_all(connection).startswith(b"HTTP/1.1 411")


def test_a_client_that_sends_chunks_without_end_is_disconnected(instance: RunningInstance) -> None:
    with connect(instance, HEADER + CHUNKED) as connection, pytest.raises(ConnectionError):
        send_until(connection, time.monotonic() + SECONDS)


def creation_header(instance: RunningInstance, body: bytes, *more: str) -> bytes:
    """Return the header of a call that creates an integration."""
    fields = [f"{name}: {value}" for name, value in instance.headers.items()]
    lines = [
        "POST /dbt/v1/project_integration HTTP/1.1",
        *("Host: x", "Connection: close", "Content-Type: application/json"),
        *(*fields, f"Content-Length: {len(body)}", *more),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


BODY = b'{"name": "shop", "environment": "PROD"}'


def test_an_api_call_may_arrive_byte_by_byte(instance: RunningInstance) -> None:
    with connect(instance, creation_header(instance, BODY)) as connection:
        for value in BODY:
            connection.sendall(bytes([value]))
            time.sleep(0.002)
        assert read_all(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("earlier", [b"", HEALTH])
def test_a_client_may_wait_for_permission_to_send_a_body(
    instance: RunningInstance, earlier: bytes
) -> None:
    header = creation_header(instance, BODY, "Expect: 100-continue")
    with connect(instance, earlier + header) as connection:
        received = b""
        while b"HTTP/1.1 100" not in received:
            received += connection.recv(65_536)
        connection.sendall(BODY)
        assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_a_request_may_follow_whose_body_comes_later(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(instance, HEALTH + creation_header(instance, BODY)) as connection:
        time.sleep(6)  # longer than a connection without a request stays open
        connection.sendall(BODY)
        assert read_all(connection).count(b"HTTP/1.1 200") == 2
    assert "Traceback" not in caplog.text
    assert "Exception" not in caplog.text


def test_the_server_stops_while_a_small_body_is_incomplete(tmp_path: Path) -> None:
    with running_instance(tmp_path) as instance:
        connection = connect(instance, creation_header(instance, BODY) + BODY[:5])
        time.sleep(0.2)
    with connection, suppress(ConnectionError):
        assert read_all(connection) == b""


def test_no_part_of_a_body_is_kept_after_the_response(tmp_path: Path) -> None:
    connections = Connections(100)
    with running_instance(tmp_path, connections=connections) as instance:
        header = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        with connect(instance, header + bytes(250_000)) as connection:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
            connection.sendall(bytes(60_000))
            requests.get(f"{instance.url}/health", timeout=SECONDS)
            kept = [bytes_kept(each) for each in connections._open]
    assert kept
    assert max(kept) == 0


def bytes_kept(connection: object) -> int:
    assert isinstance(connection, HttpConnection)
    return len(connection.cycle.body) + len(connection.conn.trailing_data[0])


def test_a_rejected_body_with_a_length_leaves_the_connection_usable(tmp_path: Path) -> None:
    with running_instance(tmp_path) as instance:
        header = HEADER + b"Content-Length: 60000\r\n\r\n"
        with connect(instance, header) as connection:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
            connection.sendall(bytes(60_000))
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"HTTP/1.1 200" in read_all(connection)


def test_invalid_bytes_after_a_head_request_end_the_connection(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    header = b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for _ in range(10):
        with connect(instance, header + b"garbage\r\n\r\n") as connection, suppress(OSError):
            read_all(connection)
    assert requests.get(f"{instance.url}/health", timeout=SECONDS).status_code == 200
    assert "Traceback" not in caplog.text
