"""An instance as seen over HTTP: what each answer and each fault means, and where a token goes."""

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

NOBODY = "http://127.0.0.1:1"
MANIFEST = parse_artifact(b"{}", path="manifest.json", kind=Kind.MANIFEST)

pytestmark = pytest.mark.usefixtures("no_retry_delay")


def refused(what: Act | At, error: type[DatapilotError] = Unavailable) -> str:
    """Return the message of `check_credentials` for this fault."""
    at = what if isinstance(what, At) else At("", what)
    with fault_proxy(NOBODY, at) as proxy, pytest.raises(error) as raised:
        instance_at(proxy.url).check_credentials()
    return str(raised.value)


def test_what_is_no_http_is_said_to_be_none() -> None:
    assert "does not use HTTP" in refused(act.raw(b"+OK POP3 ready\r\n"))


def test_an_answer_that_is_cut_off_is_said_to_be() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    assert "was incomplete (tried" in refused(act.raw(head % 99 + b'{"ok": true}'))
    assert "was incomplete (tried" in refused(act.raw(head % 6 + b'{"ok":'))
    assert "was incomplete" in refused(
        act.raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nnonsense")
    )


def test_json_that_is_too_deep_is_no_traceback() -> None:
    assert "was incomplete" in refused(act.answer(200, b"[" * 200_000))


def test_a_chunk_of_less_than_nothing_is_no_traceback() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert "does not use HTTP" in refused(act.raw(head + b"-2\r\n{}\r\n0\r\n\r\n"))


@pytest.mark.parametrize("encoding", ["gzip, gzip", "br", "zstd"])
def test_a_compression_that_was_not_asked_for_is_not_decompressed(encoding: str) -> None:
    body = gzip.compress(gzip.compress(b'{"ok": true}'))
    fault = act.answer(200, body, {"Content-Encoding": encoding})
    assert "used a compression that was not requested" in refused(fault)


@pytest.mark.parametrize("encoding", ["gzip", "X-GZIP", "identity"])
def test_a_compressed_answer_is_read(encoding: str) -> None:
    body = b'{"ok": true}'
    if encoding != "identity":
        body = gzip.compress(body)
    fault = act.answer(200, body, {"Content-Encoding": encoding})
    with fault_proxy(NOBODY, At("", fault)) as proxy:
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
    with fault_proxy(NOBODY, *steps) as proxy:
        location = ArtifactLocation(f"{proxy.url}/f", 1, size_bytes=2)
        destination = io.BytesIO()
        instance_at(proxy.url).download(location, destination, "manifest")
        assert destination.getvalue() == b"{}"
        with pytest.raises(AccessDenied):
            instance_at(proxy.url).download(location, io.BytesIO(), "manifest")


def test_an_answer_has_a_limit() -> None:
    with fault_proxy(NOBODY, At("", act.never_ending)) as proxy:
        place = ArtifactLocation(f"{proxy.url}/f", 1, None, 50, None, None, None, None, None)
        with pytest.raises(Unavailable, match="sends more than 50 bytes"):
            instance_at(proxy.url).download(place, io.BytesIO(), "manifest")


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, AccessDenied), (404, NotFound), (418, Unavailable), (503, Unavailable)],
)
def test_an_error_names_the_request_and_the_version_of_the_instance(
    status: int, error: type[DatapilotError]
) -> None:
    headers = {"X-Request-ID": "4f2a", "X-Datapilot-Version": "9.1.0"}
    answer = act.answer(status, b'{"detail": "the disk is full"}', headers)
    with fault_proxy(NOBODY, At("", answer)) as proxy, pytest.raises(error) as raised:
        instance_at(proxy.url).check_permissions()
    assert "the disk is full" in str(raised.value)
    assert str(raised.value).endswith(" (request 4f2a, instance version 9.1.0)")
    assert raised.value.details == {"request_id": "4f2a", "instance_version": "9.1.0"}


@pytest.mark.parametrize("header", ["Retry-After", "Date"])
def test_a_date_beyond_the_calendar_is_no_traceback(header: str) -> None:
    answer = act.answer(503, headers={header: "Mon, 01 Jan 99999999999999 00:00:00 GMT"})
    assert "HTTP 503" in refused(answer)


