"""Checks that prevent a misconfigured job from breaking defer."""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.services import overviews
from datapilot_defer.storage import uploads
from datapilot_defer.storage.audit import AuditAction, AuditEvent, list_events
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.integrations import UploadCheck
from datapilot_defer.storage.tables import environments, files
from tests.support.environments import require_program
from tests.support.instance_calls import (
    call,
    catalog,
    fetch,
    make_integration,
    manifest,
    onboard,
    pull,
    show,
    start_ingestion,
    upload,
    verify,
)
from tests.support.instances import RunningInstance

CURRENT = manifest("a", "b", "c", "d", at="2026-11-22T10:00:00Z")
# Manifests that a check rejects: the check, a part of the message, and the manifest.
REJECTED = {
    "project": (
        "belongs to the dbt project 'shop'",
        manifest("a", "b", "c", "d", project="other", at="2026-11-22T11:00:00Z"),
    ),
    "older": ("before the current one", manifest("a", "b", "c", "d", at="2026-11-22T09:59:59Z")),
    "smaller": ("1 model, less than half", manifest("a", at="2026-11-22T11:00:00Z")),
    "relations": (
        'from "warehouse"."prod" to "dev"."main"',
        manifest(*("a", "b", "c", "d"), at="2026-11-22T11:00:00Z", database="dev", schema="main"),
    ),
}
each_check = pytest.mark.parametrize("check", REJECTED)


@pytest.fixture
def integration_id(instance: RunningInstance) -> int:
    new_id = make_integration(instance)
    onboard(instance, new_id, CURRENT)
    return new_id


@each_check
def test_a_manifest_that_would_break_defer_is_rejected_and_the_current_one_stays(
    instance: RunningInstance, integration_id: int, check: str
) -> None:
    reason, content = REJECTED[check]
    answer = verify(instance, upload(instance, integration_id, content))
    assert answer.status_code == 409
    assert reason in answer.json()["detail"]
    assert f"--allow {check}" in answer.json()["detail"]
    assert fetch(instance, integration_id).json()["sha256"] == hashlib.sha256(CURRENT).hexdigest()


@each_check
def test_allow_skips_one_check_and_force_skips_all(
    instance: RunningInstance, integration_id: int, check: str
) -> None:
    file_id = upload(instance, integration_id, REJECTED[check][1])
    others = sorted({*REJECTED} - {check})
    assert verify(instance, file_id, allow=others).status_code == 409
    assert verify(instance, file_id, allow=[check]).status_code == 200
    assert fetch(instance, integration_id).json()["dbt_core_integration_file_id"] == file_id
    everything_wrong = manifest("x", project="p", at="2026-11-20T00:00:00Z", schema="dev")
    assert verify(instance, upload(instance, integration_id, everything_wrong)).status_code == 409
    file_id = upload(instance, integration_id, everything_wrong)
    assert verify(instance, file_id, force=True).status_code == 200


@each_check
def test_a_skipped_check_is_audited(
    instance: RunningInstance, integration_id: int, check: str
) -> None:
    file_id = upload(instance, integration_id, REJECTED[check][1])
    assert verify(instance, file_id, force=True).status_code == 200
    (event,) = forced_uploads(instance)
    assert event.detail == f"{check}: manifest.json {file_id} in PROD"
    assert event.integration_id == integration_id


def test_force_is_not_audited_if_all_checks_pass(
    instance: RunningInstance, integration_id: int
) -> None:
    newer = manifest("a", "b", "c", "d", at="2026-11-22T11:00:00Z")
    assert verify(instance, upload(instance, integration_id, newer), force=True).status_code == 200
    assert forced_uploads(instance) == []


def forced_uploads(instance: RunningInstance) -> list[AuditEvent]:
    with instance.storage.database.read() as connection:
        events = list_events(connection, 1, limit=100)
    return [event for event in events if event.action is AuditAction.UPLOAD_FORCED]


