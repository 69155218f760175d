"""Verification of uploads by a running instance, before they become current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datapilot_defer.instance.verification import Verification
from datapilot_defer.instance.worker import VerificationWorker
from datapilot_defer.storage import publications, uploads
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.publications import PublicationReason
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


@pytest.fixture
def integration_id(instance: RunningInstance) -> int:
    return make_integration(instance)


def test_a_manifest_that_dbt_wrote_is_accepted(
    instance: RunningInstance, integration_id: int, artifacts: Path
) -> None:
    file_id = onboard(instance, integration_id, (artifacts / "manifest.json").read_bytes())
    assert start_ingestion(instance, integration_id).json() == {"ok": True}
    description = show(instance, integration_id)
    (entry,) = description["sync_history"]
    assert entry["type"] == "Completed"
    page = f"{instance.url}/settings/integrations/{integration_id}/PROD/uploads/{file_id}"
    assert entry["log_file"] == page
    assert description["history"][0]["status"] == "accepted"
    assert description["history"][0]["model_count"] == 9


def test_a_manifest_with_problems_is_rejected_and_its_report_is_kept(
    instance: RunningInstance, integration_id: int, artifacts: Path
) -> None:
    broken = json.loads((artifacts / "manifest.json").read_bytes())
    name = next(name for name in broken["nodes"] if name.startswith("model."))
    broken["nodes"][name]["config"] = "not a mapping"
    file_id = upload(instance, integration_id, json.dumps(broken).encode())
    answer = verify(instance, file_id)
    assert answer.status_code == 422
    assert "not a mapping" in answer.json()["detail"]
    assert fetch(instance, integration_id).status_code == 404
    description = show(instance, integration_id)
    assert description["sync_history"][0]["type"] == "Failed"
    assert description["history"] == []
    with instance.storage.database.read() as connection:
        details = uploads.find_upload_details(connection, file_id)
    assert any("not a mapping" in line for line in details.report)
    assert all("/" not in line.partition("::")[0] for line in details.report)


def test_rejected_uploads_are_listed_on_request(
    instance: RunningInstance, integration_id: int
) -> None:
    onboard(instance, integration_id, manifest("a", "b"))
    other = upload(instance, integration_id, manifest("a", "b", project="other"))
    assert verify(instance, other).status_code == 409
    path = f"dbt/v1/project_integrations/{integration_id}/PROD"
    assert len(call(instance, "GET", path).json()["history"]) == 1
    answer = call(instance, "GET", path, params={"include_rejected": "true"})
    newest = answer.json()["history"][0]
    assert (newest["status"], newest["rejection"]) == ("rejected", "project")
    assert "'other'" in newest["refusal"]


@pytest.mark.parametrize("kind", ["catalog", "run_results", "sources", "semantic_manifest"])
def test_other_artifacts_are_validated_too(
    instance: RunningInstance, integration_id: int, kind: str
) -> None:
    for content in (b"{}", b'{"metadata": {}}', catalog()[:-1], manifest()):
        file_id = upload(instance, integration_id, content, kind=kind)
        answer = verify(instance, file_id)
        assert answer.status_code == 422, content
        assert f"{kind}.json::" in answer.json()["detail"]
    assert start_ingestion(instance, integration_id).status_code == 409


def test_what_changed_since_the_previous_manifest_is_recorded(
    instance: RunningInstance, integration_id: int
) -> None:
    onboard(instance, integration_id, manifest("a", "b", "c"))
    newer = json.loads(manifest("b", "c", "d", "e", at="2026-11-22T11:00:00Z"))
    newer["nodes"]["model.shop.c"]["checksum"]["checksum"] = "select 2"
    file_id = onboard(instance, integration_id, json.dumps(newer).encode())
    with instance.storage.database.read() as connection:
        record = uploads.find_upload(connection, file_id)
        details = uploads.find_upload_details(connection, file_id)
    assert record is not None
    assert record.model_counts == uploads.ModelCounts(added=2, removed=1, changed=1)
    assert json.loads(details.changes or "") == {
        "added": 2,
        "removed": 1,
        "changed": 1,
        "names": {"added": ["shop.d", "shop.e"], "removed": ["shop.a"], "changed": ["shop.c"]},
    }


def test_names_of_any_length_stay_small_in_the_database(
    instance: RunningInstance, integration_id: int
) -> None:
    for hour in (10, 11):
        names = [f"{hour}_{number}_" + "x" * 100_000 for number in range(40)]
        file_id = onboard(
            instance, integration_id, manifest(*names, at=f"2026-11-22T{hour}:00:00Z")
        )
    with instance.storage.database.read() as connection:
        details = uploads.find_upload_details(connection, file_id)
    assert len(details.changes or "") <= 64 * 1024
    names = json.loads(details.changes or "")["names"]["added"]
    assert max(map(len, names)) == 200
    path = f"dbt/v1/project_integrations/{integration_id}/PROD"
    assert len(call(instance, "GET", path).content) < 10_000


def test_an_ingestion_without_uploads_is_not_found(
    instance: RunningInstance, integration_id: int
) -> None:
    answer = start_ingestion(instance, integration_id)
    assert answer.status_code == 404
    assert "nothing was uploaded" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("field", "text", "stored"),
    [
        ("commit", "abc\ndef\r\n::error::x", "abc def ::error::x"),
        ("branch", "main\t\u202eevil\u200b", "main evil"),
        ("build_url", "https://me:secret@ci.example.com/1", "https://ci.example.com/1"),
        ("build_url", "https://a:b@c@ci.example.com/1?x=@", "https://ci.example.com/1?x=@"),
        ("build_url", "https://ci.example.com/a@b", "https://ci.example.com/a@b"),
        ("branch", " \n ", None),
    ],
)
def test_provenance_is_stored_as_one_line_without_passwords(
    instance: RunningInstance, integration_id: int, field: str, text: str, stored: str | None
) -> None:
    file_id = upload(instance, integration_id, manifest())
    assert verify(instance, file_id, **{field: text}).status_code == 200
    assert show(instance, integration_id)["history"][0][field] == stored


def test_texts_in_the_file_are_stored_as_one_line(
    instance: RunningInstance, integration_id: int
) -> None:
    content = json.loads(manifest())
    content["metadata"]["dbt_version"] = "1.11\n::error::\u202e\u0007"
    content["metadata"]["invocation_id"] = "x" * 1000
    onboard(instance, integration_id, json.dumps(content).encode())
    (entry,) = show(instance, integration_id)["history"]
    assert entry["dbt_version"] == "1.11\ufffd::error::\ufffd\ufffd"
    assert len(entry["invocation_id"]) == 200


def test_a_manifest_is_compared_again_when_another_one_became_current_meanwhile(
    instance: RunningInstance, integration_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = VerificationWorker.verify
    other_id = upload(instance, integration_id, manifest(project="other"))
    verifications = []

    def verify_while_another_becomes_current(*arguments: Any) -> Verification:
        verification = original(*arguments)
        verifications.append(verification)
        if len(verifications) == 1:
            make_current(instance, other_id)
        return verification

    monkeypatch.setattr(VerificationWorker, "verify", verify_while_another_becomes_current)
    assert verify(instance, upload(instance, integration_id, manifest())).status_code == 200
    first, second = verifications
    assert first.changes is None
    assert second.changes is not None


def make_current(instance: RunningInstance, file_id: int) -> None:
    with instance.storage.database.write() as connection:
        other = uploads.find_upload(connection, file_id)
        assert other is not None
        publications.make_current(
            connection, other, since=utc_now(), reason=PublicationReason.UPLOAD, token_id=1
        )
