"""Responses to the calls of an onboarding, and to calls that read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from datapilot_defer.instance.rate_limit import RateLimiter
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.instance.verification import Verification
from datapilot_defer.instance.worker import VerificationWorker
from tests.support.contents import SlowBody
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
    start_ingestion,
    upload,
    verify,
)
from tests.support.instances import RunningInstance, running_instance


def test_an_artifact_becomes_visible_only_after_verify_upload(instance: RunningInstance) -> None:
    integration_id, content = make_integration(instance), manifest()
    file_id = upload(instance, integration_id, content)
    assert fetch(instance, integration_id).status_code == 404
    assert show(instance, integration_id)["history"] == []
    receipt = verify(instance, file_id).json()
    assert receipt == {
        "ok": True,
        "dbt_core_integration_file_id": file_id,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "unchanged": False,
    }
    assert pull(instance, integration_id) == content


@pytest.mark.parametrize(
    "kind", ["manifest", "catalog", "run_results", "sources", "semantic_manifest"]
)
def test_every_kind_of_artifact_is_downloaded_unchanged(
    instance: RunningInstance, artifacts: Path, kind: str
) -> None:
    integration_id, path = make_integration(instance), artifacts / f"{kind}.json"
    if not path.is_file():
        pytest.skip(f"production wrote no {path.name}")
    onboard(instance, integration_id, path.read_bytes(), kind=kind)
    assert pull(instance, integration_id, artifact_type=kind) == path.read_bytes()


def test_the_record_contains_the_metadata_that_dbt_wrote(
    instance: RunningInstance, artifacts: Path
) -> None:
    integration_id = make_integration(instance)
    file_id = upload(instance, integration_id, (artifacts / "manifest.json").read_bytes())
    origin = {"commit": "abc123", "branch": "main", "build_url": "https://ci.example.com/1"}
    assert verify(instance, file_id, **origin).status_code == 200
    shown = show(instance, integration_id)
    (past,) = shown["history"]
    assert (
        past.items()
        >= {**origin, "token_name": "first", "current": True, "schema_version": 12}.items()
    )
    assert past["dbt_version"] == "1.11.16"
    assert 0 < past["model_count"] < past["node_count"]
    assert shown["project_name"] == past["project_name"]
    assert shown["last_file_upload_time"] is not None


def test_repeating_verify_upload_changes_nothing(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    first = onboard(instance, integration_id, manifest(at="2026-11-22T10:00:00Z"))
    second = onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    assert verify(instance, first).status_code == 200
    assert fetch(instance, integration_id).json()["dbt_core_integration_file_id"] == second


def test_identical_bytes_are_stored_once_and_reported_as_unchanged(
    instance: RunningInstance,
) -> None:
    integration_id, other = make_integration(instance), make_integration(instance, "other")
    for each in (integration_id, integration_id, other):
        file_id = upload(instance, each, manifest())
        unchanged = verify(instance, file_id).json()["unchanged"]
    assert not unchanged
    assert len([path for path in (instance.data / "blobs").rglob("*") if path.is_file()]) == 1
    assert verify(instance, upload(instance, other, manifest())).json()["unchanged"]


def test_environment_names_ignore_case_and_keep_their_first_spelling(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance, environment="Prod")
    onboard(instance, integration_id, manifest(), environment="PROD")
    assert (
        fetch(instance, integration_id, dbt_core_integration_environment_type="prod").json()[
            "environment"
        ]
        == "Prod"
    )
    assert show(instance, integration_id, "pRoD")["environment"] == "Prod"


def test_without_an_environment_prod_is_used_or_else_the_first_with_an_artifact(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance, environment="STAGING")
    make_integration(instance, environment="prod")
    onboard(instance, integration_id, manifest("staged"), environment="STAGING")
    assert fetch(instance, integration_id).json()["environment"] == "STAGING"
    onboard(instance, integration_id, manifest("produced"), environment="PROD")
    assert fetch(instance, integration_id).json()["environment"] == "prod"


def test_an_existing_name_with_a_new_environment_adds_the_environment(
    instance: RunningInstance,
) -> None:
    first = make_integration(instance, environment="PROD")
    assert make_integration(instance, environment="STAGING") == first
    (listed,) = call(instance, "GET", "dbt/v1/project_integrations").json()
    assert [each["environment_type"] for each in listed["environments"]] == ["PROD", "STAGING"]


def test_an_existing_name_and_environment_are_rejected(instance: RunningInstance) -> None:
    make_integration(instance)
    again = call(
        instance, "POST", "dbt/v1/project_integration", json={"name": "shop", "environment": "prod"}
    )
    assert again.status_code == 409
    assert "already" in again.json()["message"]


def test_integrations_are_listed_with_and_without_a_trailing_slash(
    instance: RunningInstance,
) -> None:
    make_integration(instance, "zebra")
    make_integration(instance, "Ant")
    answers = [call(instance, "GET", f"dbt/v1/project_integrations{end}") for end in ("", "/")]
    assert [answer.history for answer in answers] == [[], []]
    assert [each["name"] for each in answers[0].json()] == ["Ant", "zebra"]
    assert answers[0].json() == answers[1].json()


def test_a_base_url_with_a_trailing_slash_works(instance: RunningInstance) -> None:
    answer = call(instance, "GET", "/dbt/v3/validate-credentials")
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "token_expires_at": None})


def test_an_environment_is_found_by_its_id_unless_that_is_the_name_of_another(
    instance: RunningInstance,
) -> None:
    first = make_integration(instance)
    other = make_integration(instance, "other")
    listed = call(instance, "GET", "dbt/v1/project_integrations").json()
    ids = {each["id"]: each["environments"][0]["id"] for each in listed}
    assert announce(instance, first, environment=str(ids[first])).status_code == 200
    assert announce(instance, first, environment=str(ids[other])).status_code == 404
    assert announce(instance, first, environment=f"0{ids[first]}").status_code == 404
    onboard(instance, first, manifest(), environment=str(ids[first]))
    query = {"dbt_core_integration_environment_type": str(ids[first])}
    assert pull(instance, first, **query) == pull(instance, first) == manifest()
    assert show(instance, first, str(ids[first]))["history"] != []
    make_integration(instance, environment=str(ids[first]))  # from now on, this is a name
    assert fetch(instance, first, **query).status_code == 404


def test_an_unknown_environment_is_not_found_and_the_existing_ones_are_listed(
    instance: RunningInstance,
) -> None:
    answer = announce(instance, make_integration(instance), environment="PRDO")
    assert answer.status_code == 404
    assert "'PRDO'. Its environments: PROD." in answer.json()["detail"]


def test_the_signed_url_has_the_host_that_the_client_used(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    url = instance.url.replace("127.0.0.1", "localhost")
    query: dict[str, Any] = {
        "dbt_core_integration_id": integration_id,
        "dbt_core_integration_environment_type": "PROD",
    }
    answer = requests.get(
        f"{url}/dbt/v1/signed_url",
        params={**query, "file_type": "manifest"},
        headers=instance.headers,
        timeout=SECONDS,
    )
    assert answer.json()["url"].startswith(f"{url}/files/")


def test_an_earlier_file_can_be_fetched_by_id_and_by_time(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    old, new = manifest(at="2026-11-22T10:00:00Z"), manifest(at="2026-11-22T11:00:00Z")
    first = onboard(instance, integration_id, old)
    between = fetch(instance, integration_id).json()["uploaded_at"]
    second = onboard(instance, integration_id, new)
    assert pull(instance, integration_id, dbt_core_integration_file_id=first) == old
    assert (
        fetch(instance, integration_id, at=between).json()["dbt_core_integration_file_id"] == first
    )
    assert (
        fetch(instance, integration_id, at="2096-01-01").json()["dbt_core_integration_file_id"]
        == second
    )
    assert fetch(instance, integration_id, at="2026-01-01T00:00:00Z").status_code == 404


def test_restore_makes_an_earlier_file_current_until_a_newer_upload(
    instance: RunningInstance,
) -> None:
    integration_id = make_integration(instance)
    good = onboard(instance, integration_id, manifest(at="2026-11-22T10:00:00Z"))
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    path = f"dbt/v1/project_integrations/{integration_id}/PROD/restore"
    answer = call(instance, "POST", path, json={"dbt_core_integration_file_id": good})
    assert answer.json()["dbt_core_integration_file_id"] == good
    assert fetch(instance, integration_id).json()["dbt_core_integration_file_id"] == good
    assert [each["current"] for each in show(instance, integration_id)["history"]] == [False, True]
    onboard(instance, integration_id, manifest(at="2026-11-22T10:30:00Z"))


def test_a_restore_does_not_change_the_time_of_the_last_upload(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    first = onboard(instance, integration_id, manifest(at="2026-11-22T10:00:00Z"))
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    path = f"dbt/v1/project_integrations/{integration_id}/PROD/restore"
    assert (
        call(instance, "POST", path, json={"dbt_core_integration_file_id": first}).status_code
        == 200
    )
    shown = show(instance, integration_id)
    assert shown["last_file_upload_time"] == shown["history"][0]["uploaded_at"]
    assert shown["last_modified_at"] >= shown["last_file_upload_time"]


def test_restore_rejects_a_file_of_another_environment(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    make_integration(instance, environment="STAGING")
    file_id = onboard(instance, integration_id, manifest())
    path = f"dbt/v1/project_integrations/{integration_id}/STAGING/restore"
    assert (
        call(instance, "POST", path, json={"dbt_core_integration_file_id": file_id}).status_code
        == 404
    )


def test_a_restarted_instance_keeps_its_artifacts(tmp_path: Path) -> None:
    with running_instance(tmp_path) as instance:
        integration_id = make_integration(instance)
        onboard(instance, integration_id, manifest())
    with running_instance(tmp_path) as again:
        assert pull(again, integration_id) == manifest()


def test_health_and_ready_require_no_token(instance: RunningInstance) -> None:
    assert requests.get(f"{instance.url}/health", timeout=SECONDS).json() == {"status": "ok"}
    assert requests.get(f"{instance.url}/ready", timeout=SECONDS).json() == {"status": "ready"}


def test_an_instance_without_its_database_reports_that_it_is_not_ready(
    instance: RunningInstance,
) -> None:
    with instance.storage.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE instance RENAME TO gone")
    answer = requests.get(f"{instance.url}/ready", timeout=SECONDS)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"


def test_the_event_of_the_vs_code_extension_is_accepted(instance: RunningInstance) -> None:
    answer = call(instance, "POST", "dbt/v1/defer_to_prod_event", json={"defer_type": "remote"})
    assert answer.status_code == 200


def test_a_manifest_of_many_megabytes_is_downloaded_unchanged(instance: RunningInstance) -> None:
    integration_id, content = make_integration(instance), manifest() + b" " * 3_500_000 + b"\n"
    onboard(instance, integration_id, content)
    assert pull(instance, integration_id) == content


def test_concurrent_verifications_of_an_upload_count_once(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    for hour in range(5):
        file_id = upload(
            instance, integration_id, manifest(at=f"2026-11-22T1{hour}:00:00Z") + b" " * 2_000_000
        )
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _, each=file_id: verify(instance, each), range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
    assert len(show(instance, integration_id)["history"]) == 5


def test_an_upload_that_ends_after_the_file_was_verified_is_rejected(
    instance: RunningInstance,
) -> None:
    announced = announce(instance, make_integration(instance)).json()

    def slowly() -> Iterator[bytes]:
        yield b"{"
        assert requests.put(announced["url"], data=manifest(), timeout=SECONDS).status_code == 200
        assert verify(instance, announced["dbt_core_integration_file_id"]).status_code == 200
        yield b"}"

    body = SlowBody(2, slowly())
    assert requests.put(announced["url"], data=body, timeout=SECONDS).status_code == 409
    assert pull(instance, 1) == manifest()


def test_bytes_that_change_or_disappear_during_verification_do_not_become_current(
    instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = announce(instance, make_integration(instance)).json()
    verify_content = VerificationWorker.verify

    def put(*arguments: Any) -> Verification:
        requests.put(announced["url"], data=manifest("another"), timeout=SECONDS)
        return verify_content(*arguments)

    def lose(*arguments: Any) -> Verification:
        instance.storage.blobs.delete(1, hashlib.sha256(manifest("another")).hexdigest())
        return verify_content(*arguments)

    requests.put(announced["url"], data=manifest(), timeout=SECONDS)
    for meanwhile, status in ((put, 409), (lose, 503)):
        monkeypatch.setattr(VerificationWorker, "verify", meanwhile)
        assert verify(instance, announced["dbt_core_integration_file_id"]).status_code == status
        assert fetch(instance, 1).status_code == 404


def test_missing_bytes_are_reported(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    fetched = fetch(instance, integration_id).json()
    instance.storage.blobs.delete(1, fetched["sha256"])
    assert requests.get(fetched["url"], timeout=SECONDS).status_code == 503


@pytest.mark.parametrize(
    ("settings", "begin"),
    [
        (
            InstanceSettings(public_url="https://defer.example.com/"),
            "https://defer.example.com/files/",
        ),
        (InstanceSettings(behind_proxy=True), "http://other.example.com/files/"),
        (InstanceSettings(), "http://127.0.0.1:"),
    ],
)
def test_signed_urls_have_a_host_that_clients_can_reach(
    tmp_path: Path, settings: InstanceSettings, begin: str
) -> None:
    with running_instance(tmp_path, settings=settings) as instance:
        headers = {**instance.headers, "X-Forwarded-Host": "other.example.com"}
        query: dict[str, Any] = {
            "dbt_core_integration_id": make_integration(instance),
            "file_type": "manifest",
        }
        query["dbt_core_integration_environment_type"] = "PROD"
        url = f"{instance.url}/dbt/v1/signed_url"
        assert (
            requests.get(url, params=query, headers=headers, timeout=SECONDS)
            .json()["url"]
            .startswith(begin)
        )


def test_a_client_that_is_no_longer_tracked_starts_with_a_full_budget() -> None:
    rate = RateLimiter(1)
    assert rate.acquire("first") == 0
    assert rate.acquire("first") > 0
    for number in range(10_000):
        rate.acquire(str(number))
    assert rate.acquire("first") == 0
    assert [RateLimiter(0).acquire("any") for _ in range(3)] == [0, 0, 0]


def test_an_upload_that_was_not_verified_is_reported_at_the_end(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    file_id = upload(instance, integration_id, manifest(body="select 2"))
    answer = start_ingestion(instance, integration_id)
    assert answer.status_code == 503
    assert "the last manifest was not verified" in answer.json()["detail"]
    assert verify(instance, file_id).status_code == 200
    assert start_ingestion(instance, integration_id).status_code == 200