def test_an_unknown_check_is_not_allowed(instance: RunningInstance, integration_id: int) -> None:
    answer = verify(instance, upload(instance, integration_id, CURRENT), allow=["future"])
    assert answer.status_code == 422


@each_check
def test_an_admin_accepts_a_rejected_upload(
    instance: RunningInstance, integration_id: int, check: str
) -> None:
    token = instance.new_token("read", "upload")
    file_id = upload(instance, integration_id, REJECTED[check][1], token=token)
    assert verify(instance, file_id, token).status_code == 409
    assert accept(instance, file_id, token).status_code == 403
    answer = accept(instance, file_id)
    assert answer.status_code == 200
    assert answer.json()["environment"] == "PROD"
    assert pull(instance, integration_id) == REJECTED[check][1]
    newest = show(instance, integration_id)["publications"][0]
    assert (newest["reason"], newest["token_name"]) == ("accept", "first")
    assert accept(instance, file_id).status_code == 409


def test_an_accepted_upload_of_another_project_changes_the_project(
    instance: RunningInstance, integration_id: int
) -> None:
    file_id = upload(instance, integration_id, REJECTED["project"][1])
    assert verify(instance, file_id).status_code == 409
    assert accept(instance, file_id).status_code == 200
    assert show(instance, integration_id)["project_name"] == "other"


def test_only_what_a_check_rejected_can_be_accepted(
    instance: RunningInstance, integration_id: int
) -> None:
    unverified = upload(instance, integration_id, CURRENT)
    assert accept(instance, unverified).status_code == 409
    invalid = upload(instance, integration_id, CURRENT[:-5])
    assert verify(instance, invalid).status_code == 422
    answer = accept(instance, invalid)
    assert answer.status_code == 409
    assert "cannot be accepted" in answer.json()["detail"]
    future = upload(instance, integration_id, manifest(at="2099-01-01T00:00:00Z"))
    assert verify(instance, future, force=True).status_code == 422
    assert accept(instance, future).status_code == 409
    assert accept(instance, 1000).status_code == 404
    assert pull(instance, integration_id) == CURRENT


def accept(instance: RunningInstance, file_id: int, token: str | None = None) -> requests.Response:
    body = {"dbt_core_integration_file_id": file_id}
    return call(instance, "POST", "dbt/v1/accept_upload", token=token, json=body)


@pytest.mark.parametrize("minutes", [-60, 0, 9])
def test_clocks_may_differ_by_minutes(
    instance: RunningInstance, integration_id: int, minutes: int
) -> None:
    at = utc_now() + timedelta(minutes=minutes)
    onboard(instance, integration_id, manifest("a", "b", "c", at=at.isoformat()))


def test_a_manifest_from_the_future_is_rejected_and_blocks_no_other(
    instance: RunningInstance, integration_id: int
) -> None:
    future = upload(instance, integration_id, manifest("a", "b", "c", at="2099-01-01T00:00:00Z"))
    for force in (False, True):
        answer = verify(instance, future, force=force)
        assert answer.status_code == 422
        assert "2099-01-01 00:00:00 UTC" in answer.json()["detail"]
        assert f"{utc_now():%Y-%m-%d}" in answer.json()["detail"]
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T11:00:00Z"))


def test_a_current_manifest_from_the_future_blocks_no_other(
    instance: RunningInstance, integration_id: int
) -> None:
    with instance.storage.database.write() as connection:
        statement = files.update().values(generated_at=datetime(2099, 1, 1, tzinfo=UTC))
        connection.execute(statement)
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T11:00:00Z"))


