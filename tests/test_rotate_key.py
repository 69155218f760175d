"""`datapilot instance rotate-key`: URLs signed with a leaked key stop working at once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import requests

from tests.support.commands import datapilot
from tests.support.instance_calls import (
    SECONDS,
    announce,
    call,
    fetch,
    make_integration,
    manifest,
    onboard,
    pull,
    verify,
)
from tests.support.instances import RunningInstance
from tests.support.sign_ins import cookie_of, is_signed_in, sign_in


def rotate(data: Path, *options: str) -> object:
    done = datapilot("instance", "rotate-key", "--data", data, *options, "--json")
    assert done.exit_code == 0, done.output
    return done.json


def signing_keys(data: Path) -> list[bytes]:
    with closing(sqlite3.connect(data / "records.sqlite3")) as connection:
        rows = connection.execute("SELECT signing_key FROM instance ORDER BY id")
        return [key for (key,) in rows]


def test_a_running_server_uses_the_new_key_at_once(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    onboard(instance, integration_id, manifest())
    upload_url = announce(instance, integration_id).json()["url"]
    download_url = fetch(instance, integration_id).json()["url"]
    cookie = cookie_of(sign_in(instance))
    (old_key,) = signing_keys(instance.data)
    assert rotate(instance.data) == {"ok": True, "instance_name": "acme"}
    (new_key,) = signing_keys(instance.data)
    assert len(new_key) == len(old_key) == 32
    assert new_key != old_key
    assert requests.put(upload_url, data=manifest(), timeout=SECONDS).status_code == 403
    assert requests.get(download_url, timeout=SECONDS).status_code == 403
    # Tokens, sessions and new URLs work.
    assert is_signed_in(instance, cookie)
    assert pull(instance, integration_id) == manifest()
    onboard(instance, integration_id, manifest("new"))


def test_an_upload_that_has_arrived_is_verified_after_a_rotation(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    answer = announce(instance, integration_id).json()
    requests.put(answer["url"], data=manifest(), timeout=SECONDS)
    rotate(instance.data)
    assert verify(instance, answer["dbt_core_integration_file_id"]).status_code == 200


def test_the_key_of_another_instance_is_kept(instance: RunningInstance) -> None:
    datapilot("instance", "init", "--data", instance.data, "--instance-name", "rival")
    before = signing_keys(instance.data)
    ambiguous = datapilot("instance", "rotate-key", "--data", instance.data)
    assert ambiguous.exit_code == 2
    assert "--instance-name" in ambiguous.stderr
    unknown = datapilot("instance", "rotate-key", "--data", instance.data, "--instance-name", "x")
    assert unknown.exit_code == 4
    assert signing_keys(instance.data) == before
    rotate(instance.data, "--instance-name", "rival")
    after = signing_keys(instance.data)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert call(instance, "POST", "auth_health").status_code == 200


def test_a_rotation_is_audited_and_reports_what_stops_working(instance: RunningInstance) -> None:
    done = datapilot("instance", "rotate-key", "--data", instance.data)
    assert done.exit_code == 0
    assert "Replaced the signing key of instance acme." in done.stdout
    assert "URLs that were signed earlier are no longer valid." in done.stdout
    assert "Tokens and sessions remain valid." in done.stdout
    (key,) = signing_keys(instance.data)
    assert key.hex() not in done.output
    log = datapilot("instance", "audit", "--data", instance.data, "--limit", 1, "--json").json
    (event,) = log["events"]
    assert event["action"] == "signing_key.rotate"
    assert event["actor"].startswith("command line (")
    assert event["detail"] == ""


def test_a_missing_data_directory_is_not_created(tmp_path: Path) -> None:
    for command in ("rotate-key", "audit", "migrate"):
        done = datapilot("instance", command, "--data", tmp_path / "none")
        assert done.exit_code == 2
        assert "does not contain an instance" in done.stderr
    assert not (tmp_path / "none").exists()
