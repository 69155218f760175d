"""Limits on the speed of uploads, on their waiting time and on repeated uploads."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from datapilot_defer.instance import token_slots, upload_turns
from datapilot_defer.instance.api import signed_urls
from datapilot_defer.instance.descriptors import UPLOADS_AT_ONCE
from datapilot_defer.instance.services.uploads import receive_upload
from tests.support.instance_calls import (
    SECONDS,
    announce,
    make_integration,
    manifest,
    onboard,
    pull,
    verify,
)
from tests.support.instances import RunningInstance

CONTENT = manifest()
UPLOADS_OF_TOKEN = UPLOADS_AT_ONCE // 4


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return a stack that closes the connections of a test."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture(autouse=True)
def integration_id(instance: RunningInstance) -> int:
    return make_integration(instance)


def new_url(instance: RunningInstance) -> str:
    return str(announce(instance, 1).json()["url"])


def start_upload(
    stack: ExitStack, instance: RunningInstance, url: str, size_bytes: int = 400_000
) -> socket.socket:
    """Send the header and one byte of an upload, and wait until the server has read them."""
    parts = urlsplit(url)
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Length: {size_bytes}"
    connection = socket.create_connection((str(parts.hostname), int(parts.port or 0)), SECONDS)
    stack.enter_context(connection).sendall(f"{head}\r\n\r\n{{".encode())
    requests.get(f"{instance.url}/health", timeout=SECONDS)
    new_url(instance)  # this takes longer than the server needs to start the upload
    return connection


def answer_of(connection: socket.socket) -> str:
    """Return everything that the server sends before it closes the connection."""
    parts = []
    while part := connection.recv(10_000):
        parts.append(part)
    return b"".join(parts).decode()


def test_an_upload_that_is_too_slow_is_ended(
    instance: RunningInstance, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_turns, "_SLOW_S", 0.5)
    answer = answer_of(start_upload(stack, instance, new_url(instance)))
    assert answer.startswith("HTTP/1.1 408")
    assert "the upload was not stored: it was slower than 64 kB/s" in answer


def test_an_upload_that_is_fast_enough_may_take_longer(
    instance: RunningInstance, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_turns, "_SLOW_S", 0.8)
    monkeypatch.setattr(upload_turns, "_BYTES_PER_S", 1000)
    connection = start_upload(stack, instance, new_url(instance), 5001)
    for _ in range(5):
        time.sleep(0.3)
        connection.sendall(b" " * 1000)
    assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_an_upload_that_waits_too_long_gets_503(
    instance: RunningInstance, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_turns, "MAX_WAIT_S", 0.5)
    for _ in range(UPLOADS_OF_TOKEN):
        start_upload(stack, instance, new_url(instance))
    answer = requests.put(new_url(instance), data=CONTENT, timeout=SECONDS)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    stack.close()
    onboard(instance, 1, CONTENT)


def test_a_repeated_upload_ends_the_earlier_one(
    instance: RunningInstance, stack: ExitStack
) -> None:
    url = new_url(instance)
    earlier = start_upload(stack, instance, url)
    assert requests.put(url, data=CONTENT, timeout=SECONDS).status_code == 200
    answer = answer_of(earlier)
    assert answer.startswith("HTTP/1.1 409")
    assert "the upload was not stored: another upload of file 1 has started" in answer


@pytest.mark.parametrize("later_count", [1, 2])
def test_the_bytes_of_the_last_upload_are_kept(
    instance: RunningInstance, monkeypatch: pytest.MonkeyPatch, later_count: int
) -> None:
    """The first upload is about to store its bytes, which cannot be canceled."""
    about_to_store, may_store = threading.Event(), threading.Event()

    def store(*arguments: Any) -> None:
        is_first = not about_to_store.is_set()
        about_to_store.set()
        if is_first:
            may_store.wait(SECONDS)
        receive_upload(*arguments)

    monkeypatch.setattr(signed_urls, "receive_upload", store)
    url = new_url(instance)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(requests.put, url, data=CONTENT, timeout=SECONDS)
        about_to_store.wait(SECONDS)
        for number in range(1, later_count + 1):
            content = CONTENT + b" " * number
            later = pool.submit(requests.put, url, data=content, timeout=SECONDS)
            time.sleep(0.5)
        may_store.set()
        assert later.result().status_code == 200
    assert verify(instance, 1).status_code == 200
    assert pull(instance, 1) == content


def test_uploads_of_one_file_take_one_turn(instance: RunningInstance, stack: ExitStack) -> None:
    url = new_url(instance)
    for _ in range(2 * UPLOADS_OF_TOKEN):
        start_upload(stack, instance, url)
    onboard(instance, 1, CONTENT)


def test_a_repeated_upload_that_gets_503_does_not_end_the_running_one(
    instance: RunningInstance, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_slots, "_MAX_WAITING", 1)
    content = CONTENT.ljust(20_000)
    url = new_url(instance)
    running = start_upload(stack, instance, url, len(content))
    for _ in range(UPLOADS_OF_TOKEN):
        start_upload(stack, instance, new_url(instance))
    assert requests.put(url, data=content, timeout=SECONDS).status_code == 503
    running.sendall(content[1:])
    assert running.recv(10_000).startswith(b"HTTP/1.1 200")


def test_the_client_of_an_upload_that_gets_503_can_read_the_reason(
    instance: RunningInstance, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_slots, "_MAX_WAITING", 0)
    for _ in range(UPLOADS_OF_TOKEN):
        start_upload(stack, instance, new_url(instance))
    answer = requests.put(new_url(instance), data=bytes(20_000_000), timeout=SECONDS)
    assert answer.status_code == 503
    assert "too many requests of this kind" in answer.text
