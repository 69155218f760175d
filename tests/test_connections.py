"""Connections that make no progress are closed, and a flood of them leaves the server usable."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
import trustme

from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.connections import Connections
from datapilot_defer.instance.descriptors import UPLOADS_AT_ONCE
from datapilot_defer.instance.serve import ListenAddress, serve
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import open_storage
from tests.support.instance_calls import (
    SECONDS,
    announce,
    make_integration,
    manifest,
    onboard,
    wait_until,
)
from tests.support.instances import RunningInstance, running_instance

posix_only = pytest.mark.skipif(os.name != "posix", reason="the limit exists on POSIX only")
REPOSITORY = Path(__file__).resolve().parents[1]
MORE_THAN_A_HEADER_MAY_TAKE = 11
MORE_THAN_A_BODY_MAY_STALL = 31
MORE_THAN_A_RESPONSE_MAY_STALL = 121
# A program that runs a command with another limit on open files.
LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (min(128, int(sys.argv[1])), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Clock(Connections):
    """Connections of a server whose time can be advanced."""

    def __init__(self) -> None:
        super().__init__(1000)
        self._examined = 0

    @property
    def count(self) -> int:
        """Return how many connections are open."""
        return len(self._open)

    def close_stalled(self) -> None:
        """Close connections, and count it."""
        super().close_stalled()
        self._examined += 1

    def advance(self, seconds: float) -> None:
        """Let each connection wait longer, after the server has seen what it waits for."""
        target = self._examined + 2
        wait_until(lambda: self._examined >= target)
        for connection in list(self._open):
            connection.since -= seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed_instance(tmp_path: Path, clock: Clock) -> Iterator[RunningInstance]:
    with running_instance(tmp_path, connections=clock) as running:
        yield running


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


def connect(url: str, first: bytes = b"") -> socket.socket:
    connection = socket.create_connection(address_of(url), timeout=SECONDS)
    connection.sendall(first)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Wait for the end of a connection."""
    try:
        while connection.recv(100_000):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def put_head(instance: RunningInstance, integration_id: int, size_bytes: int) -> bytes:
    """Return the header of a new upload."""
    url = urlsplit(announce(instance, integration_id).json()["url"])
    return (
        f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {size_bytes}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_complete_header_is_closed(
    timed_instance: RunningInstance, clock: Clock, first: bytes
) -> None:
    with connect(timed_instance.url, first) as connection:
        clock.advance(5)
        connection.sendall(b"G" if not first else b"x: y")
        clock.advance(MORE_THAN_A_HEADER_MAY_TAKE - 5)
        assert is_closed(connection)


def test_each_request_of_a_connection_has_its_own_time(
    timed_instance: RunningInstance, clock: Clock
) -> None:
    connection = HTTPConnection(*address_of(timed_instance.url), timeout=SECONDS)
    connection.connect()
    connection.auto_open = 0
    for _ in range(3):
        clock.advance(7)
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"ok"}'
    connection.close()


def test_a_body_must_progress(timed_instance: RunningInstance, clock: Clock) -> None:
    head = put_head(timed_instance, make_integration(timed_instance), 1_000_000)
    with connect(timed_instance.url, head + b"x" * 70_000) as connection:
        for _ in range(2):
            clock.advance(20)
            connection.sendall(b"x" * 70_000)
        clock.advance(1)
        connection.sendall(b"x")
        clock.advance(MORE_THAN_A_BODY_MAY_STALL)
        assert is_closed(connection)


def test_a_body_that_is_discarded_must_progress_too(
    timed_instance: RunningInstance, clock: Clock
) -> None:
    head = b"POST /unknown HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"
    with connect(timed_instance.url, head) as connection:
        assert connection.recv(10_000).startswith(b"HTTP/1.1 413")
        clock.advance(MORE_THAN_A_BODY_MAY_STALL)
        assert is_closed(connection)


