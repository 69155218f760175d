"""Rename, delete and undelete integrations and disable checks, against a real instance."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.commands import (
    Outcome,
    access,
    create_integration,
    current_sha256,
    datapilot,
)
from tests.support.instance_calls import manifest
from tests.support.instances import RunningInstance

MOVED = manifest(at="2026-11-23T10:00:00Z", database="dev", schema="ann")


@pytest.fixture
def integration(instance: RunningInstance, tmp_path: Path) -> int:
    """Return the id of the integration "shop", which has a manifest."""
    integration_id = create_integration(instance)
    assert onboard(instance, tmp_path, manifest()).exit_code == 0
    return integration_id


def onboard(instance: RunningInstance, directory: Path, content: bytes) -> Outcome:
    path = directory / "manifest.json"
    path.write_bytes(content)
    words = ("--integration-name", "shop", "--manifest-path", path)
    return datapilot("dbt", "onboard", *words, env=access(instance))


def integrations(instance: RunningInstance, *words: object, token: str | None = None) -> Outcome:
    return datapilot("dbt", "integrations", *words, "--json", env=access(instance, token))


def names(instance: RunningInstance, *options: str) -> list[str]:
    listed = integrations(instance, "list", *options)
    assert listed.exit_code == 0, listed.output
    return [integration["name"] for integration in listed.json["integrations"]]


def test_a_renamed_integration_keeps_its_id_and_its_artifacts(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    before = current_sha256(instance, integration, tmp_path / "before")
    renamed = integrations(instance, "rename", "--integration-name", "shop", "--to", "Store")
    assert renamed.exit_code == 0, renamed.output
    assert renamed.json == {"ok": True, "id": integration, "name": "Store", "previous_name": "shop"}
    assert names(instance) == ["Store"]
    assert onboard(instance, tmp_path, manifest()).exit_code == 4
    assert current_sha256(instance, integration, tmp_path / "after") == before is not None
    # If the response is lost, the client sends the request again.
    again = integrations(instance, "rename", "--integration-id", integration, "--to", "Store")
    assert again.exit_code == 0, again.output


def test_a_name_that_is_in_use_is_rejected(instance: RunningInstance, integration: int) -> None:
    create_integration(instance, "store")
    for name in ("store", "STORE", "sto\u200bre", ""):
        done = integrations(instance, "rename", "--integration-id", integration, "--to", name)
        assert done.exit_code == 2, done.output
    assert names(instance) == ["shop", "store"]


def test_a_deleted_integration_is_gone_until_it_is_undeleted(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    before = current_sha256(instance, integration, tmp_path / "before")
    deleted = integrations(instance, "delete", "--integration-name", "shop", "--yes")
    assert deleted.exit_code == 0, deleted.output
    deleted_at = datetime.fromisoformat(deleted.json["deleted_at"])
    assert datetime.fromisoformat(deleted.json["purge_at"]) - deleted_at == timedelta(days=30)
    assert names(instance) == []
    assert names(instance, "--deleted") == ["shop"]
    assert onboard(instance, tmp_path, manifest()).exit_code == 4
    pulled = datapilot(
        "dbt", "pull", "--integration-id", integration, "--json", env=access(instance)
    )
    assert pulled.exit_code == 4, pulled.output
    undeleted = integrations(instance, "undelete", "--integration-name", "shop")
    assert undeleted.exit_code == 0, undeleted.output
    assert undeleted.json["id"] == integration
    assert names(instance) == ["shop"]
    assert names(instance, "--deleted") == []
    assert current_sha256(instance, integration, tmp_path / "after") == before is not None


def test_the_name_of_a_deleted_integration_stays_reserved(
    instance: RunningInstance, integration: int
) -> None:
    assert integrations(instance, "delete", "--integration-id", integration, "--yes").exit_code == 0
    for name in ("shop", "SHOP"):
        assert integrations(instance, "create", "--name", name).exit_code == 2
    twice = integrations(instance, "delete", "--integration-id", integration, "--yes")
    assert twice.exit_code == 4
    assert names(instance, "--deleted") == ["shop"]


def test_show_states_the_last_upload_to_its_own_environment(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    assert onboard(instance, tmp_path, manifest()).exit_code == 0
    words = ("--integration-id", integration, "--environment", "dev2")
    added = datapilot(
        *("dbt", "integrations", "create", "--name", "shop", "--environment", "dev2"),
        env=access(instance),
    )
    assert added.exit_code == 0, added.output
    shown = datapilot("dbt", "integrations", "show", *words, env=access(instance))
    assert "Last upload: nothing uploaded yet" in shown.stdout, shown.output


def test_a_disabled_check_rejects_nothing_until_it_is_enabled_again(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    checks = ("checks", "--integration-id", integration)
    assert integrations(instance, *checks).json["disabled_checks"] == []
    assert onboard(instance, tmp_path, MOVED).exit_code == 1
    disabled = integrations(instance, *checks, "--disable", "relations", "--disable", "older")
    assert disabled.json["disabled_checks"] == ["older", "relations"]
    assert onboard(instance, tmp_path, MOVED).exit_code == 0
    shown = datapilot(
        "dbt", "integrations", "show", "--integration-id", integration, env=access(instance)
    )
    assert "Disabled checks: older, relations" in shown.stdout
    assert "Last upload: 20" in shown.stdout
    enabled = integrations(instance, *checks, "--enable", "older", "--enable", "relations")
    assert enabled.json["disabled_checks"] == []
    assert onboard(instance, tmp_path, manifest()).exit_code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("rename", "--to", "store"),
        ("delete", "--yes"),
        ("checks", "--disable", "older"),
    ],
)
def test_only_an_admin_may_change_an_integration(
    words: tuple[str, ...], instance: RunningInstance, integration: int
) -> None:
    token = instance.new_token("upload", "read")
    done = integrations(instance, *words, "--integration-id", integration, token=token)
    assert done.exit_code == 3, done.output
    assert names(instance) == ["shop"]


def test_only_an_admin_sees_and_undeletes_deleted_integrations(
    instance: RunningInstance, integration: int
) -> None:
    token = instance.new_token("upload", "read")
    assert integrations(instance, "delete", "--integration-id", integration, "--yes").exit_code == 0
    assert integrations(instance, "list", "--deleted", token=token).exit_code == 3
    undelete = ("undelete", "--integration-id", integration)
    assert integrations(instance, *undelete, token=token).exit_code == 3
    assert names(instance, "--deleted") == ["shop"]