@pytest.mark.parametrize("project_name", [None, 5, "", "missing"])
def test_a_manifest_that_does_not_name_its_project_is_rejected(
    instance: RunningInstance, integration_id: int, project_name: object
) -> None:
    content = json.loads(manifest("a", "b", "c", "d", at="2026-11-22T11:00:00Z"))
    content["metadata"]["project_name"] = project_name
    if project_name == "missing":
        del content["metadata"]["project_name"]
    file_id = upload(instance, integration_id, json.dumps(content).encode())
    assert verify(instance, file_id).status_code == 422
    assert verify(instance, file_id, force=True).status_code == 422


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"nodes": {', b'"nodes": null, "unused": {'),
        (b'"nodes": {', b'"unused": {'),
        (b'"metadata": {', b'"unused": {'),
        (b'"project_id"', b'"number": ' + b"1" * 5000 + b', "project_id"'),
        (b'"metadata": {', b'"metadata": {"long": "' + b"x" * 70_000 + b'", '),
    ],
    ids=["null nodes", "no nodes", "no metadata", "5,000 digits", "70 kB of metadata"],
)
def test_an_invalid_manifest_does_not_become_current(
    instance: RunningInstance, integration_id: int, old: bytes, new: bytes
) -> None:
    content = manifest("a", "b", "c", "d", at="2026-11-22T11:00:00Z").replace(old, new, 1)
    file_id = upload(instance, integration_id, content)
    for more in ({}, {"force": True}, {"allow": ["project"]}):
        answer = verify(instance, file_id, **more)
        assert answer.status_code == 422
        assert "manifest.json::" in answer.json()["detail"]
    assert pull(instance, integration_id) == CURRENT


def test_a_minority_of_relations_may_move(instance: RunningInstance, integration_id: int) -> None:
    content = json.loads(manifest("a", "b", "c", "d", at="2026-11-22T11:00:00Z"))
    for name in ("a", "b"):
        content["nodes"][f"model.shop.{name}"]["schema"] = "finance"
    onboard(instance, integration_id, json.dumps(content).encode())
    content["metadata"]["generated_at"] = "2026-11-22T12:00:00Z"
    for name in ("a", "b", "c", "d"):
        content["nodes"][f"model.shop.{name}"]["database"] = "WAREHOUSE"
    onboard(instance, integration_id, json.dumps(content).encode())


def test_ephemeral_models_have_no_relation(instance: RunningInstance, integration_id: int) -> None:
    content = json.loads(manifest("a", "b", "c", "d", at="2026-11-22T11:00:00Z", schema="dev"))
    for name in ("a", "b", "c"):
        content["nodes"][f"model.shop.{name}"]["config"] = {"materialized": "ephemeral"}
    content["nodes"]["model.shop.d"]["schema"] = "prod"
    onboard(instance, integration_id, json.dumps(content).encode())


def test_an_environment_may_disable_a_check(instance: RunningInstance, integration_id: int) -> None:
    with instance.storage.database.write() as connection:
        connection.execute(environments.update().values(disabled_checks="relations,unknown"))
    assert show(instance, integration_id)["disabled_checks"] == ["relations"]
    onboard(instance, integration_id, REJECTED["relations"][1])
    older = manifest("a", "b", "c", "d", at="2026-11-21T10:00:00Z", schema="run_2")
    assert verify(instance, upload(instance, integration_id, older)).status_code == 409


def test_after_force_the_integration_belongs_to_the_other_project(
    instance: RunningInstance, integration_id: int
) -> None:
    other = manifest("a", "b", project="other", at="2026-11-22T11:00:00Z")
    assert verify(instance, upload(instance, integration_id, other), force=True).status_code == 200
    assert show(instance, integration_id)["project_name"] == "other"
    onboard(
        instance, integration_id, manifest("a", "b", project="other", at="2026-11-22T12:00:00Z")
    )


def test_half_of_the_models_and_the_same_time_pass_the_checks(
    instance: RunningInstance, integration_id: int
) -> None:
    onboard(instance, integration_id, manifest("a", "b", at="2026-11-22T10:00:00Z"))


