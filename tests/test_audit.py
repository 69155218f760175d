"""The audit log: what is recorded, what never is, and who can read it."""

from __future__ import annotations

import getpass
import json
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests

from datapilot_defer.errors import AccessDenied
from datapilot_defer.instance.services import audit as audit_service
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.storage import audit
from datapilot_defer.storage.audit import Actor, AuditAction
from datapilot_defer.storage.database import utc_now
from tests.support.commands import datapilot
from tests.support.instance_calls import SECONDS, call, make_integration, manifest, onboard
from tests.support.instances import RunningInstance
from tests.support.sign_ins import cookie_of, send_form, sign_in

ROOT = "dbt/v1/project_integrations"


def listed(instance: RunningInstance, *options: object) -> list[dict[str, Any]]:
    """Return the entries that `instance audit` prints, the oldest first."""
    done = datapilot("instance", "audit", "--data", instance.data, *options, "--json")
    assert done.exit_code == 0, done.output
    events: list[dict[str, Any]] = done.json["events"]
    return events[::-1]


def newest(instance: RunningInstance) -> dict[str, Any]:
    return listed(instance, "--limit", 1)[0]


def principal_of(instance: RunningInstance, token: str) -> Principal:
    principal = tokens.authenticate_token(instance.storage, token)
    assert principal is not None
    return principal


def change_database(instance: RunningInstance, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(instance.data / "records.sqlite3")) as connection, connection:
        connection.execute(statement, values)


