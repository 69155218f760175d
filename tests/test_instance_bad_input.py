"""Responses to malformed requests and incomplete files."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from datapilot_defer.instance.settings import InstanceSettings
from tests.support.instance_calls import (
    SECONDS,
    announce,
    call,
    fetch,
    make_integration,
    manifest,
    onboard,
    pull,
    show,
    upload,
    verify,
)
from tests.support.instances import RunningInstance, running_instance

NOT_MANIFESTS = {
    "empty": b"",
    "half": manifest()[:-7],
    "not JSON": b"<html>502 Bad Gateway</html>",
    "a list": b"[]",
    "an empty object": b"{}",
    "another kind": b'{"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"}}',
    "deep": b'{"nodes": ' + b"[" * 100_000,
    "UTF-16": manifest().decode().encode("utf-16"),
}


@pytest.mark.parametrize("what", NOT_MANIFESTS)
def test_an_incomplete_manifest_is_rejected_and_the_current_one_stays(
    instance: RunningInstance, what: str
) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    answer = verify(instance, upload(instance, integration_id, NOT_MANIFESTS[what]))
    assert answer.status_code == 422
    assert pull(instance, integration_id) == manifest()


def test_verify_upload_without_an_upload_reports_what_is_missing(instance: RunningInstance) -> None:
    announced = announce(instance, make_integration(instance)).json()
    answer = verify(instance, announced["dbt_core_integration_file_id"])
    assert answer.status_code == 422
    assert "PUT its bytes" in answer.json()["detail"]


@pytest.mark.parametrize("claim", [{"sha256": "0" * 64}, {"size_bytes": 1}])
def test_bytes_that_differ_from_the_claim_are_rejected(
    instance: RunningInstance, claim: dict[str, Any]
) -> None:
    integration_id = make_integration(instance)
    assert (
        verify(instance, upload(instance, integration_id, manifest()), **claim).status_code == 422
    )
    assert fetch(instance, integration_id).status_code == 404


def test_an_interrupted_upload_leaves_nothing_behind(instance: RunningInstance) -> None:
    announced = announce(instance, make_integration(instance)).json()
    url = urlsplit(announced["url"])
    with socket.create_connection((str(url.hostname), int(url.port or 0))) as connection:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
        connection.sendall(head.encode() + b"{" * 2_000_000)
    while list((instance.data / "blobs" / "incoming").glob("*")):
        pass
    assert verify(instance, announced["dbt_core_integration_file_id"]).status_code == 422


def test_an_upload_over_the_limit_is_rejected_with_and_without_a_length(tmp_path: Path) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(max_upload_bytes=1000)) as instance:
        announced = announce(instance, make_integration(instance)).json()
        long = b" " * 1001
        assert requests.put(announced["url"], data=long, timeout=SECONDS).status_code == 413
        assert requests.put(announced["url"], data=iter([long]), timeout=SECONDS).status_code == 411
        assert requests.put(announced["url"], data=b" " * 1000, timeout=SECONDS).status_code == 200
        assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_a_call_with_a_body_of_ten_megabytes_is_rejected_unread(
    instance: RunningInstance,
) -> None:
    answer = call(instance, "POST", "dbt/v1/verify_upload", data=b" " * 10_000_000)
    assert answer.status_code == 413


def test_a_call_of_unknown_length_is_rejected(instance: RunningInstance) -> None:
    assert call(instance, "POST", "dbt/v1/verify_upload", data=iter([b"{}"])).status_code == 411


NAMES = [
    "Robert'); DROP TABLE integration;--",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%2e%2e",
    "日本 ✓",
    "a" * 200,
]


@pytest.mark.parametrize("name", NAMES)
def test_any_printable_name_is_accepted(instance: RunningInstance, name: str) -> None:
    integration_id = make_integration(instance, name)
    assert show(instance, integration_id)["name"] == name


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "a\x00b", "a" * 201, "\ud800"])
def test_an_unprintable_empty_or_too_long_name_is_rejected(
    instance: RunningInstance, name: str
) -> None:
    answer = call(
        instance, "POST", "dbt/v1/project_integration", json={"name": name, "environment": "PROD"}
    )
    assert answer.status_code == 422


@pytest.mark.parametrize("environment", ["..", ".", "a/b", "a\\b", "", "x" * 65])
def test_an_environment_name_that_is_not_valid_in_a_path_is_rejected(
    instance: RunningInstance, environment: str
) -> None:
    body = {"name": "shop", "environment": environment}
    assert call(instance, "POST", "dbt/v1/project_integration", json=body).status_code == 422


ODD = ["0", "-1", "abc", "9" * 30, "1.5", "", "' OR 1=1", "\uff11"]


@pytest.mark.parametrize("odd", ODD)
def test_an_invalid_integration_id_is_rejected(instance: RunningInstance, odd: str) -> None:
    make_integration(instance)
    assert fetch(instance, odd).status_code in (404, 422)  # type: ignore[arg-type]
    assert verify(instance, odd).status_code in (404, 422)  # type: ignore[arg-type]
    assert call(instance, "GET", f"dbt/v1/project_integrations/{odd or 'x'}/PROD").status_code in (
        404,
        422,
    )


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "yesterday"]
)
def test_a_time_that_is_out_of_range_in_utc_is_rejected(instance: RunningInstance, at: str) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    answer = fetch(instance, integration_id, at=at)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("at: ")


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_manifest_with_such_a_time_causes_no_server_error(
    instance: RunningInstance, at: str
) -> None:
    onboard(instance, make_integration(instance), manifest(at=at))
    assert show(instance, 1)["history"][0]["generated_at"] is None


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'{"dbt_core_integration_file_id": null}', b"\xff"]
)
def test_an_invalid_body_is_described(instance: RunningInstance, body: bytes) -> None:
    answer = call(instance, "POST", "dbt/v1/verify_upload", data=body)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("length", ["-1", "abc", "1, 2"])
def test_an_invalid_content_length_is_rejected(instance: RunningInstance, length: str) -> None:
    url = urlsplit(instance.url)
    with socket.create_connection((str(url.hostname), int(url.port or 0))) as connection:
        connection.sendall(
            f"POST /auth_health HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")


def test_too_many_requests_get_a_retry_after_header(tmp_path: Path) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(requests_per_minute=3)) as instance:
        answers = [call(instance, "POST", "auth_health") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert requests.get(f"{instance.url}/health", timeout=SECONDS).status_code == 200


@pytest.mark.parametrize("odd", ["\\ud800", "\\u0000", "x" * 60_000])
def test_metadata_that_databases_reject_causes_no_server_error(
    instance: RunningInstance, odd: str
) -> None:
    content = manifest(project="PROJECT").replace(b'"PROJECT"', f'"{odd}"'.encode())
    integration_id = make_integration(instance)
    onboard(instance, integration_id, content)
    assert pull(instance, integration_id) == content
    assert len(show(instance, integration_id)["project_name"]) <= 200


@pytest.mark.parametrize("field", ["commit", "branch", "build_url", "sha256"])
def test_unusual_claims_about_an_upload_cause_no_server_error(
    instance: RunningInstance, field: str
) -> None:
    file_id = upload(instance, make_integration(instance), manifest())
    for odd in ('"\\ud800"', '"\\u0000"', f'"{"x" * 3000}"', "5", "[]"):
        body = f'{{"dbt_core_integration_file_id": {file_id}, "{field}": {odd}}}'
        answer = call(instance, "POST", "dbt/v1/verify_upload", data=body.encode())
        assert answer.status_code in (200, 422), answer.text
