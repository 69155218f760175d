"""`datapilot dbt integrations` with instances that have, or lack, its newer API calls."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from tests.support import fault_actions as act
from tests.support.commands import Outcome, datapilot
from tests.support.fault_proxy import At, fault_proxy
from tests.support.protocol_server import CREATED, INTEGRATION, ProtocolServer, Reply
from tests.support.terminal import at_a_terminal

INTEGRATIONS = "/dbt/v1/project_integrations"
ENVIRONMENT = f"GET {INTEGRATIONS}/7/PROD"
PURGE_AT = "2026-12-24T10:00:00.123456+00:00"
DELETED = {**INTEGRATION, "is_deleted": True, "purge_at": PURGE_AT}

pytestmark = pytest.mark.usefixtures("no_retry_delay")


def integrations(
    hosted: ProtocolServer, *words: object, env: Mapping[str, str] | None = None
) -> Outcome:
    return datapilot("dbt", "integrations", *words, env={**hosted.access, **(env or {})})


def answer(hosted: ProtocolServer, route: str, body: object, status: int = 200) -> None:
    hosted.answers[route] = lambda _: Reply(body, status)


def sent_bodies(hosted: ProtocolServer, method: str) -> list[object]:
    """Return the bodies of the requests with this method."""
    return [
        request.json for request in hosted.requests if request.method == method and request.body
    ]


# rename


@pytest.mark.parametrize("selected", [("--integration-id", 7), ("--integration-name", "shop")])
def test_rename_sends_the_new_name(selected: tuple[object, ...], hosted: ProtocolServer) -> None:
    answer(hosted, f"PATCH {INTEGRATIONS}/7", {**INTEGRATION, "name": "store"})
    done = integrations(hosted, "rename", *selected, "--to", " store ", "--json")
    assert done.exit_code == 0, done.output
    assert done.json == {"ok": True, "id": 7, "name": "store", "previous_name": "shop"}
    assert sent_bodies(hosted, "PATCH") == [{"name": "store"}]
    text = integrations(hosted, "rename", *selected, "--to", "store").stdout
    assert text == "Renamed integration 7 from 'shop' to 'store'.\n"


def test_rename_is_retried_after_cut_response_but_delete_is_not(hosted: ProtocolServer) -> None:
    answer(hosted, f"PATCH {INTEGRATIONS}/7", {**INTEGRATION, "name": "store"})
    answer(hosted, f"DELETE {INTEGRATIONS}/7", {"ok": True, "id": 7, "purge_at": PURGE_AT})
    faults = [At("PATCH", act.cut_answer(0), 1), At("DELETE", act.cut_answer(0), 1)]
    with fault_proxy(hosted.url, *faults) as proxy:
        access = {**hosted.access, "ALTIMATE_URL": proxy.url}
        renamed = integrations(hosted, "rename", "--integration-id", 7, "--to", "store", env=access)
        deleted = integrations(hosted, "delete", "--integration-id", 7, "--yes", env=access)
        assert (proxy.count("PATCH"), proxy.count("DELETE")) == (2, 1)
    assert renamed.exit_code == 0, renamed.output
    assert deleted.exit_code == 5, deleted.output


def test_rename_reports_why_the_instance_rejects_the_name(hosted: ProtocolServer) -> None:
    answer(hosted, f"PATCH {INTEGRATIONS}/7", {"detail": "integration 8 has this name"}, 409)
    done = integrations(hosted, "rename", "--integration-id", 7, "--to", "store", "--json")
    assert done.exit_code == 2
    assert "integration 8 has this name" in done.json["error"]["message"]


# delete and undelete


def test_delete_reports_time_limit_of_undelete(hosted: ProtocolServer) -> None:
    deletion = {"ok": True, "id": 7, "name": "shop", "deleted_at": CREATED, "purge_at": PURGE_AT}
    answer(hosted, f"DELETE {INTEGRATIONS}/7", deletion)
    done = integrations(hosted, "delete", "--integration-name", "shop", "--yes")
    assert done.exit_code == 0, done.output
    assert "Deleted integration 7, 'shop'." in done.stdout
    assert "Until 2026-12-24T10:00:00+00:00, this command restores it" in done.stdout
    assert "datapilot dbt integrations undelete --integration-id 7" in done.stdout
    machine = integrations(hosted, "delete", "--integration-id", 7, "--yes", "--json").json
    assert machine == {
        "ok": True,
        "id": 7,
        "name": "shop",
        "deleted_at": "2026-01-01T00:00:00+00:00",
        "purge_at": PURGE_AT,
    }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_delete_without_terminal_requires_yes_option(
    options: list[str], hosted: ProtocolServer
) -> None:
    done = integrations(hosted, "delete", "--integration-id", 7, *options)
    assert done.exit_code == 2
    assert "Add --yes to delete it without confirmation" in done.stderr
    assert hosted.calls == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize(("typed", "is_deleted"), [("shop", True), ("Shop", False), ("y", False)])
def test_delete_at_terminal_requires_typed_name(
    typed: str, is_deleted: bool, hosted: ProtocolServer
) -> None:
    answer(hosted, f"DELETE {INTEGRATIONS}/7", {"ok": True, "id": 7, "purge_at": PURGE_AT})
    output = at_a_terminal(
        ["dbt", "integrations", "delete", "--integration-id", "7"],
        {"Name of the integration, to confirm: ": typed},
        {**os.environ, **hosted.access},
    )
    assert "deletes integration 7, 'shop', with all its environments: PROD" in output
    assert (f"DELETE {INTEGRATIONS}/7" in hosted.calls) is is_deleted
    assert ("Deleted integration 7" in output) is is_deleted
    assert (f"nothing was deleted: '{typed}' is not the name" in output) is not is_deleted


def test_undelete_finds_deleted_integration_by_name(hosted: ProtocolServer) -> None:
    answer(hosted, f"GET {INTEGRATIONS}", [{**INTEGRATION, "id": 8}, DELETED])
    answer(hosted, f"POST {INTEGRATIONS}/7/undelete", INTEGRATION)
    done = integrations(hosted, "undelete", "--integration-name", "shop", "--json")
    assert done.exit_code == 0, done.output
    assert done.json == {"ok": True, "id": 7, "name": "shop", "environments": ["PROD"]}
    assert hosted.requests[0].query == {"include_deleted": "true"}
    text = integrations(hosted, "undelete", "--integration-id", 7).stdout
    assert text == "Undeleted integration 7, 'shop'.\n"


def test_undelete_of_unknown_name_suggests_list(
    hosted: ProtocolServer,
) -> None:
    done = integrations(hosted, "undelete", "--integration-name", "gone")
    assert done.exit_code == 4
    assert "no deleted integration has the name 'gone'" in done.stderr
    assert "`datapilot dbt integrations list --deleted`" in done.stderr


def test_list_deleted_shows_deleted_integrations_with_purge_time(hosted: ProtocolServer) -> None:
    none = integrations(hosted, "list", "--deleted")
    assert none.stdout == "No deleted integrations, or this instance does not store them.\n"
    answer(hosted, f"GET {INTEGRATIONS}", [{**INTEGRATION, "id": 8, "name": "kept"}, DELETED])
    shown = integrations(hosted, "list", "--deleted").stdout
    assert "2026-12-24T10:00:00+00:00" in shown
    assert "kept\n" not in shown
    (listed,) = integrations(hosted, "list", "--deleted", "--json").json["integrations"]
    assert (listed["id"], listed["purge_at"]) == (7, PURGE_AT)


# accept and checks


def test_accept_reports_where_file_is_current(hosted: ProtocolServer) -> None:
    accepted = {
        "ok": True,
        "dbt_core_integration_file_id": 12,
        "sha256": "ab",
        "dbt_core_integration_id": 7,
        "environment": "PROD",
    }
    answer(hosted, "POST /dbt/v1/accept_upload", accepted)
    done = integrations(hosted, "accept", 12)
    assert done.stdout == "File 12 is current in integration 7, environment PROD.\n"
    assert sent_bodies(hosted, "POST") == [{"dbt_core_integration_file_id": 12}]
    machine = integrations(hosted, "accept", 12, "--json").json
    assert machine == {
        "ok": True,
        "integration_id": 7,
        "environment": "PROD",
        "file_id": 12,
        "sha256": "ab",
    }


def test_checks_changes_only_named_checks(hosted: ProtocolServer) -> None:
    answer(hosted, ENVIRONMENT, {**INTEGRATION, "disabled_checks": ["older", "from a newer one"]})
    changed = ["from a newer one", "relations"]
    answer(hosted, f"POST {INTEGRATIONS}/7/PROD/checks", {"ok": True, "disabled_checks": changed})
    words = ("checks", "--integration-id", 7, "--disable", "relations", "--enable", "older")
    done = integrations(hosted, *words, "--json")
    assert done.exit_code == 0, done.output
    assert sent_bodies(hosted, "POST") == [{"disabled": changed}]
    assert done.json["disabled_checks"] == changed
    rows = {
        line.split()[0]: line.split()[1]
        for line in integrations(hosted, *words).stdout.splitlines()
    }
    assert rows["relations"] == "disabled"
    assert rows["older"] == "enabled"


def test_checks_without_options_changes_nothing(hosted: ProtocolServer) -> None:
    answer(hosted, ENVIRONMENT, {**INTEGRATION, "disabled_checks": []})
    done = integrations(hosted, "checks", "--integration-id", 7, "--json")
    assert done.json == {
        "ok": True,
        "integration_id": 7,
        "environment": "PROD",
        "disabled_checks": [],
    }
    assert hosted.calls == [ENVIRONMENT]


def test_checks_rejects_contradictory_options_before_request(hosted: ProtocolServer) -> None:
    words = ("--integration-id", 7, "--disable", "older", "--enable", "older")
    done = integrations(hosted, "checks", *words)
    assert done.exit_code == 2
    assert "--disable and --enable name the same check: older" in done.stderr
    assert hosted.calls == []


# show and history


def test_show_accepts_response_with_sync_history_only(
    hosted: ProtocolServer,
) -> None:
    syncs = [
        {"type": "In Progress", "time": "2026-11-24T10:00:00Z", "log_file": None},
        {"type": "Completed", "time": "2026-11-23T10:00:00Z", "log_file": "https://a/log"},
    ]
    answer(hosted, ENVIRONMENT, {**INTEGRATION, "sync_history": syncs})
    done = integrations(hosted, "show", "--integration-id", 7)
    assert done.exit_code == 0, done.output
    assert "2026-11-23T10:00:00+00:00  Completed    https://a/log" in done.stdout
    assert "2026-11-24T10:00:00+00:00  In Progress" in done.stdout
    machine = integrations(hosted, "show", "--integration-id", 7, "--json").json
    times = [sync.pop("time") for sync in machine["sync_history"]]
    assert times == ["2026-11-24T10:00:00+00:00", "2026-11-23T10:00:00+00:00"]
    assert machine["sync_history"] == [
        {"type": "In Progress", "log_file": None},
        {"type": "Completed", "log_file": "https://a/log"},
    ]
    history = integrations(hosted, "history", "--integration-id", 7)
    assert "this instance does not record them" in history.stdout


# Instances without these API calls

UNSUPPORTED: Mapping[str, tuple[list[object], str, int]] = {
    "rename": (["--integration-id", 7, "--to", "x"], f"PATCH {INTEGRATIONS}/7", 2),
    "delete": (["--integration-id", 7, "--yes"], f"DELETE {INTEGRATIONS}/7", 2),
    "accept": ([12], "POST /dbt/v1/accept_upload", 2),
    "checks": (
        ["--integration-id", 7, "--disable", "older"],
        f"POST {INTEGRATIONS}/7/PROD/checks",
        2,
    ),
}


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize("command", UNSUPPORTED)
def test_missing_api_call_is_reported(command: str, status: int, hosted: ProtocolServer) -> None:
    words, route, exit_code = UNSUPPORTED[command]
    answer(hosted, ENVIRONMENT, {**INTEGRATION, "disabled_checks": []})
    answer(hosted, route, {"detail": "Not Found"}, status)
    done = integrations(hosted, command, *words)
    assert hosted.calls[-1] == route
    if (command, status) == ("accept", 404):
        # The response does not show whether the file or the call is missing.
        assert done.exit_code == 4
        assert "The hosted service and older releases cannot accept files." in done.stderr
        return
    assert done.exit_code == exit_code, done.output
    assert f"{hosted.url} does not support this (HTTP {status})" in done.stderr
    assert "Use its web page, or upgrade it." in done.stderr


def test_checks_of_instance_without_checks_is_reported(hosted: ProtocolServer) -> None:
    answer(hosted, ENVIRONMENT, INTEGRATION)
    done = integrations(hosted, "checks", "--integration-id", 7)
    assert done.exit_code == 2
    assert "has no checks that can be disabled" in done.stderr


@pytest.mark.parametrize("command", ["rename", "delete"])
def test_unknown_integration_is_not_reported_as_missing_call(
    command: str, hosted: ProtocolServer
) -> None:
    options = {"rename": ["--to", "x"], "delete": ["--yes"]}[command]
    done = integrations(hosted, command, "--integration-id", 99, *options)
    assert done.exit_code == 4
    assert "no integration has the ID 99" in done.stderr
    assert {request.method for request in hosted.requests} == {"GET"}
