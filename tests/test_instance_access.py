"""Access control: tokens, scopes, instance names and signed URLs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from datapilot_defer.instance.services import token_format, tokens
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
from tests.support.instances import RunningInstance, create_instance


def test_a_token_can_be_recognized_and_a_mistyped_one_is_not_well_formed() -> None:
    token = token_format.generate_token()
    assert token_format.is_well_formed(token)
    assert token.startswith("dpd_")
    other = "B" if token[10] == "A" else "A"
    assert not token_format.is_well_formed(token[:10] + other + token[11:])
    assert not token_format.is_well_formed("dpd_")


def test_no_token_is_stored_in_the_data_directory(instance: RunningInstance) -> None:
    token = instance.new_token("read")
    assert call(instance, "POST", "auth_health", token=token).status_code == 200
    for path in instance.data.rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()


@pytest.mark.parametrize("token", ["", "xyzzy", "dpd_" + "a" * 46, "dpd_\xe9"])
def test_an_invalid_token_is_rejected_without_being_repeated(
    instance: RunningInstance, token: str
) -> None:
    headers = {"Authorization": f"Bearer {token}".encode("latin-1"), "x-tenant": b"acme"}
    answer = requests.get(
        f"{instance.url}/dbt/v3/validate-credentials", headers=headers, timeout=SECONDS
    )
    assert answer.status_code == 401
    assert not token or token not in answer.json()["detail"]


def test_a_request_without_any_header_is_rejected(instance: RunningInstance) -> None:
    assert requests.post(f"{instance.url}/auth_health", timeout=SECONDS).status_code == 401


def test_the_instance_name_must_match_the_token(instance: RunningInstance) -> None:
    headers = {**instance.headers, "x-tenant": "other"}
    answer = requests.get(
        f"{instance.url}/dbt/v3/validate-credentials", headers=headers, timeout=SECONDS
    )
    wrong = call(instance, "GET", "dbt/v3/validate-credentials", token="dpd_wrong")
    assert answer.status_code == wrong.status_code == 401
    assert answer.json() == wrong.json()


def test_revoked_and_expired_tokens_get_401(instance: RunningInstance) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = instance.new_token("admin", expires_at=past)
    revoked = instance.new_token("admin", name="to revoke")
    assert call(instance, "POST", "auth_health", token=revoked).status_code == 200
    (token_id,) = (
        each.id
        for _, each in tokens.list_tokens(instance.storage, "acme")
        if each.name == "to revoke"
    )
    tokens.revoke_token(instance.storage, token_id, actor=Actor("tests"))
    for token in (expired, revoked):
        assert call(instance, "POST", "auth_health", token=token).status_code == 401


# Each call with the scope that it requires.
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
def test_a_scope_permits_only_its_own_calls(
    instance: RunningInstance, method: str, path: str, least: str, scope: str
) -> None:
    onboard(instance, make_integration(instance), manifest())
    answer = call(instance, method, path, token=instance.new_token(scope), params=QUERY, json=BODY)
    admitted = scope in (least, "admin") or least == "any"
    assert answer.status_code == (200 if admitted else 403), answer.text


def test_a_missing_scope_is_described_in_a_sentence(instance: RunningInstance) -> None:
    integration_id, token = make_integration(instance), instance.new_token("read", name="reader")
    permissions = call(instance, "GET", "dbt/v1/validate-permissions", token=token)
    assert permissions.json()["detail"] == "the token 'reader' may not upload here"
    created = call(
        instance, "POST", "dbt/v1/project_integration", token=token, json={"name": "new"}
    )
    assert created.json()["detail"] == "the token 'reader' may not administer this instance"
    announced = announce(instance, integration_id, token=token)
    assert (
        announced.json()["detail"]
        == f"the token 'reader' may not upload to integration {integration_id}"
    )


def test_a_token_for_one_integration_has_access_only_to_it(instance: RunningInstance) -> None:
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


def test_a_token_has_no_access_to_another_instance(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    file_id = upload(instance, integration_id, manifest())
    token = create_instance(instance.storage, "rival")
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