def test_a_small_body_must_arrive_in_time(timed_instance: RunningInstance, clock: Clock) -> None:
    head = b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    with connect(timed_instance.url, head) as connection:
        for _ in range(3):
            clock.advance(11)
            connection.sendall(b"x")
        assert is_closed(connection)


def test_a_client_is_not_blamed_while_the_server_does_not_read(
    timed_instance: RunningInstance, clock: Clock
) -> None:
    integration_id = make_integration(timed_instance)
    with ExitStack() as stack:
        stalled = []
        for _ in range(UPLOADS_AT_ONCE // 4):  # the limit of one token
            head = put_head(timed_instance, integration_id, 400_000)
            stalled.append(stack.enter_context(connect(timed_instance.url, head)))
        # This upload waits until another one ends.
        head = put_head(timed_instance, integration_id, 400_000)
        waiting = stack.enter_context(connect(timed_instance.url, head + b"x" * 400_000))
        clock.advance(MORE_THAN_A_BODY_MAY_STALL)
        assert waiting.recv(10_000).startswith(b"HTTP/1.1 200")
        assert is_closed(stalled[0])


def test_a_client_is_not_blamed_while_the_server_works_on_its_request(
    timed_instance: RunningInstance, clock: Clock
) -> None:
    headers = {**timed_instance.headers, "Content-Type": "application/json"}
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    path = "/dbt/v1/project_integration"
    body = '{"name": "shop", "environment": "PROD"}'
    request = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}"
    )
    with timed_instance.storage.database.write():
        connection = connect(timed_instance.url, request.encode())
        clock.advance(1000)
        clock.advance(1)
    with connection:
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200")


def test_a_client_that_does_not_read_its_responses_is_disconnected(
    timed_instance: RunningInstance, clock: Clock
) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(timed_instance.url) as connection:
        connection.settimeout(2)
        with pytest.raises(TimeoutError):
            connection.sendall(request * 1_000_000)
        clock.advance(MORE_THAN_A_BODY_MAY_STALL)
        clock.advance(0)
        assert clock.count == 1
        clock.advance(MORE_THAN_A_RESPONSE_MAY_STALL)
        clock.advance(0)
        assert clock.count == 0
        assert is_closed(connection)


def test_at_the_limit_the_longest_silent_connections_are_closed(tmp_path: Path) -> None:
    connections = Connections(20)
    with running_instance(tmp_path, connections=connections) as instance, ExitStack() as stack:
        head = put_head(instance, make_integration(instance), 300_000)
        upload = stack.enter_context(connect(instance.url, head))
        requests.get(f"{instance.url}/health", timeout=SECONDS)  # the server has read the header
        silent = [stack.enter_context(connect(instance.url)) for _ in range(18)]
        for _ in range(30):
            upload.sendall(b"x" * 10_000)
            stack.enter_context(connect(instance.url))
            assert requests.get(f"{instance.url}/health", timeout=SECONDS).status_code == 200
        assert upload.recv(10_000).startswith(b"HTTP/1.1 200")
        assert all(is_closed(connection) for connection in silent)


