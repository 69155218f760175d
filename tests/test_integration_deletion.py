"""Renaming, deletion, undeletion and final removal of integrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from datapilot_defer.storage import deleted_integrations
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.integrations import UNDELETE_PERIOD
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
from tests.support.instances import RunningInstance
from tests.support.sign_ins import cookie_of, open_page, sign_in

ROOT = "dbt/v1/project_integrations"


def delete(instance: RunningInstance, integration_id: int, **more: Any) -> requests.Response:
    return call(instance, "DELETE", f"{ROOT}/{integration_id}", **more)


def undelete(instance: RunningInstance, integration_id: int, **more: Any) -> requests.Response:
    return call(instance, "POST", f"{ROOT}/{integration_id}/undelete", **more)


def rename(
    instance: RunningInstance, integration_id: int, name: str, **more: Any
) -> requests.Response:
    return call(instance, "PATCH", f"{ROOT}/{integration_id}", json={"name": name}, **more)


def listed_names(instance: RunningInstance, token: str | None = None) -> list[str]:
    answer = call(instance, "GET", ROOT, token=token)
    return [integration["name"] for integration in answer.json()]


def change_database(instance: RunningInstance, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as connection, connection:
        connection.execute(statement, values)


def count_rows(instance: RunningInstance) -> dict[str, int]:
    tables = ("integration", "environment", "file", "publication", "token", "session")
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in tables
        }


def test_a_renamed_integration_keeps_its_id_and_its_artifacts(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    renamed = rename(instance, integration_id, " Store\u00a0EU ")
    assert renamed.status_code == 200
    assert (renamed.json()["id"], renamed.json()["name"]) == (integration_id, "Store EU")
    assert listed_names(instance) == ["Store EU"]
    assert pull(instance, integration_id) == manifest()
    assert make_integration(instance, "shop") != integration_id


def test_a_name_of_another_integration_is_a_conflict(instance: RunningInstance) -> None:
    first, second = make_integration(instance, "shop"), make_integration(instance, "other")
    rejected = rename(instance, second, "SHOP")
    assert rejected.status_code == 409
    assert rejected.json()["detail"] == f"integration {first} already has the name 'shop'"
    assert rename(instance, first, "Shop").json()["name"] == "Shop"
    assert rename(instance, first, "sh\u200bop").status_code == 422
    assert rename(instance, 99, "x").status_code == 404
    assert listed_names(instance) == ["other", "Shop"]


def test_a_deleted_integration_is_listed_only_on_request(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    make_integration(instance, "other")
    answer = delete(instance, integration_id)
    assert answer.status_code == 200
    body = answer.json()
    deleted_at, purge_at = (
        datetime.fromisoformat(body[name]) for name in ("deleted_at", "purge_at")
    )
    assert purge_at - deleted_at == UNDELETE_PERIOD == timedelta(days=30)
    assert (body["ok"], body["id"], body["name"]) == (True, integration_id, "shop")
    assert listed_names(instance) == ["other"]
    all_of_them = call(instance, "GET", ROOT, params={"include_deleted": "true"}).json()
    assert [(each["name"], each["is_deleted"], each["purge_at"]) for each in all_of_them] == [
        ("other", False, None),
        ("shop", True, body["purge_at"]),
    ]


def test_undeleting_restores_everything(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    file_id = onboard(instance, integration_id, manifest())
    token = instance.new_token("read", integration_id=integration_id)
    before = show(instance, integration_id)
    delete(instance, integration_id)
    answer = undelete(instance, integration_id)
    assert answer.status_code == 200
    assert answer.json()["is_deleted"] is False
    after = show(instance, integration_id)
    assert after["history"] == before["history"]
    assert after["history"][0]["dbt_core_integration_file_id"] == file_id
    assert fetch(instance, integration_id, token).status_code == 200
    assert undelete(instance, integration_id).status_code == 409
    assert undelete(instance, 99).status_code == 404


def test_the_name_of_a_deleted_integration_stays_reserved(instance: RunningInstance) -> None:
    integration_id = make_integration(instance, "shop")
    other = make_integration(instance, "other")
    delete(instance, integration_id)
    created = call(instance, "POST", "dbt/v1/project_integration", json={"name": "Shop"})
    for answer in (created, rename(instance, other, "SHOP")):
        assert answer.status_code == 409
        detail = answer.json()["detail"]
        assert f"reserved for the deleted integration {integration_id}." in detail
        assert f"{utc_now() + UNDELETE_PERIOD:%Y-%m-%d}" in detail
        assert f"datapilot dbt integrations undelete --integration-id {integration_id}" in detail
    assert listed_names(instance) == ["other"]


PLACE = {"dbt_core_integration_id": 1, "dbt_core_integration_environment_type": "PROD"}
QUERY: dict[str, Any] = {**PLACE, "file_type": "manifest", "artifact_type": "manifest"}
BODY: dict[str, Any] = {
    **PLACE,
    "name": "new",
    "disabled": ["older"],
    "dbt_core_integration_file_id": 1,
}
# Each call that names an integration or a file of one.
CALLS = [
    ("GET", f"{ROOT}/1/PROD"),
    ("PATCH", f"{ROOT}/1"),
    ("DELETE", f"{ROOT}/1"),
    ("POST", f"{ROOT}/1/PROD/restore"),
    ("POST", f"{ROOT}/1/PROD/checks"),
    ("GET", "dbt/v1/signed_url"),
    ("POST", "dbt/v1/verify_upload"),
    ("POST", "dbt/v1/accept_upload"),
    ("POST", "dbt/v1/start_dbt_ingestion"),
    ("GET", "dbt/v1/fetch_artifact_url"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_about_a_deleted_integration_is_not_found(
    instance: RunningInstance, method: str, path: str
) -> None:
    onboard(instance, make_integration(instance), manifest())
    bound = instance.new_token("upload", "read", integration_id=1)
    reader = instance.new_token("upload", "read")
    delete(instance, 1)
    for token in (instance.token, bound, reader):
        answer = call(instance, method, path, token=token, params=QUERY, json=BODY)
        # Without the scope admin, the response reports the missing scope first.
        assert answer.status_code == 404 or "may not administer" in answer.text, answer.text
    admin = call(instance, method, path, params=QUERY, json=BODY).json()["detail"]
    assert admin.startswith("integration 1 was deleted. ")
    assert f"until {utc_now() + UNDELETE_PERIOD:%Y-%m-%d}" in admin


def test_signed_urls_of_a_deleted_integration_are_not_found(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    upload_url = announce(instance, integration_id).json()["url"]
    download_url = fetch(instance, integration_id).json()["url"]
    unverified = upload(instance, integration_id, manifest("new"))
    delete(instance, integration_id)
    assert requests.put(upload_url, data=manifest(), timeout=SECONDS).status_code == 404
    assert requests.get(download_url, timeout=SECONDS).status_code == 404
    assert verify(instance, unverified).status_code == 404
    undelete(instance, integration_id)
    assert requests.get(download_url, timeout=SECONDS).content == manifest()
    assert verify(instance, unverified).status_code == 200


def test_a_token_of_a_deleted_integration_has_no_access(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    other = make_integration(instance, "other")
    onboard(instance, integration_id, manifest())
    token = instance.new_token("upload", "read", integration_id=integration_id)
    cookie = cookie_of(sign_in(instance, token))
    delete(instance, integration_id)
    assert listed_names(instance, token) == []
    assert fetch(instance, other, token).status_code == 403
    path = f"/settings/integrations/{integration_id}/PROD"
    assert open_page(instance, cookie, path).status_code == 404
    assert open_page(instance, cookie, f"{path}/files/1").status_code == 404


def test_no_token_is_created_for_a_deleted_integration(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    delete(instance, integration_id)
    with pytest.raises(Exception, match="has no integration"):
        instance.new_token("read", integration_id=integration_id)


@pytest.mark.parametrize("scope", ["read", "upload"])
def test_only_an_admin_changes_integrations(instance: RunningInstance, scope: str) -> None:
    make_integration(instance)
    delete(instance, make_integration(instance, "deleted"))
    for token in (instance.new_token(scope), instance.new_token(scope, integration_id=1)):
        assert rename(instance, 1, "x", token=token).status_code == 403
        assert delete(instance, 1, token=token).status_code == 403
        assert undelete(instance, 2, token=token).status_code == 403
        checks = call(instance, "POST", f"{ROOT}/1/PROD/checks", token=token, json={"disabled": []})
        assert checks.status_code == 403
        deleted = call(instance, "GET", ROOT, token=token, params={"include_deleted": "true"})
        assert deleted.status_code == 403


def test_an_integration_of_another_instance_cannot_be_changed(instance: RunningInstance) -> None:
    make_integration(instance)
    with instance.storage.database.write() as connection:
        connection.exec_driver_sql("UPDATE integration SET instance_id = 1")
        connection.exec_driver_sql(
            "INSERT INTO instance (id, name, signing_key, created_at) "
            "SELECT 2, 'rival', signing_key, created_at FROM instance"
        )
        connection.exec_driver_sql("UPDATE integration SET instance_id = 2")
    for answer in (
        rename(instance, 1, "x"),
        delete(instance, 1),
        undelete(instance, 1),
        call(instance, "POST", f"{ROOT}/1/PROD/checks", json={"disabled": []}),
    ):
        assert answer.status_code == 404
        assert answer.json()["detail"] == "instance 'acme' has no integration 1"


def test_checks_are_turned_off_per_environment(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    make_integration(instance, environment="STAGING")
    path = f"{ROOT}/{integration_id}/prod/checks"
    body = {"disabled": ["relations", "older", "older"]}
    answer = call(instance, "POST", path, json=body)
    assert answer.json() == {"ok": True, "disabled_checks": ["older", "relations"]}
    assert show(instance, integration_id)["disabled_checks"] == ["older", "relations"]
    assert show(instance, integration_id, "STAGING")["disabled_checks"] == []
    assert call(instance, "POST", path, json={"disabled": ["all"]}).status_code == 422
    answer = call(instance, "POST", path, json={"disabled": []})
    assert answer.json()["disabled_checks"] == []
    assert call(instance, "POST", path, json={}).status_code == 422


def test_after_thirty_days_nothing_can_be_restored(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    delete(instance, integration_id)
    past = datetime.now(UTC) - UNDELETE_PERIOD - timedelta(seconds=1)
    change_database(
        instance, "UPDATE integration SET deleted_at = ?", f"{past:%Y-%m-%d %H:%M:%S.%f}"
    )
    answer = undelete(instance, integration_id)
    assert answer.status_code == 404
    assert "can no longer be restored: this is possible for 30 days" in answer.json()["detail"]
    created = call(instance, "POST", "dbt/v1/project_integration", json={"name": "shop"})
    assert created.status_code == 409
    assert "will be removed soon" in created.json()["detail"]


def purge(instance: RunningInstance, before: datetime, *, limit: int = 2) -> int:
    """Remove what was deleted before a time and return the number of batches."""
    batches = 0
    with instance.storage.database.read() as connection:
        ids = deleted_integrations.list_purgeable(connection, before)
    for integration_id in ids:
        while True:
            batches += 1
            with instance.storage.database.write() as connection:
                if not deleted_integrations.purge_batch(
                    connection, integration_id, before, limit=limit
                ):
                    break
    return batches


def test_a_purge_removes_all_records_in_batches_and_frees_the_name(
    instance: RunningInstance,
) -> None:
    integration_id, kept = make_integration(instance), make_integration(instance, "kept")
    for hour in range(5):
        onboard(instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z"))
    onboard(instance, kept, manifest())
    bound = instance.new_token("read", "upload", integration_id=integration_id)
    sign_in(instance, bound)
    delete(instance, integration_id)
    assert purge(instance, utc_now() - UNDELETE_PERIOD) == 0
    assert count_rows(instance)["file"] == 6
    assert purge(instance, utc_now() + timedelta(seconds=1)) == 7
    assert count_rows(instance) == {
        "integration": 1,
        "environment": 1,
        "file": 1,
        "publication": 1,
        "token": 2,
        "session": 0,
    }
    assert undelete(instance, integration_id).status_code == 404
    assert pull(instance, kept) == manifest()
    assert make_integration(instance, "shop") not in (integration_id, kept)


def test_the_id_of_a_removed_integration_is_not_used_again(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    delete(instance, integration_id)
    late = utc_now() + timedelta(seconds=1)
    past = datetime.now(UTC) - UNDELETE_PERIOD - timedelta(seconds=1)
    change_database(
        instance, "UPDATE integration SET deleted_at = ?", f"{past:%Y-%m-%d %H:%M:%S.%f}"
    )
    for _ in range(2):
        purge(instance, late)
    assert count_rows(instance)["integration"] == 1
    assert call(instance, "GET", ROOT, params={"include_deleted": "true"}).json() == []
    next_id = make_integration(instance, "shop")
    assert next_id == integration_id + 1
    purge(instance, late)
    assert count_rows(instance)["integration"] == 1
    assert fetch(instance, integration_id).status_code == 404


def test_a_purge_never_widens_the_tokens_of_an_integration(instance: RunningInstance) -> None:
    integration_id, kept = make_integration(instance), make_integration(instance, "kept")
    onboard(instance, kept, manifest())
    bound = instance.new_token("read", "upload", integration_id=integration_id)
    delete(instance, integration_id)
    purge(instance, utc_now() + timedelta(seconds=1))
    assert fetch(instance, kept, bound).status_code == 401


def test_an_integration_with_removed_records_cannot_be_restored(
    instance: RunningInstance,
) -> None:
    """This also holds if the clock is set back during the purge."""
    integration_id = make_integration(instance)
    for hour in range(3):
        onboard(instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z"))
    delete(instance, integration_id)
    late = utc_now() + timedelta(days=31)
    with instance.storage.database.write() as connection:
        assert deleted_integrations.purge_batch(connection, integration_id, late, limit=1)
    assert undelete(instance, integration_id).status_code == 404
    fetched = fetch(instance, integration_id)
    assert fetched.status_code == 404
    assert "can no longer be restored" in fetched.json()["detail"]
    assert purge(instance, utc_now() - UNDELETE_PERIOD, limit=1) > 1
    assert count_rows(instance)["file"] == 0


def test_a_purge_leaves_an_integration_that_was_undeleted_in_the_meantime(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    delete(instance, integration_id)
    before = utc_now() + timedelta(seconds=1)
    undelete(instance, integration_id)
    with instance.storage.database.write() as connection:
        assert not deleted_integrations.purge_batch(connection, integration_id, before, limit=9)
    assert pull(instance, integration_id) == manifest()
