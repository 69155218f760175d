"""Responses for rejected uploads, and the audit of skipped checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.audit import AuditAction, AuditEvent, list_events
from tests.support.commands import access, datapilot
from tests.support.instance_calls import (
    call,
    catalog,
    fetch,
    make_integration,
    manifest,
    onboard,
    show,
    start_ingestion,
    upload,
    verify,
)
from tests.support.instances import RunningInstance

CURRENT = manifest("a", "b", "c", "d", at="2026-11-22T10:00:00Z")
NEWER = manifest("a", "b", "c", "d", at="2026-11-22T11:00:00Z")
# This manifest fails every check. Its model belongs to a package, so that its relation is compared
# too.
WRONG = manifest("a", at="2026-11-21T10:00:00Z", schema="dev").replace(
    b'"project_name": "shop"', b'"project_name": "other"'
)
ALL_CHECKS = ["project", "older", "smaller", "relations"]
REASONS = ("project 'shop'", "before the current one", "1 model, less than half", "1 of 1 relation")


@pytest.fixture
def integration_id(instance: RunningInstance) -> int:
    new_id = make_integration(instance)
    onboard(instance, new_id, CURRENT)
    return new_id


def events_of(instance: RunningInstance, action: AuditAction) -> list[AuditEvent]:
    with instance.storage.database.read() as connection:
        events = list_events(connection, 1, limit=100)
    return [event for event in events if event.action is action]


def restore(
    instance: RunningInstance, integration_id: int, file_id: int, token: str | None = None
) -> requests.Response:
    path = f"dbt/v1/project_integrations/{integration_id}/PROD/restore"
    body = {"dbt_core_integration_file_id": file_id}
    return call(instance, "POST", path, token=token, json=body)


def test_a_rejection_names_every_failed_check_so_that_one_retry_is_enough(
    instance: RunningInstance, integration_id: int
) -> None:
    file_id = upload(instance, integration_id, WRONG)
    answer = verify(instance, file_id)
    assert answer.status_code == 409
    detail = answer.json()["detail"]
    assert all(reason in detail for reason in REASONS)
    assert "--allow project --allow older --allow smaller --allow relations" in detail
    assert "From then on, the integration accepts only the project 'other'." in detail
    assert answer.json()["check"] == ALL_CHECKS
    assert answer.json()["dbt_core_integration_file_id"] == file_id
    assert answer.json()["message"] == detail
    assert detail in start_ingestion(instance, integration_id).json()["detail"]
    assert verify(instance, file_id, allow=ALL_CHECKS).status_code == 200


def test_an_allowed_check_that_failed_is_part_of_the_advice(
    instance: RunningInstance, integration_id: int
) -> None:
    answer = verify(instance, upload(instance, integration_id, WRONG), allow=["older", "relations"])
    assert answer.json()["check"] == ["project", "smaller"]
    assert REASONS[1] not in answer.json()["detail"]
    assert "--allow project --allow older --allow smaller" in answer.json()["detail"]


def test_every_failed_check_is_stored_and_audited(
    instance: RunningInstance, integration_id: int
) -> None:
    file_id = upload(instance, integration_id, WRONG)
    verify(instance, file_id)
    path = f"dbt/v1/project_integrations/{integration_id}/PROD"
    listed = call(instance, "GET", path, params={"include_rejected": "true"}).json()["history"][0]
    assert listed["rejection"] == "project, older, smaller, relations"
    body = {"dbt_core_integration_file_id": file_id}
    assert call(instance, "POST", "dbt/v1/accept_upload", json=body).status_code == 200
    (event,) = events_of(instance, AuditAction.UPLOAD_ACCEPTED)
    assert event.detail == f"project, older, smaller, relations: manifest.json {file_id}"


def test_a_check_of_a_newer_release_cannot_be_accepted(
    instance: RunningInstance, integration_id: int
) -> None:
    file_id = upload(instance, integration_id, WRONG)
    with instance.storage.database.write() as connection:
        newer: Any = ["older", "unknown"]
        upload_records.mark_rejected(connection, file_id, newer, "it is wrong")
    body = {"dbt_core_integration_file_id": file_id}
    answer = call(instance, "POST", "dbt/v1/accept_upload", json=body)
    assert answer.status_code == 409
    assert "cannot be accepted: it is wrong" in answer.json()["detail"]


@pytest.mark.parametrize(("allow", "count"), [([], 1), (["relations"], 0)])
def test_a_comparison_that_was_not_possible_is_audited(
    instance: RunningInstance, integration_id: int, allow: list[str], count: int
) -> None:
    (blob,) = [path for path in (instance.data / "blobs").rglob("*") if path.is_file()]
    blob.write_bytes(b"damaged")
    file_id = upload(instance, integration_id, NEWER)
    assert verify(instance, file_id, allow=allow).status_code == 200
    events = events_of(instance, AuditAction.CHECK_SKIPPED)
    assert len(events) == count
    for event in events:
        file = f"relations: manifest.json {file_id} in PROD"
        assert event.detail == f"{file}: the comparison with the current manifest failed"
        assert event.integration_id == integration_id


def test_restoring_the_current_upload_adds_no_row(
    instance: RunningInstance, integration_id: int
) -> None:
    before = show(instance, integration_id)
    (current,) = before["history"]
    for _ in range(3):
        file_id = current["dbt_core_integration_file_id"]
        assert restore(instance, integration_id, file_id).status_code == 200
    assert show(instance, integration_id)["publications"] == before["publications"]
    assert events_of(instance, AuditAction.ARTIFACT_RESTORED) == []


def test_a_rejected_upload_cannot_be_pulled_or_restored_and_the_reason_is_reported(
    instance: RunningInstance, integration_id: int
) -> None:
    wrong = upload(instance, integration_id, WRONG)
    invalid = upload(instance, integration_id, CURRENT[:-5])
    for file_id, reason in ((wrong, REASONS[0]), (invalid, "manifest.json::")):
        verify(instance, file_id)
        pulled = fetch(instance, integration_id, dbt_core_integration_file_id=file_id)
        restored = restore(instance, integration_id, file_id)
        for answer in (pulled, restored):
            assert answer.status_code == 409
            detail = answer.json()["detail"]
            assert f"file {file_id} was rejected" in detail
            assert reason in detail
            advice = f"`datapilot dbt integrations accept {file_id}`"
            assert (advice in detail) is (file_id == wrong)
    words = ("--integration-id", integration_id, "--file-id", wrong)
    done = datapilot("dbt", "pull", *words, env=access(instance))
    assert done.exit_code == 2
    assert f"file {wrong} was rejected" in done.stderr


def test_only_a_token_with_the_scope_read_gets_the_reason_for_a_rejection(
    instance: RunningInstance, integration_id: int
) -> None:
    file_id = upload(instance, integration_id, WRONG)
    verify(instance, file_id)
    uploader = instance.new_token("upload")
    answer = restore(instance, integration_id, file_id, uploader)
    assert answer.status_code == 404
    assert "rejected" not in answer.text
    other = make_integration(instance, "other")
    stranger = instance.new_token("read", integration_id=other)
    answer = fetch(instance, other, stranger, dbt_core_integration_file_id=file_id)
    assert answer.status_code == 404
    assert "rejected" not in answer.text


def test_the_json_of_a_rejected_onboarding_has_the_checks_and_the_file_id(
    instance: RunningInstance, integration_id: int, tmp_path: Path
) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(WRONG)
    words = ("--integration-id", integration_id, "--manifest-path", path)
    done = datapilot("dbt", "onboard", *words, "--json", env=access(instance))
    assert done.exit_code == 1
    error = done.json["error"]
    assert (error["kind"], error["check"]) == ("artifact_refused", ALL_CHECKS)
    assert isinstance(error["file_id"], int)
    assert all(reason in error["message"] for reason in REASONS)
    assert "--allow relations" in error["message"]
    options = [word for check in error["check"] for word in ("--allow", check)]
    allowed = datapilot("dbt", "onboard", *words, *options, env=access(instance))
    assert allowed.exit_code == 0, allowed.output


def test_a_rejection_without_a_failed_check_names_none(
    instance: RunningInstance, integration_id: int
) -> None:
    answer = verify(instance, upload(instance, integration_id, catalog()[:-1], kind="catalog"))
    assert answer.status_code == 422
    assert answer.json()["check"] == []
