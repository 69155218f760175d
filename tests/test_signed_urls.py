"""Signed URLs: for one file, one purpose, a few minutes and one signing key."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from itsdangerous import TimestampSigner

from datapilot_defer.errors import AccessDenied
from datapilot_defer.instance.services import instances, signed_urls
from datapilot_defer.instance.services.signed_urls import Purpose, SignedUrl
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import instances as instance_records
from tests.support.instance_calls import (
    SECONDS,
    announce,
    fetch,
    make_integration,
    manifest,
    onboard,
    verify,
)
from tests.support.instances import RunningInstance, running_instance


@pytest.fixture
def url(instance: RunningInstance) -> str:
    return str(announce(instance, make_integration(instance)).json()["url"])


def signature_of(url: str) -> str:
    (signature,) = parse_qs(urlsplit(url).query)["signature"]
    return signature


def put(url: str, content: bytes | None = None) -> int:
    return requests.put(url, data=content or manifest(), timeout=SECONDS).status_code


def get(url: str) -> int:
    return requests.get(url, timeout=SECONDS).status_code


def test_a_url_is_a_path_and_a_signature_that_needs_no_escaping(
    instance: RunningInstance, url: str
) -> None:
    signature = signature_of(url)
    assert url == f"{instance.url}/files/1?signature={signature}"
    assert signature.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert put(url) == 200


@pytest.mark.parametrize(
    "signature", ["", ".", "..", "x", "x.y", "1.", "\x00", "é.é", "0" * 64, "A" * 200]
)
def test_a_malformed_signature_is_access_denied(url: str, signature: str) -> None:
    path = url.partition("?")[0]
    answer = requests.put(path, params={"signature": signature}, data=manifest(), timeout=SECONDS)
    assert answer.status_code == 403
    assert "signed URL is invalid or has expired" in answer.json()["detail"]


def test_every_changed_character_of_a_signature_is_access_denied(url: str) -> None:
    path, signature = url.partition("?")[0], signature_of(url)
    for index, character in enumerate(signature[:-1]):
        other = "A" if character != "A" else "B"
        changed = f"{signature[:index]}{other}{signature[index + 1 :]}"
        assert put(f"{path}?signature={changed}") == 403


def test_a_url_is_for_one_file_and_one_purpose(instance: RunningInstance, url: str) -> None:
    other = announce(instance, 1).json()["url"]
    assert put(other.replace("/files/2?", "/files/1?")) == 403
    assert put(other.replace("/files/2?", "/files/22?")) == 403
    assert get(url) == 403
    onboard(instance, 1, manifest())
    download = fetch(instance, 1).json()["url"]
    assert put(download) == 403
    assert get(download) == 200


def test_a_url_of_a_verified_file_accepts_no_other_bytes(
    instance: RunningInstance, url: str
) -> None:
    assert put(url) == 200
    assert verify(instance, 1).status_code == 200
    assert put(url, b"{}") == 409
    assert requests.get(fetch(instance, 1).json()["url"], timeout=SECONDS).content == manifest()


def test_a_download_url_of_an_unverified_file_finds_nothing(
    instance: RunningInstance, url: str
) -> None:
    assert put(url) == 200
    with instance.storage.database.read() as connection:
        owner = instances.find_instance(connection, "acme")
    download = signed_urls.create_signed_url(owner, 1, Purpose.DOWNLOAD, base_url=instance.url)
    assert get(download) == 404


def test_a_url_expires_after_the_lifetime_of_its_purpose(tmp_path: Path) -> None:
    with running_instance(tmp_path, settings=InstanceSettings(upload_seconds=0)) as instance:
        integration_id = make_integration(instance)
        assert put(announce(instance, integration_id).json()["url"]) == 403
    with running_instance(tmp_path, settings=InstanceSettings(download_seconds=0)) as instance:
        onboard(instance, integration_id, manifest())
        assert get(fetch(instance, integration_id).json()["url"]) == 403


@pytest.mark.parametrize(
    ("signed_at_s", "is_open"),
    [(0, True), (-890, True), (-901, False), (3600, True), (30 * 86400, True)],
)
def test_the_age_of_a_url_counts_and_a_clock_that_was_set_back_does_not_matter(
    instance: RunningInstance,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    signed_at_s: int,
    is_open: bool,
) -> None:
    with instance.storage.database.read() as connection:
        owner = instances.find_instance(connection, "acme")
    moment = int(time.time()) + signed_at_s
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: moment)
        signed = signed_urls.create_signed_url(owner, 1, Purpose.UPLOAD, base_url=instance.url)
    assert put(signed) == (200 if is_open else 403)


def test_a_url_is_signed_by_the_key_of_its_own_instance(
    instance: RunningInstance, url: str
) -> None:
    with instance.storage.database.write() as connection:
        rival = instance_records.create_instance(connection, "rival")
    forged = signed_urls.create_signed_url(rival, 1, Purpose.UPLOAD, base_url=instance.url)
    assert put(forged) == 403
    opened = SignedUrl(1, Purpose.UPLOAD, 900, signature_of(forged))
    with pytest.raises(AccessDenied):
        signed_urls.open_signed_url(instance.storage, opened)
    assert signature_of(forged) not in repr(opened)


def test_an_unknown_file_is_not_distinguished_from_a_wrong_signature(
    instance: RunningInstance, url: str
) -> None:
    signature = signature_of(url)
    unknown = requests.get(f"{instance.url}/files/99?signature={signature}", timeout=SECONDS)
    wrong = requests.get(f"{instance.url}/files/1?signature={signature}x", timeout=SECONDS)
    assert (unknown.status_code, unknown.json()) == (wrong.status_code, wrong.json())
