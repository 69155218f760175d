"""The page of an upload, and the pages that restore and accept one."""

from __future__ import annotations

import pytest

from tests.support.instance_calls import (
    fetch,
    make_integration,
    manifest,
    onboard,
    upload,
    verify,
)
from tests.support.instances import RunningInstance
from tests.support.visits import INTEGRATIONS, Visit, text_of

EARLY = "2026-11-22T10:00:00Z"
LATE = "2026-11-22T11:00:00Z"


@pytest.fixture
def admin(instance: RunningInstance) -> Visit:
    return Visit(instance, instance.token)


@pytest.fixture
def path(instance: RunningInstance) -> str:
    return f"{INTEGRATIONS}/{make_integration(instance)}/PROD"


def current_id(instance: RunningInstance) -> int:
    return int(fetch(instance, 1).json()["dbt_core_integration_file_id"])


def test_an_upload_is_shown_with_its_facts_and_changed_models(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    onboard(instance, 1, manifest("a", "b", at=EARLY))
    file_id = upload(instance, 1, manifest("b", "c", at=LATE))
    build_url = "https://ci.example.com/builds/7?a=1&b=2"
    answer = verify(instance, file_id, commit="0123456789abcdef", build_url=build_url)
    assert answer.status_code == 200
    page = admin.get(f"{path}/uploads/{file_id}")
    text = text_of(page)
    for fact in ("0123456789abcdef", build_url, "1.11.16", "2026-11-22 11:00 UTC", "current"):
        assert fact in text
    assert "1 added shop.c" in text
    assert "1 removed shop.a" in text
    assert "changed" not in text.partition("1 removed")[2]


def test_a_rejected_upload_is_shown_with_its_reason(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    onboard(instance, 1, manifest())
    rejected = upload(instance, 1, manifest(project="other"))
    assert verify(instance, rejected).status_code == 409
    text = text_of(admin.get(f"{path}/uploads/{rejected}"))
    assert "Rejected: project" in text
    assert "belongs to the dbt project" in text
    assert "Accept" in text
    assert "Download" not in text


def test_an_upload_is_found_only_in_its_environment(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    make_integration(instance, environment="STAGING")
    file_id = onboard(instance, 1, manifest())
    unfinished = upload(instance, 1, manifest())
    assert admin.get(f"{path}/uploads/{file_id}").status_code == 200
    assert admin.get(f"{INTEGRATIONS}/1/STAGING/uploads/{file_id}").status_code == 404
    assert admin.get(f"{path}/uploads/{unfinished}").status_code == 404
    other = make_integration(instance, "other")
    visit = Visit(instance, instance.new_token("read", integration_id=other))
    assert visit.get(f"{path}/uploads/{file_id}").status_code == 404


def test_a_restore_is_confirmed_reported_and_recorded(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    first = onboard(instance, 1, manifest("a", at=EARLY))
    second = onboard(instance, 1, manifest("a", "b", at=LATE))
    restore = f"{path}/uploads/{first}/restore"
    assert f'href="{restore}"' in admin.get(path).text
    confirmation = admin.get(restore)
    assert "Restore manifest.json?" in text_of(confirmation)
    assert f"Current: upload {second} New: upload {first}" in text_of(confirmation)
    assert current_id(instance) == second

    done = admin.send(restore)
    assert done.url == f"{instance.url}{path}?done=restored"
    assert "The earlier upload was restored" in text_of(done)
    assert f"manifest.json: upload {first} restored by first" in text_of(done)
    assert current_id(instance) == first
    assert admin.get(restore).status_code == 409


def test_a_rejected_upload_is_accepted_after_a_confirmation(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    first = onboard(instance, 1, manifest("a", at=LATE))
    rejected = upload(instance, 1, manifest("a", at=EARLY))
    assert verify(instance, rejected).status_code == 409
    accept = f"{path}/uploads/{rejected}/accept"
    assert f'href="{accept}"' in admin.get(path).text
    assert "The upload check older rejected" in text_of(admin.get(accept))
    assert current_id(instance) == first
    assert admin.get(f"{path}/uploads/{rejected}/restore").status_code == 409

    done = admin.send(accept)
    assert "The upload was accepted" in text_of(done)
    assert "accepted by first" in text_of(done)
    assert current_id(instance) == rejected
    assert admin.get(accept).status_code == 409
    assert admin.send(accept).status_code == 409


def test_an_invalid_upload_cannot_be_accepted(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    invalid = upload(instance, 1, b'{"metadata": {')
    assert verify(instance, invalid).status_code == 422
    accept = f"{path}/uploads/{invalid}/accept"
    assert "/accept" not in admin.get(path).text
    assert admin.get(accept).status_code == 409
    answer = admin.send(accept)
    assert answer.status_code == 409
    assert "/sign-out" in answer.text


def test_only_an_admin_accepts(instance: RunningInstance, path: str) -> None:
    onboard(instance, 1, manifest("a", at=LATE))
    rejected = upload(instance, 1, manifest("a", at=EARLY))
    verify(instance, rejected)
    uploader = Visit(instance, instance.new_token("read", "upload"))
    assert "/accept" not in uploader.get(path).text
    accept = f"{path}/uploads/{rejected}/accept"
    assert uploader.get(accept).status_code == 403
    assert uploader.send(accept).status_code == 403


def test_confirmations_of_another_site_do_nothing(
    instance: RunningInstance, admin: Visit, path: str
) -> None:
    first = onboard(instance, 1, manifest("a", at=EARLY))
    second = onboard(instance, 1, manifest("a", "b", at=LATE))
    for csrf in ("", "0" * 64):
        answer = admin.send(f"{path}/uploads/{first}/restore", csrf=csrf)
        assert answer.status_code in (403, 422)
    assert current_id(instance) == second