def tls_options(directory: Path) -> tuple[str, ...]:
    """Create a certificate, and the file ca.pem with its authority; return options of `serve`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    path = str(directory / "server.pem")
    return ("--tls-certificate", path, "--tls-key", path)


@contextmanager
def serving(
    data: Path, *options: str, files: int = 4096
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `serve` with a limit on open files; yield its URL and process."""
    serve_words = [sys.executable, "-m", "datapilot_defer", "instance", "serve", "--port", "0"]
    with (
        (data.parent / "log").open("wb") as log,
        subprocess.Popen(
            [*limited(files), *serve_words, "--data", str(data), *options],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            first = process.stdout.readline().decode()
            match = re.search(r"https?://[\w.]+:\d+", first)
            assert match, first
            yield match[0], process
        finally:
            process.kill()


def limited(files: int) -> list[str]:
    if os.name != "posix":
        return []
    return [sys.executable, "-c", LIMITED, str(files)]


def stop(process: subprocess.Popen[bytes], data: Path) -> tuple[int, str]:
    """End a server with SIGTERM; return its exit code and its log."""
    process.send_signal(signal.SIGTERM)
    exit_code = process.wait(90)
    return exit_code, (data.parent / "log").read_text(encoding="utf-8")


@posix_only
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_flood_of_silent_connections_leaves_the_server_usable(
    tmp_path: Path, is_encrypted: bool
) -> None:
    options: tuple[str, ...] = ()
    if is_encrypted:
        options = tls_options(tmp_path)
    data = tmp_path / "data"
    with serving(data, "-q", *options, files=400) as (url, process), ExitStack() as stack:
        for number in range(600):
            stack.enter_context(connect(url))
            if number % 60 == 0:
                answer = get(f"{url}/ready", tmp_path)
                assert answer.status_code == 200
        exit_code, log = stop(process, data)
    assert exit_code == 0, log
    assert "out of system resource" not in log
    assert log.count("reached the limit of 108 connections") == 2, log
    assert "suppressed" in log
    assert len(log) < 2000


def get(url: str, directory: Path) -> requests.Response:
    """Send a request on a new connection."""
    verify: str | bool = True
    if url.startswith("https:"):
        verify = str(directory / "ca.pem")
    return requests.get(url, verify=verify, timeout=SECONDS)


@posix_only
def test_over_tls_a_request_may_follow_the_handshake_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "data", *tls_options(tmp_path)) as (url, process):
        context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        for _ in range(20):
            assert b"200 OK" in send_with_handshake(address_of(url), context)
        for _ in range(5):
            with connect(url, b"this is not TLS\r\n\r\n") as connection:
                assert is_closed(connection)
        answer = get(f"{url}/health", tmp_path)
        assert "max-age=" in answer.headers["Strict-Transport-Security"]
        exit_code, log = stop(process, tmp_path / "data")
    assert exit_code == 0
    assert "Traceback" not in log


def send_with_handshake(address: tuple[str, int], context: ssl.SSLContext) -> bytes:
    """Send a request in the same packet as the end of the handshake; return the response."""
    incoming = ssl.MemoryBIO()
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=address[0])
    with socket.create_connection(address, timeout=SECONDS) as connection:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        client.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.sendall(outgoing.read())
        while True:
            try:
                return client.read(10_000)
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65536))


@posix_only
def test_messages_that_clients_can_cause_are_limited(tmp_path: Path) -> None:
    chunked = b"POST /unknown HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    with serving(tmp_path / "data", "-q") as (url, process):
        for _ in range(50):
            for garbage in (b"\x00\x01\r\n\r\n", chunked, b"GET / HTTP/1.1\r\n\r\n" * 2):
                with connect(url, garbage) as connection:
                    connection.recv(1000)
        exit_code, log = stop(process, tmp_path / "data")
    assert exit_code == 0, log
    assert log.count("Invalid HTTP request received") == 2, log
    assert re.search(r"suppressed \d+ messages like: Invalid HTTP request received", log)
    assert "Traceback" not in log


def test_a_broken_blob_store_ends_the_server(tmp_path: Path) -> None:
    with open_storage(tmp_path) as storage:

        def break_blobs(_url: str) -> None:
            vars(storage.blobs)["is_broken"] = True

        with pytest.raises(Unavailable, match="Restart the instance") as error:
            serve(
                storage,
                InstanceSettings(),
                ListenAddress("127.0.0.1", 0),
                on_ready=break_blobs,
            )
    assert error.value.exit_code == 5


def test_an_upload_works_after_a_flood(tmp_path: Path) -> None:
    with running_instance(tmp_path, connections=Connections(50)) as instance:
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(connect(instance.url))
        onboard(instance, make_integration(instance), manifest())