def test_changes_by_api_calls_are_recorded_with_their_token(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    make_integration(instance, "SHOP", "STAGING")
    first = onboard(instance, integration_id, manifest(at="2026-11-22T10:00:00Z"))
    onboard(instance, integration_id, manifest(at="2026-11-22T11:00:00Z"))
    body: Mapping[str, Any]
    for method, path, body in (
        ("PATCH", f"{ROOT}/1", {"name": "store"}),
        ("POST", f"{ROOT}/1/PROD/checks", {"disabled": ["older", "relations"]}),
        ("POST", f"{ROOT}/1/PROD/restore", {"dbt_core_integration_file_id": first}),
        ("DELETE", f"{ROOT}/1", {}),
        ("POST", f"{ROOT}/1/undelete", {}),
    ):
        assert call(instance, method, path, json=body).status_code == 200
    events = [event for event in listed(instance) if event["integration_id"] == integration_id]
    assert [(event["action"], event["detail"]) for event in events] == [
        ("integration.create", "shop, PROD"),
        ("integration.create", "shop, STAGING"),
        ("integration.rename", "from shop to store"),
        ("checks.change", "disabled in PROD: older, relations"),
        ("artifact.restore", f"manifest.json {first} in PROD"),
        ("integration.delete", "store"),
        ("integration.undelete", "store"),
    ]
    with instance.storage.database.read() as connection:
        stored = audit.list_events(connection, 1, limit=1)[0]
    assert {(event["actor"], event["token_id"]) for event in events} == {("first", 1)}
    assert stored.at.utcoffset() == timedelta(0)


def test_calls_that_change_nothing_are_not_recorded(instance: RunningInstance) -> None:
    make_integration(instance)
    before = listed(instance)
    for method, path, body in (
        ("PATCH", f"{ROOT}/1", {"name": "shop"}),
        ("PATCH", f"{ROOT}/9", {"name": "x"}),
        ("POST", f"{ROOT}/1/PROD/checks", {"disabled": []}),
        ("POST", f"{ROOT}/1/undelete", {}),
        ("DELETE", f"{ROOT}/9", {}),
        ("POST", "dbt/v1/project_integration", {"name": "shop"}),
    ):
        call(instance, method, path, json=body)
    reader = instance.new_token("read")
    call(instance, "DELETE", f"{ROOT}/1", token=reader)
    assert [event["action"] for event in listed(instance)[len(before) :]] == ["token.create"]


def test_tokens_of_the_command_line_are_recorded_with_the_user(instance: RunningInstance) -> None:
    words = ("instance", "token")
    token = datapilot(
        *(*words, "create", "--data", instance.data, "--name", "ci", "--scope", "upload"),
        *("--scope", "read", "--json"),
    ).json
    created = newest(instance)
    assert created["action"] == "token.create"
    assert created["detail"] == "ci (read, upload)"
    assert created["actor"] == f"command line ({getpass.getuser()})"
    assert created["token_id"] is None
    for expected in (0, 4):
        done = datapilot(*words, "revoke", "--data", instance.data, token["id"])
        assert done.exit_code == expected
    events = [event for event in listed(instance) if event["action"] == "token.revoke"]
    assert [event["detail"] for event in events] == [f"ci (id {token['id']})"]
    assert token["token"] not in json.dumps(listed(instance))


def test_a_user_without_a_name_is_recorded_too(
    instance: RunningInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise OSError("no username set in the environment")

    monkeypatch.setattr(getpass, "getuser", fail)
    datapilot(
        "instance", "token", "create", "--data", instance.data, "--name", "x", "--scope", "read"
    )
    assert newest(instance)["actor"] == "command line (unknown user)"


def test_changes_on_the_page_are_recorded_with_address_and_token(
    instance: RunningInstance,
) -> None:
    cookie = cookie_of(sign_in(instance, instance.new_token("admin", name="Ann")))
    principal = tokens.authenticate_session(instance.storage, cookie)
    assert principal is not None
    caller = replace(principal, address="192.0.2.7")
    tokens.revoke_own_token(instance.storage, caller, principal.token.id)
    event = newest(instance)
    assert event["action"] == "token.revoke"
    assert (event["actor"], event["token_id"], event["address"]) == ("Ann", 2, "192.0.2.7")
    # Revoking one's own token is possible and ends the session.
    assert tokens.authenticate_session(instance.storage, cookie) is None


def test_the_address_of_a_session_is_the_clients(instance: RunningInstance) -> None:
    cookie = cookie_of(sign_in(instance))
    fields = {"name": "shop", "environment": "PROD", "integration_type": "dbt_core"}
    path = "/settings/integrations"
    if send_form(instance, cookie, path, **fields).status_code == 405:
        send_form(instance, cookie, f"{path}/add", **fields)
    event = newest(instance)
    assert (event["action"], event["address"]) == ("integration.create", "127.0.0.1")


def test_a_failed_sign_in_is_recorded_without_the_token(instance: RunningInstance) -> None:
    revoked = instance.new_token("read", name="Bob's laptop")
    change_database(instance, "UPDATE token SET revoked_at = created_at WHERE id = 2")
    expired = instance.new_token("read", name="old", expires_at=utc_now())
    other = "B" if instance.token[10] == "A" else "A"
    mistyped = f"{instance.token[:10]}{other}{instance.token[11:]}"
    for token in ("xyzzy-secret", mistyped, revoked, expired):
        assert sign_in(instance, token).status_code == 401
    events = [event for event in listed(instance) if event["action"] == "sign_in.fail"]
    assert [(event["actor"], event["token_id"], event["detail"]) for event in events] == [
        ("unknown token", None, ""),
        ("unknown token", None, ""),
        ("Bob's laptop", 2, "the token is revoked"),
        ("old", 3, "the token has expired"),
    ]
    assert {event["address"] for event in events} == {"127.0.0.1"}
    for path in instance.data.rglob("records.sqlite3*"):
        content = path.read_bytes()
        for token in ("xyzzy-secret", mistyped, revoked, expired):
            assert token.encode() not in content


def test_a_sign_in_form_of_another_site_is_not_a_failed_sign_in(instance: RunningInstance) -> None:
    sign_in(instance, "wrong", Origin="https://evil.example.com")
    sign_in(instance)
    assert failures(instance) == []


def test_failed_sign_ins_are_limited_per_address_and_in_all(instance: RunningInstance) -> None:
    for _ in range(12):
        audit_service.record_failed_sign_in(instance.storage, "wrong", "192.0.2.1")
    assert len(failures(instance)) == 10
    for number in range(100):
        audit_service.record_failed_sign_in(instance.storage, "wrong", f"198.51.100.{number}")
    assert len(failures(instance)) == 60
    # After an hour, failures are recorded again.
    for minutes, recorded in ((59, 60), (61, 61)):
        moment = f"{utc_now() - timedelta(minutes=minutes):%Y-%m-%d %H:%M:%S.%f}"
        change_database(instance, "UPDATE audit SET at = ?", moment)
        audit_service.record_failed_sign_in(instance.storage, "wrong", "192.0.2.1")
        assert len(failures(instance)) == recorded


def test_failed_sign_ins_at_the_same_time_do_not_exceed_the_limit(
    instance: RunningInstance,
) -> None:
    threads = [threading.Thread(target=sign_in, args=(instance, "wrong")) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures(instance)) == 10


def failures(instance: RunningInstance) -> list[dict[str, Any]]:
    entries = listed(instance, "--limit", 1000)
    return [event for event in entries if event["action"] == "sign_in.fail"]


def test_only_an_admin_reads_the_log_page_by_page(instance: RunningInstance) -> None:
    for number in range(5):
        instance.new_token("read", name=f"token {number}")
    admin = principal_of(instance, instance.token)
    pages: list[str] = []
    before_id = None
    while events := audit_service.list_events(
        instance.storage, admin, limit=2, before_id=before_id
    ):
        pages += [event.detail for event in events]
        before_id = events[-1].id
    assert pages[:5] == [f"token {number} (read)" for number in (4, 3, 2, 1, 0)]
    for scope in ("read", "upload"):
        principal = principal_of(instance, instance.new_token(scope))
        with pytest.raises(AccessDenied):
            audit_service.list_events(instance.storage, principal, limit=1)


def test_an_instance_sees_its_own_entries_and_those_of_unknown_tokens(
    instance: RunningInstance,
) -> None:
    datapilot("instance", "init", "--data", instance.data, "--instance-name", "rival")
    make_integration(instance)
    sign_in(instance, "wrong")
    own = [event["action"] for event in listed(instance, "--instance-name", "acme")]
    rival = [event["action"] for event in listed(instance, "--instance-name", "rival")]
    assert own[-2:] == ["integration.create", "sign_in.fail"]
    assert "integration.create" not in rival
    assert rival[-1] == "sign_in.fail"
    ambiguous = datapilot("instance", "audit", "--data", instance.data)
    assert ambiguous.exit_code == 2
    assert "--instance-name" in ambiguous.stderr
    unknown = datapilot("instance", "audit", "--data", instance.data, "--instance-name", "x")
    assert unknown.exit_code == 4


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("7d", ["new"]),
        ("36h", ["new"]),
        ("90m", ["new"]),
        ("30d", ["old", "new"]),
        ("TODAY", ["new"]),
        ("2001-01-01", ["old", "new"]),
        ("2001-01-01T00:00:00Z", ["old", "new"]),
        ("2001-01-01T00:00:00+14:00", ["old", "new"]),
        ("9999-12-31T23:00:00", []),
    ],
)
def test_since_takes_an_age_a_date_or_a_timestamp(
    instance: RunningInstance, since: str, expected: list[str]
) -> None:
    change_database(instance, "DELETE FROM audit")
    with instance.storage.database.write() as connection:
        for name in ("old", "new"):
            audit.record_event(connection, 1, Actor("test"), AuditAction.TOKEN_CREATED, detail=name)
    old = f"{utc_now() - timedelta(days=8):%Y-%m-%d %H:%M:%S.%f}"
    change_database(instance, "UPDATE audit SET at = ? WHERE detail = 'old'", old)
    if since == "TODAY":
        since = f"{utc_now() - timedelta(minutes=5):%Y-%m-%dT%H:%M:%S}"
    assert [event["detail"] for event in listed(instance, "--since", since)] == expected


