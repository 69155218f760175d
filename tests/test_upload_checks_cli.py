"""Upload checks on the command line: rejected, allowed and accepted uploads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datapilot_defer.cli.options import UPLOAD_CHECKS
from datapilot_defer.storage.integrations import UploadCheck
from tests.support.commands import Outcome, access, create_integration, datapilot
from tests.support.instance_calls import manifest
from tests.support.instances import RunningInstance
from tests.support.protocol_server import ProtocolServer

MODELS = [f"model_{number}" for number in range(6)]
EARLIER = "2026-11-21T10:00:00Z"
LATER = "2026-11-23T10:00:00Z"
# The manifest that each check rejects after `manifest(*MODELS)`.
REJECTED = {
    "older": manifest(*MODELS, at=EARLIER),
    "smaller": manifest(*MODELS[:2], at=LATER),
    "project": manifest(*MODELS, at=LATER, project="warehouse"),
    "relations": manifest(*MODELS, at=LATER, database="dev", schema="ann"),
}
REASONS = {
    "older": "before the current one",
    "smaller": "this manifest has 2 models, less than half of the 6 in the current one",
    "project": "belongs to the dbt project 'shop', but this manifest is of the project 'warehouse'",
    "relations": "6 of 6 relations moved to another database or schema",
}


@pytest.fixture
def integration(instance: RunningInstance, tmp_path: Path) -> int:
    """Return an integration with a manifest of 6 models."""
    integration_id = create_integration(instance)
    assert onboard(instance, integration_id, tmp_path, manifest(*MODELS)).exit_code == 0
    return integration_id


def onboard(
    instance: RunningInstance, integration_id: int, directory: Path, content: bytes, *more: object
) -> Outcome:
    path = directory / "manifest.json"
    path.write_bytes(content)
    words = ("--integration-id", integration_id, "--manifest-path", path, *more)
    return datapilot("dbt", "onboard", *words, env=access(instance))


def history(instance: RunningInstance, integration_id: int, *more: object) -> Outcome:
    words = ("--integration-id", integration_id, *more)
    return datapilot("dbt", "integrations", "history", *words, env=access(instance))


def test_the_client_names_every_check_of_the_server() -> None:
    assert set(UPLOAD_CHECKS) == set(UploadCheck)


@pytest.mark.parametrize("check", REJECTED)
def test_a_rejection_names_the_reason_and_the_option_that_allows_it(
    check: str, instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    rejected = onboard(instance, integration, tmp_path, REJECTED[check])
    assert rejected.exit_code == 1
    message = rejected.stderr
    assert message.startswith("Error: the instance rejected the manifest: ")
    assert REASONS[check] in message
    assert f"--allow {check}" in message
    machine = onboard(instance, integration, tmp_path, REJECTED[check], "--json").json
    assert machine["exit_code"] == 1
    assert machine["error"]["kind"] == "artifact_refused"
    assert f"--allow {check}" in machine["error"]["message"]
    allowed = onboard(instance, integration, tmp_path, REJECTED[check], "--allow", check)
    assert allowed.exit_code == 0, allowed.output


@pytest.mark.parametrize("check", REJECTED)
def test_allowing_other_checks_does_not_help(
    check: str, instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    others = [word for name in REJECTED if name != check for word in ("--allow", name)]
    rejected = onboard(instance, integration, tmp_path, REJECTED[check], *others)
    assert rejected.exit_code == 1
    assert f"--allow {check}" in rejected.stderr


@pytest.mark.parametrize(
    "options", [["--force"], ["--allow", "older", "--allow", "project", "--allow", "smaller"]]
)
def test_several_checks_are_skipped_by_force_or_one_by_one(
    options: list[str], instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    content = manifest("other", at=EARLIER, project="warehouse")
    assert onboard(instance, integration, tmp_path, content).exit_code == 1
    assert onboard(instance, integration, tmp_path, content, *options).exit_code == 0


def test_force_is_sent_as_older_instances_understand_it(
    hosted: ProtocolServer, artifacts: Path
) -> None:
    words = ("--integration-id", 7, "--manifest-path", artifacts / "manifest.json")
    for options in ([], ["--force"], ["--allow", "smaller", "--allow", "older"]):
        done = datapilot("dbt", "onboard", *words, *options, env=hosted.access)
        assert done.exit_code == 0, done.output
    bodies = [seen.json for seen in hosted.requests if seen.path.endswith("verify_upload")]
    plain, forced, allowed = bodies
    assert not {"force", "allow"} & set(plain)
    assert forced["force"] is True
    assert "allow" not in forced
    assert allowed["allow"] == ["older", "smaller"]
    assert "force" not in allowed


def test_an_unknown_check_is_a_usage_error_that_lists_the_checks() -> None:
    done = datapilot("dbt", "onboard", "--integration-id", 7, "--allow", "newer")
    assert done.exit_code == 2
    assert all(f"'{check}'" in done.stderr for check in UPLOAD_CHECKS)


def test_a_rejected_upload_is_listed_with_its_reason_and_accepted(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    assert onboard(instance, integration, tmp_path, REJECTED["relations"]).exit_code == 1
    assert len(history(instance, integration, "--json").json["history"]) == 1
    listed = history(instance, integration, "--rejected", "--json").json["history"]
    newest = listed[0]
    assert (newest["status"], newest["rejection"]) == ("rejected", "relations")
    file_id = newest["file_id"]
    text = history(instance, integration, "--rejected").stdout
    assert "rejected (relations)" in text
    assert f"File {file_id} was rejected: 6 of 6 relations moved" in text
    accepted = datapilot("dbt", "integrations", "accept", file_id, env=access(instance))
    assert accepted.exit_code == 0, accepted.output
    assert f"File {file_id} is current in integration {integration}" in accepted.stdout
    after = history(instance, integration, "--json").json
    assert [upload["status"] for upload in after["history"]] == ["accepted", "accepted"]
    assert after["history"][0]["current"] is True
    assert after["publications"][0]["reason"] == "accept"
    assert f"file {file_id} (manifest) accepted by" in history(instance, integration).stdout


def test_a_failed_acceptance_keeps_the_current_manifest(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    (current,) = history(instance, integration, "--json").json["history"]
    file_id = current["file_id"]
    twice = datapilot("dbt", "integrations", "accept", file_id, "--json", env=access(instance))
    assert twice.exit_code == 2
    assert f"file {file_id} was not rejected" in twice.json["error"]["message"]
    missing = datapilot("dbt", "integrations", "accept", 999, env=access(instance))
    assert missing.exit_code == 4
    assert "has no file 999" in missing.stderr
    assert "`datapilot dbt integrations history --rejected`" in missing.stderr
    assert onboard(instance, integration, tmp_path, REJECTED["smaller"]).exit_code == 1
    token = instance.new_token("upload")
    rejected = history(instance, integration, "--rejected", "--json").json["history"][0]
    denied = datapilot(
        *("dbt", "integrations", "accept", rejected["file_id"]),
        env=access(instance, token),
    )
    assert denied.exit_code == 3
    (still_current,) = history(instance, integration, "--json").json["history"]
    assert still_current["file_id"] == file_id


def test_history_is_sorted_by_the_time_that_it_shows(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    assert onboard(instance, integration, tmp_path, REJECTED["smaller"]).exit_code == 1
    assert onboard(instance, integration, tmp_path, manifest(*MODELS, at=LATER)).exit_code == 0
    accepted = datapilot("dbt", "integrations", "accept", 2, env=access(instance))
    assert accepted.exit_code == 0, accepted.output
    assert onboard(instance, integration, tmp_path, REJECTED["older"]).exit_code == 1
    shown = history(instance, integration, "--rejected", "--json").json["history"]
    times = [upload["created_at"] for upload in shown]
    assert len(times) == 4
    assert times == sorted(times, reverse=True)
    assert [upload["uploaded_at"] is None for upload in shown] == [True, False, False, False]
    table = history(instance, integration, "--rejected").stdout
    assert all(moment[:19] in table for moment in times)


def test_history_states_who_restored_what(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    assert onboard(instance, integration, tmp_path, manifest(*MODELS, at=LATER)).exit_code == 0
    oldest = history(instance, integration, "--json").json["history"][-1]
    file_id = oldest["file_id"]
    token = instance.new_token("upload", "read", name="ann")
    words = ("restore", "--integration-id", integration, "--file-id", file_id)
    restored = datapilot("dbt", "integrations", *words, env=access(instance, token))
    assert restored.exit_code == 0, restored.output
    assert f"file {file_id} (manifest) restored by 'ann'" in history(instance, integration).stdout


def test_show_lists_uploads_with_their_status(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    assert onboard(instance, integration, tmp_path, REJECTED["smaller"]).exit_code == 1
    show = ("dbt", "integrations", "show", "--integration-id", integration)
    text = datapilot(*show, env=access(instance)).stdout
    assert "Completed" in text
    assert "Failed" in text
    assert "ingestion" not in text
    shown = datapilot(*show, "--json", env=access(instance)).json
    assert [sync["type"] for sync in shown["sync_history"]] == ["Failed", "Completed"]
    assert json.dumps(shown["disabled_checks"]) == "[]"
