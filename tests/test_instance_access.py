"""Who gets in: tokens, scopes, instance names, signed URLs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from datapilot_defer.errors import AccessDenied
from datapilot_defer.instance.services import instances as instance_services
from datapilot_defer.instance.services import token_format, tokens
from datapilot_defer.instance.services.instances import rotate_signing_key
from datapilot_defer.instance.services.signed_urls import (
    Purpose,
    SignedUrl,
    create_signed_url,
    open_signed_url,
)
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import instances
from datapilot_defer.storage.audit import Actor
from tests.support.instance_calls import (
    SECONDS,
    announce,
    call,
    fetch,
    make_integration,
    manifest,
    onboard,
    upload,
    verify,
)
from tests.support.instances import RunningInstance, running_instance


def test_a_token_can_be_recognised_and_a_mistyped_one_is_not_well_formed() -> None:
    token = token_format.generate_token()
    assert token_format.is_well_formed(token)
    assert token.startswith("dpd_")
    other = "B" if token[10] == "A" else "A"
    assert not token_format.is_well_formed(token[:10] + other + token[11:])
    assert not token_format.is_well_formed("dpd_")


def test_no_token_is_kept_in_the_data_folder(instance: RunningInstance) -> None:
    token = instance.new_token("read")
    assert call(instance, "POST", "auth_health", token=token).status_code == 200
    for path in instance.data.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()


@pytest.mark.parametrize("token", ["", "xyzzy", "dpd_" + "a" * 46, "dpd_\xe9"])
def test_a_wrong_token_is_refused_without_being_repeated(
    instance: RunningInstance, token: str
) -> None:
    headers = {"Authorization": f"Bearer {token}".encode("latin-1"), "x-tenant": b"acme"}
    answer = requests.get(
        f"{instance.url}/dbt/v3/validate-credentials", headers=headers, timeout=SECONDS
    )
    assert answer.status_code == 401
    assert not token or token not in answer.json()["detail"]


def test_a_request_without_any_header_is_refused(instance: RunningInstance) -> None:
    assert requests.post(f"{instance.url}/auth_health", timeout=SECONDS).status_code == 401


def test_the_instance_name_must_be_the_tokens_own(instance: RunningInstance) -> None:
    headers = {**instance.headers, "x-tenant": "other"}
    answer = requests.get(
        f"{instance.url}/dbt/v3/validate-credentials", headers=headers, timeout=SECONDS
    )
    wrong = call(instance, "GET", "dbt/v3/validate-credentials", token="dpd_wrong")
    assert answer.status_code == wrong.status_code == 401
    assert answer.json() == wrong.json()


def test_a_revoked_and_an_expired_token_open_nothing(instance: RunningInstance) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = instance.new_token("admin", expires_at=past)
    revoked = instance.new_token("admin", name="to revoke")
    assert call(instance, "POST", "auth_health", token=revoked).status_code == 200
    (token_id,) = (
        each.id
        for _, each in tokens.list_tokens(instance.storage, "acme")
        if each.name == "to revoke"
    )
    tokens.revoke_token(instance.storage, token_id, Actor("test"))
    for token in (expired, revoked):
        assert call(instance, "POST", "auth_health", token=token).status_code == 401


def test_last_use_is_recorded(instance: RunningInstance) -> None:
    token = instance.new_token("read", name="analyst")
    call(instance, "POST", "auth_health", token=token)
    (used,) = (
        each.last_used_at
        for _, each in tokens.list_tokens(instance.storage, "acme")
        if each.name == "analyst"
    )
    assert used is not None


# Each call with the least that admits to it.
CALLS = [
    ("POST", "auth_health", "any"),
    ("GET", "dbt/v3/validate-credentials", "any"),
    ("GET", "dbt/v1/validate-permissions", "upload"),
    ("GET", "dbt/v1/project_integrations", "any"),
    ("GET", "dbt/v1/project_integrations/1/PROD", "any"),
    ("POST", "dbt/v1/project_integration", "admin"),
    ("GET", "dbt/v1/signed_url", "upload"),
    ("POST", "dbt/v1/start_dbt_ingestion", "upload"),
    ("GET", "dbt/v1/fetch_artifact_url", "read"),
    ("POST", "dbt/v1/project_integrations/1/PROD/restore", "upload"),
    ("POST", "dbt/v1/defer_to_prod_event", "any"),
]
PLACE = {"dbt_core_integration_id": 1, "dbt_core_integration_environment_type": "PROD"}
QUERY: dict[str, Any] = {**PLACE, "file_type": "manifest", "artifact_type": "manifest"}
BODY: dict[str, Any] = {**PLACE, "name": "new", "dbt_core_integration_file_id": 1}


@pytest.mark.parametrize(("method", "path", "least"), CALLS)
@pytest.mark.parametrize("scope", ["read", "upload", "admin"])
def test_a_scope_admits_to_its_own_calls_only(
    instance: RunningInstance, method: str, path: str, least: str, scope: str
) -> None:
    onboard(instance, make_integration(instance), manifest())
    answer = call(instance, method, path, token=instance.new_token(scope), params=QUERY, json=BODY)
    admitted = scope in (least, "admin") or least == "any"
    assert answer.status_code == (200 if admitted else 403), answer.text


def test_what_a_token_may_not_do_is_a_sentence(instance: RunningInstance) -> None:
    integration_id, token = make_integration(instance), instance.new_token("read", name="reader")
    permissions = call(instance, "GET", "dbt/v1/validate-permissions", token=token)
    assert permissions.json()["detail"] == "the token 'reader' may not upload here"
    made = call(instance, "POST", "dbt/v1/project_integration", token=token, json={"name": "new"})
    assert made.json()["detail"] == "the token 'reader' may not administer this instance"
    announced = announce(instance, integration_id, token=token)
    assert (
        announced.json()["detail"]
        == f"the token 'reader' may not upload to integration {integration_id}"
    )


def test_a_token_for_one_integration_sees_and_opens_only_that(instance: RunningInstance) -> None:
    mine, other = make_integration(instance, "mine"), make_integration(instance, "other")
    onboard(instance, other, manifest())
    token = instance.new_token("upload", "read", integration_id=mine)
    assert [
        each["id"]
        for each in call(instance, "GET", "dbt/v1/project_integrations", token=token).json()
    ] == [mine]
    onboard(instance, mine, manifest(), token=token)
    assert announce(instance, other, token=token).status_code == 403
    assert fetch(instance, other, token=token).status_code == 403
    assert (
        call(instance, "GET", f"dbt/v1/project_integrations/{other}/PROD", token=token).status_code
        == 404
    )


def test_a_token_of_one_instance_opens_nothing_of_another(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    file_id = upload(instance, integration_id, manifest())
    token = instance_services.create_instance(instance.storage, "rival")
    assert token is not None
    headers = {"Authorization": f"Bearer {token}", "x-tenant": "rival"}

    def status(method: str, path: str) -> int:
        return requests.request(
            method,
            f"{instance.url}/{path}",
            headers=headers,
            params=QUERY,
            json=BODY,
            timeout=SECONDS,
        ).status_code

    assert status("GET", "dbt/v1/fetch_artifact_url") == 404
    assert status("GET", "dbt/v1/signed_url") == 404
    assert status("POST", "dbt/v1/verify_upload") == 404
    assert (
        requests.get(
            f"{instance.url}/dbt/v1/project_integrations", headers=headers, timeout=SECONDS
        ).json()
        == []
    )
    assert verify(instance, file_id).status_code == 200


def test_an_upload_is_verified_only_by_the_token_that_announced_it(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance)
    file_id = upload(instance, integration_id, manifest(), token=instance.new_token("upload"))
    assert verify(instance, file_id).status_code == 403
    assert fetch(instance, integration_id).status_code == 404


@pytest.fixture
def url(instance: RunningInstance) -> str:
    return str(announce(instance, make_integration(instance)).json()["url"])


@pytest.mark.parametrize("change", ["signature=", "signature=a.b", "signature=" + "0" * 64])
def test_a_forged_signed_url_opens_nothing(url: str, change: str) -> None:
    put = requests.put(f"{url}&{change}", data=manifest(), timeout=SECONDS)
    name = change.partition("=")[0]
    replaced = url.replace(f"{name}={parse_qs(urlsplit(url).query)[name][0]}", change)
    forged = requests.put(replaced, data=manifest(), timeout=SECONDS)
    assert forged.status_code == 403
    assert put.status_code in (200, 403)


def test_a_signed_url_is_for_one_file_and_one_purpose(instance: RunningInstance, url: str) -> None:
    other = announce(instance, 1).json()["url"]
    swapped = other.replace("/files/2?", "/files/1?")
    assert requests.put(swapped, data=manifest(), timeout=SECONDS).status_code == 403
    assert requests.get(url, timeout=SECONDS).status_code == 403
    onboard(instance, 1, manifest())
    download = fetch(instance, 1).json()["url"]
    assert requests.put(download, data=manifest(), timeout=SECONDS).status_code == 403


def test_a_signed_url_of_a_file_that_is_verified_takes_nothing_more(
    instance: RunningInstance, url: str
) -> None:
    requests.put(url, data=manifest(), timeout=SECONDS)
    assert verify(instance, 1).status_code == 200
    assert requests.put(url, data=b"{}", timeout=SECONDS).status_code == 409
    assert requests.get(fetch(instance, 1).json()["url"], timeout=SECONDS).content == manifest()


def test_a_signed_url_ends(tmp_path: Path) -> None:
    with running_instance(
        tmp_path, settings=InstanceSettings(upload_seconds=-1, download_seconds=-1)
    ) as instance:
        integration_id = make_integration(instance)
        expired = announce(instance, integration_id).json()["url"]
        assert requests.put(expired, data=manifest(), timeout=SECONDS).status_code == 403


@pytest.mark.parametrize("purpose", Purpose)
def test_a_signature_is_for_one_purpose_one_file_and_one_key(
    instance: RunningInstance, purpose: Purpose
) -> None:
    integration_id = make_integration(instance)
    first = upload(instance, integration_id, manifest())
    second = onboard(instance, integration_id, manifest())
    file_id = first if purpose is Purpose.UPLOAD else second
    with instance.storage.database.read() as connection:
        owner = instances.get_instance(connection, 1)
    url = create_signed_url(owner, file_id, purpose, base_url="")
    signature = url.partition("signature=")[2]
    good = SignedUrl(file_id, purpose, 60, signature)
    assert open_signed_url(instance.storage, good)[1].id == file_id
    other_purpose = next(each for each in Purpose if each is not purpose)
    for bad in (
        replace(good, purpose=other_purpose),
        replace(good, upload_id=first + second - file_id),
        replace(good, upload_id=1000),
        replace(good, lifetime_s=-1),
        replace(good, signature=signature[:-1] + "_"),
        replace(good, signature=signature.partition(".")[2]),
        replace(good, signature=""),
    ):
        with pytest.raises(AccessDenied, match="signed URL is invalid or has expired"):
            open_signed_url(instance.storage, bad)
    rotate_signing_key(instance.storage, "acme", Actor("test"))
    with pytest.raises(AccessDenied):
        open_signed_url(instance.storage, good)