@pytest.mark.parametrize(
    "since", ["yesterday", "-1d", "7", "2026-13-01", "0001-01-01T00:00:00+14:00", "999999999w"]
)
def test_an_invalid_since_is_a_usage_error(instance: RunningInstance, since: str) -> None:
    done = datapilot("instance", "audit", "--data", instance.data, f"--since={since}")
    assert done.exit_code == 2
    assert "is not a valid time. Use an age such as 7d" in done.stderr


def test_text_from_outside_does_not_control_the_terminal(instance: RunningInstance) -> None:
    with instance.storage.database.write() as connection:
        audit.record_event(
            connection,
            1,
            Actor("\x1b[31mred\u202e", address="1.2.3.4\nforged"),
            AuditAction.TOKEN_CREATED,
            detail="first\nsecond\tthird\x07" + "x" * 1000,
        )
    done = datapilot("instance", "audit", "--data", instance.data, "--limit", 1)
    header, row = done.stdout.splitlines()
    assert header.split() == ["time", "action", "actor", "address", "integration", "detail"]
    assert row.isprintable()
    assert "forged" in row
    event = newest(instance)
    assert len(event["detail"]) == 500
    assert datetime.fromisoformat(event["at"]).utcoffset() == timedelta(0)


def test_an_action_of_a_newer_release_is_listed(instance: RunningInstance) -> None:
    change_database(
        instance,
        "INSERT INTO audit (instance_id, at, action, actor, detail) "
        "VALUES (1, '2026-11-24 00:00:00.000000', 'token.borrow', 'x', '')",
    )
    assert newest(instance)["action"] == "token.borrow"


def test_old_entries_are_deleted_in_batches(instance: RunningInstance) -> None:
    change_database(instance, "DELETE FROM audit")
    for number in range(7):
        instance.new_token("read", name=f"token {number}")
    old = f"{utc_now() - timedelta(days=401):%Y-%m-%d %H:%M:%S.%f}"
    change_database(instance, "UPDATE audit SET at = ? WHERE detail < 'token 5'", old)
    limit = utc_now() - timedelta(days=400)
    deleted = []
    for _ in range(4):
        with instance.storage.database.write() as connection:
            deleted.append(audit.delete_older_than(connection, limit, limit=2))
    assert deleted == [2, 2, 1, 0]
    assert [event["detail"] for event in listed(instance)] == ["token 5 (read)", "token 6 (read)"]


def test_a_sign_in_fails_as_always_when_nothing_can_be_recorded(instance: RunningInstance) -> None:
    change_database(instance, "ALTER TABLE audit RENAME TO moved")
    answer = requests.post(f"{instance.url}/sign-in", data={"token": "wrong"}, timeout=SECONDS)
    assert answer.status_code == 401


def test_an_empty_log_is_not_an_error(instance: RunningInstance) -> None:
    change_database(instance, "DELETE FROM audit")
    assert datapilot("instance", "audit", "--data", instance.data).stdout == "no entries\n"