def test_a_project_that_old_manifests_name_by_its_md5_is_the_same_project(
    instance: RunningInstance,
) -> None:
    old = json.loads(manifest(at="2026-11-22T10:00:00Z"))
    del old["metadata"]["project_name"]
    old["metadata"]["dbt_schema_version"] = "https://schemas.getdbt.com/dbt/manifest/v9.json"
    integration_id = make_integration(instance, "old")
    onboard(instance, integration_id, json.dumps(old).encode())
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    onboard(instance, integration_id, json.dumps(old).replace("10:00", "12:00").encode())


def test_other_kinds_are_not_compared(instance: RunningInstance, integration_id: int) -> None:
    for at in ("2026-11-22T10:00:00Z", "2026-11-21T10:00:00Z"):
        onboard(instance, integration_id, catalog(at), kind="catalog")


def test_starting_the_ingestion_reports_a_rejection_that_the_client_ignored(
    instance: RunningInstance, integration_id: int
) -> None:
    verify(instance, upload(instance, integration_id, manifest("a", at="2026-11-22T11:00:00Z")))
    answer = start_ingestion(instance, integration_id)
    assert answer.status_code == 409
    assert "the last manifest was rejected" in answer.json()["detail"]
    assert "ok" not in answer.json()


def test_a_rejected_upload_of_another_token_does_not_stop_an_ingestion(
    instance: RunningInstance, integration_id: int
) -> None:
    token = instance.new_token("upload")
    file_id = upload(
        instance, integration_id, manifest("a", at="2026-11-22T11:00:00Z"), token=token
    )
    assert verify(instance, file_id, token).status_code == 409
    assert start_ingestion(instance, integration_id).status_code == 200


def test_starting_the_ingestion_reports_an_incomplete_manifest(
    instance: RunningInstance, integration_id: int
) -> None:
    assert verify(instance, upload(instance, integration_id, CURRENT[:-5])).status_code == 422
    onboard(instance, integration_id, catalog(), kind="catalog")
    assert (
        "the last manifest was rejected"
        in start_ingestion(instance, integration_id).json()["detail"]
    )
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T12:00:00Z"))
    assert start_ingestion(instance, integration_id).status_code == 200


def test_a_rejected_catalog_is_not_reported_to_later_onboardings(
    instance: RunningInstance, integration_id: int
) -> None:
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T11:00:00Z"))
    assert (
        verify(instance, upload(instance, integration_id, b"{}", kind="catalog")).status_code == 422
    )
    assert (
        "the last catalog was rejected"
        in start_ingestion(instance, integration_id).json()["detail"]
    )
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T12:00:00Z"))
    assert start_ingestion(instance, integration_id).status_code == 200


def test_rejected_uploads_do_not_displace_verified_ones_in_the_history(
    instance: RunningInstance, integration_id: int
) -> None:
    with instance.storage.database.write() as connection:
        for _ in range(overviews.HISTORY_LIMIT + 1):
            file_id = uploads.create_upload(
                connection, environment_id=1, token_id=1, kind=Kind.MANIFEST
            )
            uploads.mark_rejected(connection, file_id, [UploadCheck.OLDER], "it is older")
    (shown,) = show(instance, integration_id)["history"]
    assert shown["current"]


@pytest.mark.peer
def test_altimate_datapilot_cli_does_not_report_a_rejected_manifest_as_ingested(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    integration_id = make_integration(instance, "another project's")
    onboard(instance, integration_id, manifest(project="another"))
    words = [
        "dbt",
        "onboard",
        "--token",
        instance.token,
        "--instance-name",
        "acme",
        "--backend-url",
        instance.url,
    ]
    where = [
        "--dbt_core_integration_id",
        str(integration_id),
        "--dbt_core_integration_environment",
        "PROD",
    ]
    done = subprocess.run(
        [
            require_program("altimate", "datapilot"),
            *words,
            *where,
            "--manifest-path",
            artifacts / "manifest.json",
        ],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert "Error starting dbt ingestion worker" in done.stdout
    assert "Ingestion has started" not in done.stdout
    assert show(instance, integration_id)["project_name"] == "another"
