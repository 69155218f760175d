"""HTTP client of an instance: responses, failures, and the hosts that receive the token."""

from __future__ import annotations

import errno
import gzip
import io
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests
import urllib3

from datapilot_defer.artifact import Kind, Provenance, parse_artifact
from datapilot_defer.client import failures, responses
from datapilot_defer.client.responses import ArtifactLocation, UploadTarget
from datapilot_defer.config import DEFAULT_URL, Setting
from datapilot_defer.console import NoProgress
from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)
from tests.support import fault_actions as act
from tests.support.fault_proxy import Act, At, fault_proxy
from tests.support.fault_runner import instance_at

CLOSED_URL = "http://127.0.0.1:1"
MANIFEST = parse_artifact(b"{}", path="manifest.json", kind=Kind.MANIFEST)

pytestmark = pytest.mark.usefixtures("no_retry_delay")


def failure_message(fault_or_action: Act | At, error: type[DatapilotError] = Unavailable) -> str:
    """Return the error message of `check_credentials` for this fault."""
    at = fault_or_action if isinstance(fault_or_action, At) else At("", fault_or_action)
    with fault_proxy(CLOSED_URL, at) as proxy, pytest.raises(error) as raised:
        instance_at(proxy.url).check_credentials()
    return str(raised.value)


def test_response_that_is_not_http_is_reported() -> None:
    assert "does not use HTTP" in failure_message(act.raw(b"+OK POP3 ready\r\n"))


def test_incomplete_response_is_reported() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    assert "was incomplete (tried" in failure_message(act.raw(head % 99 + b'{"ok": true}'))
    assert "was incomplete (tried" in failure_message(act.raw(head % 6 + b'{"ok":'))
    assert "was incomplete" in failure_message(
        act.raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnonsense")
    )


def test_deeply_nested_json_causes_no_traceback() -> None:
    assert "was incomplete" in failure_message(act.answer(200, b"[" * 200_000))


def test_a_chunk_of_less_than_nothing_is_no_traceback() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert "does not use HTTP" in failure_message(act.raw(head + b"-2\r\n{}\r\n0\r\n\r\n"))


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd"])
def test_a_compression_that_was_not_asked_for_is_not_decompressed(encoding: str) -> None:
    body = gzip.compress(gzip.compress(b'{"ok": true}'))
    fault = act.answer(200, body, {"Content-Encoding": encoding})
    assert "used a compression that was not requested" in failure_message(fault)


@pytest.mark.parametrize("encoding", ["gzip", "X-GZIP", "identity"])
def test_a_compressed_answer_is_read(encoding: str) -> None:
    body = b'{"ok": true}'
    if encoding != "identity":
        body = gzip.compress(body)
    fault = act.answer(200, body, {"Content-Encoding": encoding})
    with fault_proxy(CLOSED_URL, At("", fault)) as proxy:
        instance_at(proxy.url).check_credentials()
        assert "accept-encoding: gzip, deflate\r\n" in proxy.heads[0].lower()


def test_the_limit_of_an_artifact_is_not_that_of_other_answers() -> None:
    page = b"<html>" + b" " * 6000
    there = {"Location": "/there"}
    steps = [
        At("GET /f", act.answer(503, page), times=1),
        At("GET /f", act.answer(302, page, there)),
        At("GET /there", act.answer(200, b"{}"), times=1),
        At("GET /there", act.answer(403, page)),
    ]
    with fault_proxy(CLOSED_URL, *steps) as proxy:
        location = ArtifactLocation(f"{proxy.url}/f", 1, size_bytes=2)
        destination = io.BytesIO()
        instance_at(proxy.url).download(location, destination, "manifest")
        assert destination.getvalue() == b"{}"
        with pytest.raises(AccessDenied):
            instance_at(proxy.url).download(location, io.BytesIO(), "manifest")


def test_download_has_size_limit() -> None:
    with fault_proxy(CLOSED_URL, At("", act.never_ending)) as proxy:
        location = ArtifactLocation(f"{proxy.url}/f", 1, None, 50, None, None, None, None, None)
        with pytest.raises(Unavailable, match="sends more than 50 bytes"):
            instance_at(proxy.url).download(location, io.BytesIO(), "manifest")


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, AccessDenied), (404, NotFound), (418, Unavailable), (503, Unavailable)],
)
def test_error_names_request_id_and_instance_version(
    status: int, error: type[DatapilotError]
) -> None:
    headers = {"X-Request-ID": "4f2a", "X-Datapilot-Version": "9.1.0"}
    answer = act.answer(status, b'{"detail": "the disk is full"}', headers)
    with fault_proxy(CLOSED_URL, At("", answer)) as proxy, pytest.raises(error) as raised:
        instance_at(proxy.url).check_permissions()
    assert "the disk is full" in str(raised.value)
    assert str(raised.value).endswith(" (request 4f2a, instance version 9.1.0)")
    assert raised.value.details == {"request_id": "4f2a", "instance_version": "9.1.0"}


