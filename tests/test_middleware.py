"""Processing of every request: forwarded headers, log, limits, security headers and errors."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from starlette.types import Message, Receive, Scope, Send

from datapilot_defer.instance.forwarding import apply_forwarded_headers
from datapilot_defer.instance.middleware import RequestMiddleware
from datapilot_defer.instance.rate_limit import RateLimiter
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.version import program_version
from tests.support.instance_calls import (
    SECONDS,
    announce,
    call,
    make_integration,
    manifest,
    onboard,
    pull,
    verify,
    wait_until,
)
from tests.support.instances import RunningInstance, running_instance

LOGGER = "datapilot_defer.instance"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HSTS = "Strict-Transport-Security"


@contextmanager
def behind_proxy(directory: Path, requests_per_minute: int = 0) -> Iterator[RunningInstance]:
    settings = InstanceSettings(behind_proxy=True, requests_per_minute=requests_per_minute)
    with running_instance(directory, settings=settings) as running:
        yield running


def send_raw(instance: RunningInstance, head: bytes) -> bytes:
    """Send a request that a client library would not send; return the start of the response."""
    url = urlsplit(instance.url)
    address = (str(url.hostname), int(url.port or 0))
    with socket.create_connection(address, timeout=SECONDS) as connection:
        connection.sendall(head + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        return connection.recv(1000)


def get(instance: RunningInstance, path: str, **headers: str) -> requests.Response:
    return requests.get(f"{instance.url}/{path}", headers=headers, timeout=SECONDS)


def log_lines(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    """Wait for messages with a word and return them: a request is logged after its response."""
    return wait_until(lambda: [line for line in caplog.messages if word in line])


@pytest.mark.parametrize(
    "path",
    [
        b"/word%0A203.0.113.9%20GET%20/forged%20200%201%20ms",
        b"/word%0D%09%1B%5B2J%7F%C2%85",
        b"/word%E2%80%A8%E2%80%AE%E2%81%A6",
    ],
)
def test_a_path_is_logged_as_it_was_sent(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    assert send_raw(instance, b"GET " + path + b"?secret=1 HTTP/1.1").startswith(b"HTTP/1.1 404")
    [line] = log_lines(caplog, "word")
    assert line.startswith(f"127.0.0.1 GET {path.decode()} 404 ")
    assert line.isprintable()


def test_a_request_is_logged_with_its_id_and_program(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    answer = get(
        instance, "health", **{"User-Agent": 'datapilot-defer/9 "x"\x7f', "X-Request-ID": "mine"}
    )
    request_id = answer.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{16}", request_id)
    assert answer.headers["X-Datapilot-Version"] == program_version()
    [line] = log_lines(caplog, "/health")
    assert re.fullmatch(
        rf"127\.0\.0\.1 GET /health 200 \d+ ms {request_id} \"datapilot-defer/9 'x'\"", line.strip()
    )


@pytest.mark.parametrize(
    ("sent", "is_kept"), [("9f-A.1_b", True), ("a b", False), ("x" * 65, False), ("", False)]
)
def test_the_request_id_of_a_reverse_proxy_is_kept(
    tmp_path: Path, sent: str, is_kept: bool
) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(behind_proxy=True)) as instance:
        answer = get(instance, "missing", **{"X-Request-ID": sent})
    assert (answer.headers["X-Request-ID"] == sent) is is_kept


def test_a_logged_path_is_cut(instance: RunningInstance, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    send_raw(instance, b"GET /word" + b"x" * 10_000 + b" HTTP/1.1")
    [line] = log_lines(caplog, "word")
    assert len(line) < 600


@pytest.mark.parametrize(
    ("forwarded", "logged"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, unknown", "127.0.0.1"),
        ("203.0.113.9 GET /forged", "127.0.0.1"),
        ("fe80::1%x y", "127.0.0.1"),
        ("203.0.113.9,", "127.0.0.1"),
        ("[203.0.113.9", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_behind_a_proxy_the_client_is_the_last_valid_forwarded_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, forwarded: str, logged: str
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with behind_proxy(tmp_path) as instance:
        get(instance, "word", **{"X-Forwarded-For": forwarded})
        [line] = log_lines(caplog, "word")
    assert line.startswith(f"{logged} GET /word 404 ")


def test_without_a_proxy_forwarded_addresses_are_ignored(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    get(instance, "word", **{"X-Forwarded-For": "203.0.113.9"})
    [line] = log_lines(caplog, "word")
    assert line.startswith("127.0.0.1 ")


@pytest.mark.parametrize(
    ("scheme", "host", "expected"),
    [
        ("https", "defer.example.com", "https://defer.example.com/"),
        (
            "http, HTTPS",
            "evil.example.com, defer.example.com:8443",
            "https://defer.example.com:8443/",
        ),
        ("https", "[2001:db8::1]:8443", "https://[2001:db8::1]:8443/"),
        ("ftp", "defer.example.com", "http://defer.example.com/"),
        ("https", "a/b?c", "https://127.0.0.1:"),
        ("https", "user@defer.example.com", "https://127.0.0.1:"),
        ("javascript", "", "http://127.0.0.1:"),
    ],
)
def test_signed_urls_follow_valid_forwarded_headers(
    tmp_path: Path, scheme: str, host: str, expected: str
) -> None:
    with behind_proxy(tmp_path) as instance:
        integration_id = make_integration(instance)
        query = {
            "dbt_core_integration_id": str(integration_id),
            "dbt_core_integration_environment_type": "PROD",
            "file_type": "manifest",
        }
        forwarded = {"X-Forwarded-Proto": scheme, "X-Forwarded-Host": host}
        answer = requests.get(
            f"{instance.url}/dbt/v1/signed_url",
            params=query,
            headers={**instance.headers, **forwarded},
            timeout=SECONDS,
        )
    assert answer.json()["url"].startswith(expected)


def test_the_entry_of_the_last_of_several_headers_counts() -> None:
    scope: Scope = {
        "client": ("127.0.0.1", 1),
        "headers": [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")],
    }
    apply_forwarded_headers(scope)
    assert scope["client"] == ("2.2.2.2", 0)


def test_forwarded_headers_that_are_ignored_cause_one_warning(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    get(instance, "health", **{"X-Forwarded-Proto": "http"})
    assert "--behind-proxy" not in caplog.text
    for _ in range(3):
        get(instance, "health", **{"X-Forwarded-Proto": "https"})
    [line] = log_lines(caplog, "--behind-proxy")
    assert "X-Forwarded-Proto" in line


def test_a_forwarded_host_that_is_ignored_causes_a_warning_too(
    instance: RunningInstance, caplog: pytest.LogCaptureFixture
) -> None:
    get(instance, "health", **{"X-Forwarded-Host": "other.example.com\tx"})
    [line] = log_lines(caplog, "--behind-proxy")
    assert "X-Forwarded-Host" in line
    assert "example" not in line


def test_forwarded_headers_that_agree_with_the_public_url_cause_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "defer.example.com"}
    settings = InstanceSettings(public_url="https://defer.example.com")
    with running_instance(tmp_path, settings=settings) as instance:
        get(instance, "health", **forwarded)
        assert (
            announce(instance, make_integration(instance))
            .json()["url"]
            .startswith("https://defer.example.com/")
        )
    assert "--behind-proxy" not in caplog.text


def test_strict_transport_security_is_sent_only_over_https(tmp_path: Path) -> None:
    with behind_proxy(tmp_path) as instance:
        secure = get(instance, "health", **{"X-Forwarded-Proto": "https"})
        assert "max-age=" in secure.headers[HSTS]
        assert HSTS not in get(instance, "health").headers
        local = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "localhost:8585"}
        assert HSTS not in get(instance, "health", **local).headers


@pytest.mark.parametrize("path", ["health", "ready"])
def test_a_status_can_be_requested_without_its_body(instance: RunningInstance, path: str) -> None:
    answer = requests.head(f"{instance.url}/{path}", timeout=SECONDS)
    assert answer.status_code == 200
    assert answer.content == b""
    assert get(instance, path).json()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "unknown", 404), ("DELETE", "health", 405), ("GET", "dbt/v1/unknown", 404)],
)
def test_a_browser_gets_a_page_and_a_program_gets_json(
    instance: RunningInstance, method: str, path: str, status: int
) -> None:
    url = f"{instance.url}/{path}"
    page = requests.request(method, url, headers=HTML, timeout=SECONDS)
    answer = requests.request(method, url, timeout=SECONDS)
    assert [page.status_code, answer.status_code] == [status, status]
    assert page.headers["Content-Type"].startswith("text/html")
    assert "/settings/integrations" in page.text
    assert answer.json()["detail"] == answer.json()["message"]
    assert page.headers.get("Allow") == answer.headers.get("Allow")


def test_tokens_behind_one_address_do_not_share_a_limit(tmp_path: Path) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=5)) as instance:
        other = instance.new_token("read")
        first = [call(instance, "POST", "auth_health").status_code for _ in range(7)]
        second = [call(instance, "POST", "auth_health", token=other).status_code for _ in range(7)]
    assert first == second == [200] * 5 + [429] * 2


def test_invalid_tokens_count_against_the_address_and_not_against_valid_ones(
    tmp_path: Path,
) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=5)) as instance:
        wrong = ["dpd_wrong" + str(number) for number in range(7)]
        invalid = [
            call(instance, "POST", "auth_health", token=token).status_code for token in wrong
        ]
        anonymous = get(instance, "ready")
        unknown = get(instance, "unknown", Authorization=f"Bearer {instance.token}")
        foreign = requests.post(
            f"{instance.url}/auth_health",
            headers={**instance.headers, "x-tenant": "other"},
            timeout=SECONDS,
        )
        valid = call(instance, "POST", "auth_health")
    assert invalid == [401] * 5 + [429] * 2
    assert [anonymous.status_code, unknown.status_code, foreign.status_code] == [429] * 3
    assert int(anonymous.headers["Retry-After"]) >= 1
    assert valid.status_code == 200


def test_a_signed_url_is_not_limited_by_address(tmp_path: Path) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=10)) as instance:
        integration_id = make_integration(instance)
        for _ in range(12):
            get(instance, "unknown")
        content = manifest()
        onboard(instance, integration_id, content)
        assert pull(instance, integration_id) == content


def test_invalid_signatures_are_limited_and_valid_ones_of_the_same_address_are_not(
    tmp_path: Path,
) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=8)) as instance:
        integration_id = make_integration(instance)
        invalid = [get(instance, "files/1?signature=x").status_code for _ in range(9)]
        unknown = requests.put(f"{instance.url}/files/9?signature=x", data=b"", timeout=SECONDS)
        onboard(instance, integration_id, manifest())
    assert invalid == [403] * 8 + [429]
    assert unknown.status_code == 429


def test_failing_requests_with_a_valid_signature_count_for_the_file(tmp_path: Path) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=8)) as instance:
        url = announce(instance, make_integration(instance)).json()["url"]
        statuses = [requests.put(url, data=manifest(), timeout=SECONDS).status_code]
        assert verify(instance, 1).status_code == 200
        for _ in range(8):
            statuses.append(requests.put(url, data=b"", timeout=SECONDS).status_code)
        assert statuses == [200] + [409] * 7 + [429]
        assert get(instance, "ready").status_code == 200


def test_requests_that_fail_before_they_are_authenticated_count_against_the_address(
    tmp_path: Path,
) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=5)) as instance:
        for _ in range(5):
            assert get(instance, "files/1?expires=1").status_code == 422
        assert get(instance, "ready").status_code == 429


def test_a_limited_browser_gets_a_page(tmp_path: Path) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=1)) as instance:
        get(instance, "unknown")
        page = get(instance, "sign-in", **HTML)
    assert page.status_code == 429
    assert "text/html" in page.headers["Content-Type"]
    assert int(page.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_request_that_is_interrupted_by_the_shutdown_leaves_no_traceback(
    has_begun: bool,
) -> None:
    async def work(_scope: Scope, _receive: Receive, send: Send) -> None:
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(SECONDS)

    async def run() -> list[int]:
        statuses: list[int] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "PUT", "path": "/files/1", "raw_path": b"/files/1"}
        scope |= {"scheme": "http", "headers": [], "client": ("127.0.0.1", 1)}
        handler = RequestMiddleware(work, InstanceSettings(), RateLimiter(0))
        task = asyncio.create_task(handler(scope, receive, send))
        await asyncio.sleep(0.01)
        task.cancel()
        await task
        return statuses

    assert asyncio.run(run()) == [200 if has_begun else 503]