def test_a_proxy_that_cannot_be_used_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
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
        instance_at(NOBODY).upload(UploadTarget(url, 1), MANIFEST, NoProgress())


def test_a_request_id_that_is_no_word_is_not_shown() -> None:
    answer = act.answer(404, headers={"X-Request-ID": "::error::x y"})
    assert "::error" not in refused(answer, NotFound)


REDIRECTS: list[tuple[Act, type[DatapilotError], str]] = [
    (act.redirect(307, "http://localhost:{port}/"), UsageError, "to which the token is not sent"),
    (act.redirect(301, "https://127.0.0.1:{port}/"), UsageError, "set it with --backend-url"),
    (act.redirect(307, "http://[x/"), Unavailable, "sent a redirect to an invalid URL"),
    (act.redirect(307, "http://host:99999/"), Unavailable, "sent a redirect to an invalid URL"),
    (act.redirect(302, "{target}"), Unavailable, "redirects in a circle"),
]


@pytest.mark.parametrize(("redirect", "error", "says"), REDIRECTS)
def test_a_redirect_is_followed_to_the_same_host_only(
    redirect: Act, error: type[DatapilotError], says: str
) -> None:
    assert says in refused(redirect, error)


def test_a_redirect_that_would_lose_the_body_is_not_followed() -> None:
    with (
        fault_proxy(NOBODY, At("", act.redirect(302, "/x"))) as proxy,
        pytest.raises(Unavailable, match="would drop"),
    ):
        instance_at(proxy.url).start_ingestion(7, "PROD")


def test_a_redirect_keeps_the_query_that_it_names_and_no_other() -> None:
    answer = act.answer(200, b"[]")
    with fault_proxy(NOBODY, At("", act.redirect(307, "/other?a=1"), 1), At("", answer)) as proxy:
        with pytest.raises(Unavailable, match="expected an object"):
            instance_at(proxy.url).request_upload_url(Kind.MANIFEST, 7, "PROD")
        assert proxy.heads[1].startswith("GET /other?a=1 HTTP")


@pytest.mark.parametrize("url", ["http://storage.example.com/f", "http://10.0.0.1/f"])
def test_no_artifact_goes_out_unencrypted(url: str) -> None:
    with pytest.raises(Unavailable, match="is not https"):
        instance_at(NOBODY).upload(UploadTarget(url, 1), MANIFEST, NoProgress())


STORAGE: list[tuple[int, type[DatapilotError]]] = [
    (400, AccessDenied),
    (403, AccessDenied),
    (410, AccessDenied),
    (404, NotFound),
    (418, Unavailable),
]


@pytest.mark.parametrize(("status", "error"), STORAGE)
def test_the_storage_can_refuse_both_ways(status: int, error: type[DatapilotError]) -> None:
    with fault_proxy(NOBODY, At("", act.answer(status))) as proxy:
        fault = instance_at(proxy.url).upload(
            UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress()
        )
        assert type(fault) is error
        assert f"the storage returned HTTP {status}" in str(fault)
        place = ArtifactLocation(f"{proxy.url}/f", 1, None, None, None, None, None, None, None)
        with pytest.raises(error):
            instance_at(proxy.url).download(place, io.BytesIO(), "manifest")


def test_an_artifact_that_is_too_large_for_the_storage_is_refused() -> None:
    with (
        fault_proxy(NOBODY, At("", act.answer(413))) as proxy,
        pytest.raises(ArtifactRefused, match="too large"),
    ):
        instance_at(proxy.url).upload(UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress())


@pytest.mark.parametrize(
    "tag", ["", '"d41d8cd98f00b204e9800998ecf8427e"', f'"{MANIFEST.metadata.sha256}"', 'W/"abc"']
)
def test_a_tag_that_is_no_other_sha256_is_no_fault(tag: str) -> None:
    with fault_proxy(NOBODY, At("", act.answer(200, headers={"ETag": tag}))) as proxy:
        assert (
            instance_at(proxy.url).upload(UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress())
            is None
        )


def test_the_sha256_of_other_bytes_is_a_fault() -> None:
    with fault_proxy(NOBODY, At("", act.answer(200, headers={"ETag": f'"{"0" * 64}"'}))) as proxy:
        fault = instance_at(proxy.url).upload(
            UploadTarget(f"{proxy.url}/f", 1), MANIFEST, NoProgress()
        )
    assert isinstance(fault, Unavailable)
    assert "changed on the way" in str(fault)


