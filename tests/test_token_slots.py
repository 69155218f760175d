"""Limits per token on resources that all tokens share."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import requests
from fastapi import HTTPException
from starlette.types import Message, Receive, Scope, Send

from datapilot_defer.instance import middleware
from datapilot_defer.instance.descriptors import UPLOADS_AT_ONCE
from datapilot_defer.instance.rate_limit import RateLimiter
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.instance.token_slots import TokenSlots
from datapilot_defer.instance.verification import Verification
from datapilot_defer.instance.worker import VerificationWorker
from tests.support.instance_calls import (
    SECONDS,
    announce,
    call,
    make_integration,
    manifest,
    onboard,
    upload,
    verify,
    wait_until,
)
from tests.support.instances import RunningInstance


def test_slow_uploads_of_one_token_leave_room_for_others(instance: RunningInstance) -> None:
    make_integration(instance)
    with ExitStack() as stack:
        for _ in range(UPLOADS_AT_ONCE):
            stack.enter_context(start_upload(instance))
        requests.get(f"{instance.url}/health", timeout=SECONDS)  # the server has read the headers
        token = instance.new_token("upload")
        onboard(instance, 1, manifest(), token=token)


def test_too_many_uploads_of_all_tokens_get_503(
    instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_MAX_UPLOADS", 2)
    make_integration(instance)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(start_upload(instance))
        requests.get(f"{instance.url}/health", timeout=SECONDS)  # the server has read the headers
        url = announce(instance, 1).json()["url"]
        answer = requests.put(url, data=manifest(), timeout=SECONDS)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "5"
    wait_until(lambda: requests.put(url, data=manifest(), timeout=SECONDS).status_code == 200)


def test_an_upload_counts_until_its_response_begins() -> None:
    async def send_nothing(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def run() -> list[int]:
        limiter = RateLimiter(0)
        handler = middleware.RequestMiddleware(send_nothing, InstanceSettings(), limiter)
        statuses: list[int] = []

        async def send_and_wait(message: Message) -> None:
            statuses.append(message.get("status", 0))
            if len(statuses) <= middleware._MAX_UPLOADS:
                await anyio.sleep_forever()  # the client does not read the response

        async with anyio.create_task_group() as tasks:
            for _ in range(middleware._MAX_UPLOADS):
                tasks.start_soon(handler, upload_scope(), receive_nothing, send_and_wait)
            await anyio.wait_all_tasks_blocked()
            await handler(upload_scope(), receive_nothing, send_and_wait)
            tasks.cancel_scope.cancel()
        return statuses

    assert set(anyio.run(run)) == {200}


def upload_scope() -> Scope:
    return {
        "type": "http",
        "method": "PUT",
        "path": "/files/1",
        "raw_path": b"/files/1",
        "scheme": "http",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "query_string": b"",
    }


async def receive_nothing() -> Message:
    return {"type": "http.disconnect"}


def start_upload(instance: RunningInstance) -> socket.socket:
    """Announce an upload and send its header."""
    url = urlsplit(announce(instance, 1).json()["url"])
    target = f"{url.path}?{url.query}"
    head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n"
    connection = socket.create_connection((str(url.hostname), int(url.port or 0)))
    connection.sendall(head.encode())
    return connection


def test_too_many_waiting_requests_of_one_token_get_503() -> None:
    async def wait_for_turns() -> list[HTTPException]:
        slots = TokenSlots(1)
        rejected: list[HTTPException] = []

        async def take() -> None:
            try:
                async with slots.of_token(1):
                    await anyio.sleep_forever()
            except HTTPException as error:
                rejected.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(105):
                tasks.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            async with slots.of_token(2):
                tasks.cancel_scope.cancel()
        return rejected

    rejected = anyio.run(wait_for_turns)
    assert [error.status_code for error in rejected] == [503] * 4
    assert rejected[0].headers == {"Retry-After": "5"}


def test_verifications_of_one_token_take_turns_with_others(
    instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration_id = make_integration(instance)
    may_continue = threading.Event()
    order = []
    original = VerificationWorker.verify

    def verify_in_order(*arguments: Any) -> Verification:
        order.append(arguments[2].size_bytes)
        may_continue.wait(SECONDS)
        return original(*arguments)

    monkeypatch.setattr(VerificationWorker, "verify", verify_in_order)
    greedy = [upload(instance, integration_id, manifest() + b" " * number) for number in range(4)]
    token = instance.new_token("upload")
    other = upload(instance, integration_id, manifest() + b" " * 1000, token=token)
    threads = [threading.Thread(target=verify, args=(instance, file_id)) for file_id in greedy]
    for thread in threads:
        thread.start()
    wait_until(lambda: order)
    waiting = threading.Thread(target=verify, args=(instance, other, token))
    waiting.start()
    requests.get(f"{instance.url}/health", timeout=SECONDS)
    wait_until(lambda: is_received(instance))
    may_continue.set()
    for thread in (*threads, waiting):
        thread.join(SECONDS)
    assert len(order) == 5
    assert order.index(len(manifest()) + 1000) == 1


def is_received(instance: RunningInstance) -> bool:
    """Return whether the server has read the requests that were sent before."""
    return call(instance, "POST", "auth_health").status_code == 200


def test_no_verification_starts_for_a_disconnected_client(
    instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    integration_id = make_integration(instance)
    may_continue = threading.Event()
    verified = []
    original = VerificationWorker.verify

    def verify_later(*arguments: Any) -> Verification:
        verified.append(arguments[2].size_bytes)
        may_continue.wait(SECONDS)
        return original(*arguments)

    monkeypatch.setattr(VerificationWorker, "verify", verify_later)
    first = upload(instance, integration_id, manifest())
    thread = threading.Thread(target=verify, args=(instance, first))
    thread.start()
    wait_until(lambda: verified)
    second = upload(instance, integration_id, manifest() + b" ")
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(
            f"{instance.url}/dbt/v1/verify_upload",
            json={"dbt_core_integration_file_id": second},
            headers=instance.headers,
            timeout=0.5,
        )
    may_continue.set()
    thread.join(SECONDS)
    assert announce(instance, integration_id).status_code == 200
    assert verified == [len(manifest())]