@pytest.mark.parametrize("header", ["Retry-After", "Date"])
def test_impossible_date_header_causes_no_traceback(header: str) -> None:
    answer = act.answer(503, headers={header: "Mon, 01 Jan 99999999999999 00:00:00 GMT"})
    assert "HTTP 503" in failure_message(answer)


def test_unusable_proxy_is_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks9://127.0.0.1:1")
    with pytest.raises(UsageError, match="the value of HTTPS_PROXY"):
        instance_at("http://instance.invalid").check_permissions()


@pytest.mark.parametrize("proxy", ["http://pro xy", "http://p:99999", "http://u:p/w@p", "ftp://p"])
def test_a_proxy_that_is_no_url_is_not_blamed_on_the_instance(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(UsageError, match="HTTP_PROXY or ALL_PROXY is not a usable URL"):
        instance_at("http://instance.invalid").check_credentials()


def test_a_name_that_cannot_exist_is_an_unknown_name() -> None:
    url = f"https://{'a' * 64}.invalid/f"
    with pytest.raises(Unavailable, match="cannot resolve"):
        instance_at(CLOSED_URL).upload(UploadTarget(url, 1), MANIFEST, NoProgress())


def test_invalid_request_id_is_hidden() -> None:
    answer = act.answer(404, headers={"X-Request-ID": "::error::x y"})
    assert "::error" not in failure_message(answer, NotFound)


REDIRECTS: list[tuple[Act, type[DatapilotError], str]] = [
    (act.redirect(307, "http://localhost:{port}/"), UsageError, "to which the token is not sent"),
    (act.redirect(301, "https://127.0.0.1:{port}/"), UsageError, "set it with --backend-url"),
    (act.redirect(307, "http://[x/"), Unavailable, "sent a redirect to an invalid URL"),
    (act.redirect(307, "http://host:99999/"), Unavailable, "sent a redirect to an invalid URL"),
    (act.redirect(302, "{target}"), Unavailable, "redirects in a circle"),
]


@pytest.mark.parametrize(("redirect", "error", "message"), REDIRECTS)
def test_redirect_to_another_host_is_rejected(
    redirect: Act, error: type[DatapilotError], message: str
) -> None:
    assert message in failure_message(redirect, error)


def test_redirect_that_would_lose_body_is_rejected() -> None:
    with (
        fault_proxy(CLOSED_URL, At("", act.redirect(302, "/x"))) as proxy,
        pytest.raises(Unavailable, match="would drop"),
    ):
        instance_at(proxy.url).start_ingestion(7, "PROD")


def test_redirect_uses_only_its_own_query() -> None:
    answer = act.answer(200, b"[]")
    with fault_proxy(
        CLOSED_URL, At("", act.redirect(307, "/other?a=1"), 1), At("", answer)
    ) as proxy:
        with pytest.raises(Unavailable, match="expected an object"):
            instance_at(proxy.url).request_upload_url(Kind.MANIFEST, 7, "PROD")
        assert proxy.heads[1].startswith("GET /other?a=1 HTTP")


@pytest.mark.parametrize("url", ["http://storage.example.com/f", "http://10.0.0.1/f"])
def test_upload_requires_https(url: str) -> None:
    with pytest.raises(Unavailable, match="is not https"):
        instance_at(CLOSED_URL).upload(UploadTarget(url, 1), MANIFEST, NoProgress())


STORAGE: list[tuple[int, type[DatapilotError]]] = [
    (400, AccessDenied),
    (403, AccessDenied),
    (410, AccessDenied),
    (404, NotFound),
    (418, Unavailable),
]


@pytest.mark.parametrize(("status", "error"), STORAGE)
def test_storage_errors_fail_upload_and_download(status: int, error: type[DatapilotError]) -> None:
    with fault_proxy(CLOSED_URL, At("", act.answer(status))) as proxy:
        fault = instance_at(proxy.url).upload(
            UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress()
        )
        assert type(fault) is error
        assert f"the storage returned HTTP {status}" in str(fault)
        location = ArtifactLocation(f"{proxy.url}/f", 1, None, None, None, None, None, None, None)
        with pytest.raises(error):
            instance_at(proxy.url).download(location, io.BytesIO(), "manifest")


def test_artifact_too_large_for_storage_is_rejected() -> None:
    with (
        fault_proxy(CLOSED_URL, At("", act.answer(413))) as proxy,
        pytest.raises(ArtifactRefused, match="too large"),
    ):
        instance_at(proxy.url).upload(UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress())


@pytest.mark.parametrize(
    "tag", ["", '"d41d8cd98f00b204e9800998ecf8427e"', f'"{MANIFEST.metadata.sha256}"', 'W/"abc"']
)
def test_etag_without_other_sha256_is_accepted(tag: str) -> None:
    with fault_proxy(CLOSED_URL, At("", act.answer(200, headers={"ETag": tag}))) as proxy:
        assert (
            instance_at(proxy.url).upload(UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress())
            is None
        )


def test_etag_with_other_sha256_is_error() -> None:
    with fault_proxy(
        CLOSED_URL, At("", act.answer(200, headers={"ETag": f'"{"0" * 64}"'}))
    ) as proxy:
        fault = instance_at(proxy.url).upload(
            UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress()
        )
    assert isinstance(fault, Unavailable)
    assert "changed on the way" in str(fault)


def test_verify_is_repeated_without_forbidden_fields() -> None:
    forbids = act.answer(
        422, b'{"detail": [{"loc": ["body", "sha256"], "msg": "Extra inputs are not permitted"}]}'
    )
    with fault_proxy(
        CLOSED_URL, At("POST", forbids, 1), At("POST", act.answer(200, b'{"ok": true}'))
    ) as proxy:
        stored = instance_at(proxy.url).verify_upload(
            UploadTarget(proxy.url, 5), MANIFEST, Provenance(), force=False
        )
        assert (stored.file_id, proxy.count("POST")) == (5, 2)


@pytest.mark.parametrize(
    ("url", "site"),
    [
        (DEFAULT_URL, "https://acme.app.myaltimate.com"),
        ("https://api.getaltimate.com", "https://acme.app.getaltimate.com"),
        ("https://api.tryaltimate.com", "https://acme.demo.tryaltimate.com"),
        ("https://datapilot.example.com", "https://datapilot.example.com"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_status_url_uses_web_host_of_hosted_instances(url: str, site: str) -> None:
    assert instance_at(url).status_url(7, "PROD 1") == f"{site}/settings/integrations/7/PROD%201"


# Exceptions of requests ---------------------------------------------------------------------------


def test_unknown_host_name_is_reported() -> None:
    with pytest.raises(Unavailable, match="cannot resolve the host name"):
        instance_at("http://instance.invalid").check_credentials()


def unreachable_host_error() -> requests.ConnectionError:
    """Return the exception that requests raises for an unreachable host."""
    error = urllib3.exceptions.NewConnectionError(
        urllib3.connection.HTTPConnection("h"), "Failed to establish"
    )
    error.__cause__ = OSError(errno.ENETUNREACH, "Network is unreachable")
    return requests.ConnectionError(
        urllib3.exceptions.MaxRetryError(urllib3.HTTPConnectionPool("h"), "/", error)
    )


ERRORS = [
    (requests.exceptions.ProxyError(), "the proxy for https://h is unavailable", True),
    (requests.exceptions.ConnectTimeout(), "timed out connecting to https://h", True),
    (
        requests.exceptions.ReadTimeout(),
        "timed out waiting for a response of https://h",
        True,
    ),
    (requests.exceptions.ChunkedEncodingError(), "the response of https://h was incomplete", True),
    (
        requests.exceptions.SSLError("[SSL: TLSV1_ALERT] x"),
        "the TLS handshake with https://h failed",
        True,
    ),
    (
        requests.exceptions.ConnectionError(OSError(101, "Network is unreachable")),
        "closed the connection unexpectedly",
        True,
    ),
    (unreachable_host_error(), "cannot reach https://h (Network is unreachable)", True),
    (requests.exceptions.InvalidHeader(), "failed (InvalidHeader)", False),
]


@pytest.mark.parametrize(("error", "message", "is_retryable"), ERRORS)
def test_exceptions_of_requests_have_plain_messages(
    error: requests.RequestException, message: str, is_retryable: bool
) -> None:
    fault = failures.failure_from_exception(error, "https://user:s3cret@h/f?signature=s3cret")
    assert message in fault.message
    assert "s3cret" not in fault.message
    assert fault.retryable is is_retryable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        ("", None),
        (None, None),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("\u0663", None),
    ],
)
def test_retry_after_in_seconds_is_parsed(value: str | None, seconds: float | None) -> None:
    assert failures.parse_retry_after(value) == seconds


def test_retry_after_as_date_is_parsed() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    assert 50 < (failures.parse_retry_after(format_datetime(soon, usegmt=True)) or 0) <= 60
    assert 50 < (failures.parse_retry_after(soon.strftime("%a, %d %b %Y %H:%M:%S")) or 0) <= 60
    assert failures.parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0


# Parsed responses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "x", "//h/f", "file:///etc/passwd", "ftp://h/f", "https://", "http://[x", 7, None]
)
def test_invalid_upload_url_is_rejected(url: object) -> None:
    with pytest.raises(Unavailable, match="expected 'url'"):
        responses.parse_upload_target({"url": url, "dbt_core_integration_file_id": 1})


@pytest.mark.parametrize(("id_", "expected"), [(7, 7), ("7", 7)])
def test_id_may_be_number_or_digits(id_: object, expected: int) -> None:
    assert (
        responses.parse_upload_target(
            {"url": "https://h/f", "dbt_core_integration_file_id": id_}
        ).file_id
        == expected
    )


@pytest.mark.parametrize("id_", [True, None, "x", "-1", "\u0667", 1.5, [], {}])
def test_invalid_id_is_rejected(id_: object) -> None:
    with pytest.raises(Unavailable, match="expected 'dbt_core_integration_file_id'"):
        responses.parse_upload_target({"url": "https://h/f", "dbt_core_integration_file_id": id_})


DETAILS = [
    ({"detail": "plain"}, "plain"),
    ({"message": "of the extension"}, "of the extension"),
    ({"detail": [{"loc": ["body", "name"], "msg": "too long"}, "?"]}, "name: too long"),
    ({"detail": [{"msg": "no place"}]}, ": no place"),
    ({"detail": "a\nb\r\n::error::c\x1b[31m\x07"}, "a b ::error::c [31m"),
    ({"detail": "x" * 5000}, "x" * 2000),
    ({"detail": {"a": 1}}, "{'a': 1}"),
    ({}, ""),
    ([], ""),
    (None, ""),
]


@pytest.mark.parametrize(("answer", "detail"), DETAILS)
def test_error_detail_is_one_printable_line(answer: object, detail: str) -> None:
    assert responses.error_detail(answer) == detail


@pytest.mark.parametrize("field", ["detail", "message"])
def test_a_reason_that_is_too_deep_is_none(field: str) -> None:
    reason: object = "x"
    for _ in range(5000):
        reason = {"more": reason}
    assert responses.error_detail({field: reason}) == ""
    assert responses.error_detail({field: [{"msg": reason}], "detail": [{"msg": reason}]}) == ""


FORBIDDEN = [
    ({"type": "extra_forbidden", "loc": ["body", "sha256"]}, True),
    ({"type": "value_error.extra", "loc": ["body", "sha256"]}, True),
    ({"loc": ["body", "sha256"]}, True),
    ({"type": "string_too_long", "loc": ["body", "sha256"]}, False),
    ({"type": "extra_forbidden", "loc": ["body", "dbt_core_integration_file_id"]}, False),
    ({"type": "extra_forbidden", "loc": 7}, False),
]


@pytest.mark.parametrize(("error", "forbids"), FORBIDDEN)
def test_forbidden_field_is_detected_by_type_and_location(error: object, forbids: bool) -> None:
    assert responses.forbids_fields({"detail": [error]}, ["sha256"]) is forbids


@pytest.mark.parametrize("content", [None, [], {}, {"detail": "extra fields"}, {"detail": ["x"]}])
def test_invalid_error_list_forbids_no_fields(content: object) -> None:
    assert not responses.forbids_fields(content, ["sha256"])


def test_null_and_empty_values_count_as_missing() -> None:
    location = responses.parse_artifact_location(
        {"url": "https://h/f", "dbt_core_integration_file_id": "1", "size_bytes": "9"}
        | dict.fromkeys(("sha256", "commit", "more"))
        | {"branch": ""}
    )
    assert (location.file_id, location.size_bytes) == (1, 9)
    assert (location.sha256, location.branch, location.provenance.commit) == (None, None, None)
    integration = responses.parse_integrations(
        [{"id": 1, "name": None, "environments": [{"environment_type": "PROD"}, {}]}]
    )[0]
    assert integration.to_json() == {
        "id": 1,
        "name": "",
        "environments": ["PROD"],
        "created_at": None,
        "last_upload_at": None,
        "integration_type": "dbt_core",
    }
    with pytest.raises(Unavailable, match="expected 'sha256'"):
        responses.parse_artifact_location(
            {"url": "https://h/f", "dbt_core_integration_file_id": 1, "sha256": 7}
        )


def test_invalid_integration_is_reported() -> None:
    invalid: object
    for invalid in ({}, [7], [{"name": "x"}], "x"):
        with pytest.raises(Unavailable, match="Check that the URL points"):
            responses.parse_integrations(invalid)
    assert responses.parse_integrations([{"id": 1, "is_deleted": True}, {"id": "2"}])[0].id == 2


def test_repr_of_setting_hides_secret() -> None:
    assert "s3cret" not in repr(instance_at(CLOSED_URL, "acme", "s3cret").credentials)
    assert repr(Setting("s3cret", "x")) == "Setting(origin='x')"