def test_an_instance_that_forbids_extra_fields_is_asked_without_them() -> None:
    forbids = act.answer(
        422, b'{"detail": [{"loc": ["body", "sha256"], "msg": "Extra inputs are not permitted"}]}'
    )
    with fault_proxy(
        NOBODY, At("POST", forbids, 1), At("POST", act.answer(200, b'{"ok": true}'))
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
def test_the_pages_of_the_hosted_instances_are_on_a_host_of_their_own(url: str, site: str) -> None:
    assert instance_at(url).status_url(7, "PROD 1") == f"{site}/settings/integrations/7/PROD%201"


# What requests raises, in words -------------------------------------------------------------------


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(Unavailable, match="cannot resolve the host name"):
        instance_at("http://instance.invalid").check_credentials()


def unreachable() -> requests.ConnectionError:
    """Return what requests raises where there is no way to a host."""
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
    (unreachable(), "cannot reach https://h (Network is unreachable)", True),
    (requests.exceptions.InvalidHeader(), "failed (InvalidHeader)", False),
]


@pytest.mark.parametrize(("error", "says", "again"), ERRORS)
def test_each_error_of_requests_is_said_in_plain_words(
    error: requests.RequestException, says: str, again: bool
) -> None:
    fault = failures.failure_from_exception(error, "https://user:s3cret@h/f?signature=s3cret")
    assert says in fault.message
    assert "s3cret" not in fault.message
    assert fault.retryable is again


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
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    assert failures.parse_retry_after(value) == seconds


def test_retry_after_as_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    assert 50 < (failures.parse_retry_after(format_datetime(soon, usegmt=True)) or 0) <= 60
    assert 50 < (failures.parse_retry_after(soon.strftime("%a, %d %b %Y %H:%M:%S")) or 0) <= 60
    assert failures.parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0


# Answers as values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "x", "//h/f", "file:///etc/passwd", "ftp://h/f", "https://", "http://[x", 7, None]
)
def test_what_is_no_url_is_no_place(url: object) -> None:
    with pytest.raises(Unavailable, match="expected 'url'"):
        responses.parse_upload_target({"url": url, "dbt_core_integration_file_id": 1})


@pytest.mark.parametrize(("id_", "read"), [(7, 7), ("7", 7)])
def test_an_id_may_be_a_number_or_its_digits(id_: object, read: int) -> None:
    assert (
        responses.parse_upload_target(
            {"url": "https://h/f", "dbt_core_integration_file_id": id_}
        ).file_id
        == read
    )


@pytest.mark.parametrize("id_", [True, None, "x", "-1", "\u0667", 1.5, [], {}])
def test_what_is_no_id_is_none(id_: object) -> None:
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


@pytest.mark.parametrize(("answer", "said"), DETAILS)
def test_a_reason_is_one_printable_line(answer: object, said: str) -> None:
    assert responses.error_detail(answer) == said


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
def test_a_field_that_is_forbidden_is_told_by_the_type_and_place_of_the_error(
    error: object, forbids: bool
) -> None:
    assert responses.forbids_fields({"detail": [error]}, ["sha256"]) is forbids


@pytest.mark.parametrize("content", [None, [], {}, {"detail": "extra fields"}, {"detail": ["x"]}])
def test_what_is_no_list_of_errors_forbids_nothing(content: object) -> None:
    assert not responses.forbids_fields(content, ["sha256"])


def test_null_and_empty_values_are_missing_ones() -> None:
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


def test_an_integration_that_is_none_is_said_to_be() -> None:
    nonsense: object
    for nonsense in ({}, [7], [{"name": "x"}], "x"):
        with pytest.raises(Unavailable, match="Check that the URL is that of an instance"):
            responses.parse_integrations(nonsense)
    assert responses.parse_integrations([{"id": 1, "is_deleted": True}, {"id": "2"}])[0].id == 2


def test_a_setting_is_no_secret_in_a_message() -> None:
    assert "s3cret" not in repr(instance_at(NOBODY, "acme", "s3cret").credentials)
    assert repr(Setting("s3cret", "x")) == "Setting(origin='x')"
