"""What keeps a wrong job from breaking everybody's defer."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import requests

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.services import integrations
from datapilot_defer.storage import uploads
from tests.support.environments import require_program
from tests.support.instance_calls import (
    call,
    fetch,
    make_integration,
    manifest,
    onboard,
    show,
    upload,
    verify,
)
from tests.support.instances import RunningInstance

CURRENT = manifest("a", "b", "c", "d", at="2026-11-22T10:00:00Z")
REFUSED = {
    "belongs to the dbt project 'shop'": manifest(
        "a", "b", "c", "d", project="other", at="2026-11-22T11:00:00Z"
    ),
    "before the current one": manifest("a", "b", "c", "d", at="2026-11-22T09:59:59Z"),
    "1 model, less than half": manifest("a", at="2026-11-22T11:00:00Z"),
}


@pytest.fixture
def integration_id(instance: RunningInstance) -> int:
    made = make_integration(instance)
    onboard(instance, made, CURRENT)
    return made


@pytest.mark.parametrize("reason", REFUSED)
def test_a_manifest_that_would_break_defer_is_refused_and_the_current_one_stays(
    instance: RunningInstance, integration_id: int, reason: str
) -> None:
    answer = verify(instance, upload(instance, integration_id, REFUSED[reason]))
    assert answer.status_code == 409
    assert reason in answer.json()["detail"]
    assert "--force" in answer.json()["detail"]
    assert fetch(instance, integration_id).json()["sha256"] == hashlib.sha256(CURRENT).hexdigest()


@pytest.mark.parametrize("reason", REFUSED)
def test_force_makes_it_current_all_the_same(
    instance: RunningInstance, integration_id: int, reason: str
) -> None:
    file_id = upload(instance, integration_id, REFUSED[reason])
    assert verify(instance, file_id).status_code == 409
    assert verify(instance, file_id, force=True).status_code == 200
    assert fetch(instance, integration_id).json()["dbt_core_integration_file_id"] == file_id


def test_after_force_the_integration_belongs_to_the_other_project(
    instance: RunningInstance, integration_id: int
) -> None:
    other = manifest("a", "b", project="other", at="2026-11-22T11:00:00Z")
    assert verify(instance, upload(instance, integration_id, other), force=True).status_code == 200
    assert show(instance, integration_id)["project_name"] == "other"
    onboard(
        instance, integration_id, manifest("a", "b", project="other", at="2026-11-22T12:00:00Z")
    )


def test_half_of_the_models_and_the_same_moment_are_enough(
    instance: RunningInstance, integration_id: int
) -> None:
    onboard(instance, integration_id, manifest("a", "b", at="2026-11-22T10:00:00Z"))


def test_a_project_that_old_manifests_name_by_its_md5_is_the_same_project(
    instance: RunningInstance,
) -> None:
    old = json.loads(manifest(at="2026-11-22T10:00:00Z"))
    del old["metadata"]["project_name"]
    old["metadata"]["project_id"] = hashlib.md5(b"shop", usedforsecurity=False).hexdigest()
    integration_id = make_integration(instance, "old")
    onboard(instance, integration_id, json.dumps(old).encode())
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    onboard(instance, integration_id, json.dumps(old).replace("10:00", "12:00").encode())


def test_other_kinds_are_not_compared(instance: RunningInstance, integration_id: int) -> None:
    schema = "https://schemas.getdbt.com/dbt/catalog/v1.json"
    for at in ("2026-11-22T10:00:00Z", "2026-11-21T10:00:00Z"):
        catalog = {
            "metadata": {"dbt_schema_version": schema, "generated_at": at},
            "nodes": {},
            "sources": {},
        }
        onboard(instance, integration_id, json.dumps(catalog).encode(), kind="catalog")


def test_a_client_that_ignores_the_refusal_hears_of_it_when_it_starts_the_ingestion(
    instance: RunningInstance, integration_id: int
) -> None:
    verify(instance, upload(instance, integration_id, manifest("a", at="2026-11-22T11:00:00Z")))
    answer = _start(instance, integration_id)
    assert answer.status_code == 409
    assert "the last manifest was refused" in answer.json()["detail"]
    assert "ok" not in answer.json()


def test_somebody_elses_refused_upload_does_not_stop_an_ingestion(
    instance: RunningInstance, integration_id: int
) -> None:
    token = instance.new_token("upload")
    file_id = upload(
        instance, integration_id, manifest("a", at="2026-11-22T11:00:00Z"), token=token
    )
    assert verify(instance, file_id, token).status_code == 409
    assert _start(instance, integration_id).status_code == 200


def _start(instance: RunningInstance, integration_id: int) -> requests.Response:
    place = {
        "dbt_core_integration_id": integration_id,
        "dbt_core_integration_environment_type": "PROD",
    }
    return call(instance, "POST", "dbt/v1/start_dbt_ingestion", json=place)


def test_such_a_client_also_hears_that_its_manifest_was_not_whole(
    instance: RunningInstance, integration_id: int
) -> None:
    assert verify(instance, upload(instance, integration_id, CURRENT[:-5])).status_code == 422
    catalog = (
        b'{"metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/catalog/v1.json"}}'
    )
    onboard(instance, integration_id, catalog, kind="catalog")
    assert "the last manifest was refused" in _start(instance, integration_id).json()["detail"]
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T12:00:00Z"))
    assert _start(instance, integration_id).status_code == 200


def test_a_refused_catalog_is_told_once_and_not_to_every_later_onboarding(
    instance: RunningInstance, integration_id: int
) -> None:
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T11:00:00Z"))
    assert (
        verify(instance, upload(instance, integration_id, b"{}", kind="catalog")).status_code == 422
    )
    assert "the last catalog was refused" in _start(instance, integration_id).json()["detail"]
    onboard(instance, integration_id, manifest("a", "b", "c", at="2026-11-22T12:00:00Z"))
    assert _start(instance, integration_id).status_code == 200


def test_any_number_of_refusals_leaves_what_was_verified_in_the_history(
    instance: RunningInstance, integration_id: int
) -> None:
    with instance.storage.database.write() as connection:
        for _ in range(integrations.HISTORY_LIMIT + 1):
            file_id = uploads.create_upload(
                connection, environment_id=1, token_id=1, kind=Kind.MANIFEST
            )
            uploads.update_upload(connection, file_id, refusal="it is older")
    (shown,) = show(instance, integration_id)["history"]
    assert shown["current"]


@pytest.mark.peer
def test_altimate_datapilot_cli_does_not_say_that_a_refused_manifest_was_ingested(
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
