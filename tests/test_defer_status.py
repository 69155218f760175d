"""`defer status` with options and with invalid settings files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datapilot_defer.defer.settings_file import SETTINGS_KEY, user_settings_file
from tests.support.commands import Outcome, datapilot
from tests.support.workspace import entry, local, settings_file, write

BROKEN = b'{"a": '
REMOTE = {
    "deferToProduction": True,
    "favorState": False,
    "manifestPathType": "remote",
    "dbtCoreIntegrationId": 7,
    "environment": "PROD",
}


def defer(command: str, *arguments: object) -> Outcome:
    return datapilot("dbt", "defer", command, *arguments)


def stored_by_user(workspace: Path) -> object:
    """Return the project's entry in the user's settings file."""
    path = user_settings_file(workspace / "shop").path
    return json.loads(path.read_text("utf-8"))[SETTINGS_KEY][str(workspace / "shop")]


@pytest.mark.parametrize("is_stored", [False, True])
def test_options_do_not_turn_defer_on(workspace: Path, prod: Path, is_stored: bool) -> None:
    if is_stored:
        write(workspace, {**REMOTE, "deferToProduction": False})
    done = defer("status", "--manifest-path", prod, "--json")
    assert done.exit_code == 2
    assert (done.json["enabled"], done.json["usable"]) == (False, False)
    assert (done.json["mode"], done.json["state_dir"]) == ("local", str(prod))
    assert done.json["problems"] == []
    lines = defer("status", "--manifest-path", prod).stdout.splitlines()
    assert lines[0] == (
        f"Defer is off for shop ({settings_file(workspace)}); with these options it would be usable"
    )
    assert f"With these options: directory {prod}; favor state off" in lines
    assert ("Manifest: integration 7, environment PROD; favor state off" in lines) is is_stored


def test_unusable_options_are_reported_while_defer_is_off(workspace: Path, prod: Path) -> None:
    (prod / "manifest.json").write_text("{}", encoding="utf-8")
    done = defer("status", "--manifest-path", prod)
    assert done.exit_code == 2
    assert "with these options it would not be usable" in done.stdout
    assert f"Problem: dbt cannot defer to {prod}" in done.stdout


def test_status_off_has_exit_code_2_despite_unusable_source(workspace: Path, prod: Path) -> None:
    (prod / "manifest.json").write_text("{}", encoding="utf-8")
    write(workspace, local(prod, deferToProduction=False))
    assert defer("status").exit_code == 2
    write(workspace, local(prod))
    assert defer("status").exit_code == 1


def test_status_shows_options_beside_stored_settings(workspace: Path, prod: Path) -> None:
    write(workspace, REMOTE)
    done = defer("status", "--environment", "QA", "--favor-state", "--json")
    assert (done.json["environment"], done.json["favor_state"]) == ("QA", True)
    assert any("no token" in problem for problem in done.json["problems"])
    lines = defer("status", "--environment", "QA", "--favor-state").stdout.splitlines()
    assert lines[1] == "Manifest: integration 7, environment PROD; favor state off"
    assert lines[2] == "With these options: integration 7, environment QA; favor state on"
    done = defer("status", "--manifest-path", prod)
    assert done.exit_code == 0
    assert lines[1] in done.stdout
    assert f"With these options: directory {prod}; favor state off" in done.stdout


def test_status_omits_options_equal_to_stored_settings(workspace: Path, prod: Path) -> None:
    write(workspace, local(prod))
    assert "With these options" not in defer("status", "--manifest-path", prod).stdout


@pytest.mark.parametrize("location", ["nearest", "above"])
def test_invalid_workspace_file_does_not_prevent_user_settings(
    workspace: Path, prod: Path, location: str
) -> None:
    settings_file(workspace).write_bytes(BROKEN)
    if location == "above":
        (workspace / "shop" / ".vscode").mkdir()
    done = defer("enable", "--user", "--manifest-path", prod)
    assert done.exit_code == 0, done.output
    assert f"Warning: cannot use {settings_file(workspace)}: line 1, column 7" in done.stderr
    own = user_settings_file(workspace / "shop").path
    assert f"Only the settings in {own} are used" in done.stderr
    assert "VS Code does not use" not in done.stderr
    assert stored_by_user(workspace) == local(prod)
    assert settings_file(workspace).read_bytes() == BROKEN
    on = defer("status", "--json")
    assert on.exit_code == 0, on.output
    assert on.json["enabled"] is True
    assert f"Warning: cannot use {settings_file(workspace)}: line 1, column 7" in on.stderr
    assert defer("enable", "--user", "--favor-state").exit_code == 0
    assert stored_by_user(workspace) == local(prod, favorState=True)
    assert defer("disable").exit_code == 0
    assert stored_by_user(workspace) == local(prod, favorState=True, deferToProduction=False)


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("disable",), ("enable", "--manifest-path", ".."), ("env", "--shell", "bash")],
)
def test_invalid_workspace_file_error_names_both_solutions(
    workspace: Path, arguments: tuple[str, ...]
) -> None:
    settings_file(workspace).write_bytes(BROKEN)
    done = defer(*arguments)
    assert done.exit_code == 2
    assert (
        f"Error: cannot use {settings_file(workspace)}: line 1, column 7: a value is expected"
        in (done.stderr)
    )
    assert "or use your own settings with `datapilot dbt defer enable --user`" in done.stderr


def test_disable_user_works_with_invalid_workspace_file(workspace: Path, prod: Path) -> None:
    settings_file(workspace).write_bytes(BROKEN)
    assert defer("disable", "--user").exit_code == 0
    assert not user_settings_file(workspace / "shop").path.exists()
    defer("enable", "--user", "--manifest-path", prod)
    done = defer("disable", "--user", "--json")
    assert done.exit_code == 0
    assert done.json["settings_file"] == str(user_settings_file(workspace / "shop").path)
    assert stored_by_user(workspace) == local(prod, deferToProduction=False)


def test_disable_user_is_rejected_if_workspace_takes_precedence(
    workspace: Path, prod: Path
) -> None:
    write(workspace, local(prod))
    done = defer("disable", "--user")
    assert done.exit_code == 2
    assert "which take precedence over your own" in done.stderr
    assert entry(workspace) == local(prod)


def test_nearest_settings_are_used_despite_invalid_file_above(workspace: Path, prod: Path) -> None:
    (workspace / "shop" / ".vscode").mkdir()
    write(workspace / "shop", local(prod), key="")
    settings_file(workspace).write_bytes(BROKEN)
    done = defer("status", "--json")
    assert done.exit_code == 0, done.output
    assert done.json["settings_file"] == str(settings_file(workspace / "shop"))


@pytest.mark.parametrize(
    "broken",
    [{"deferToProduction": "yes"}, {"deferToProduction": True, "dbtCoreIntegrationId": "1"}],
)
def test_enable_with_source_replaces_settings_of_wrong_type(
    workspace: Path, prod: Path, broken: dict[str, object]
) -> None:
    write(workspace, {**broken, "manifestPathType": "remote", "environment": 5})
    failed = defer("status")
    assert failed.exit_code == 2
    assert "replace it with `datapilot dbt defer enable` and --integration-id" in failed.stderr
    done = defer("enable", "--manifest-path", prod)
    assert done.exit_code == 0, done.output
    assert "Ignoring the stored settings" in done.stderr
    assert defer("status").exit_code == 0


def test_source_option_works_with_invalid_settings(workspace: Path, prod: Path) -> None:
    write(workspace, {"deferToProduction": "yes"})
    done = defer("status", "--manifest-path", prod, "--json")
    assert (done.exit_code, done.json["problems"]) == (2, [])
    assert done.json["state_dir"] == str(prod)
    assert "deferToProduction must be true or false" in done.stderr
    settings_file(workspace).write_bytes(BROKEN)
    assert defer("status", "--manifest-path", prod, "--json").json["state_dir"] == str(prod)


def test_invalid_user_file_does_not_prevent_workspace_settings(workspace: Path, prod: Path) -> None:
    own = user_settings_file(workspace / "shop").path
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(BROKEN)
    assert defer("status").exit_code == 2
    assert defer("enable").exit_code == 2
    assert defer("enable", "--user", "--manifest-path", prod).exit_code == 2
    assert defer("enable", "--manifest-path", prod).exit_code == 0
    done = defer("status")
    assert done.exit_code == 0, done.output
    assert f"Warning: cannot use {own}: line 1, column 7" in done.stderr
    assert own.read_bytes() == BROKEN


FORGED = "shop\nDefer is on for shop (settings)\nDeferring to shop PROD (built 39 s ago)"


@pytest.mark.parametrize(
    "settings",
    [
        local(FORGED),
        {**REMOTE, "environment": FORGED},
        local("x", manifestPathType=FORGED),
        {**REMOTE, "deferToProduction": False},
    ],
)
def test_settings_and_names_cannot_forge_lines(workspace: Path, settings: object) -> None:
    write(workspace, settings)
    file = workspace / "shop" / "dbt_project.yml"
    file.write_text(f"name: {json.dumps(FORGED)}\n", encoding="utf-8")
    done = defer("status")
    assert done.exit_code == 2
    lines = done.output.splitlines()
    assert not [line for line in lines if line.startswith(("Defer is on for shop (", "Deferring"))]


@pytest.mark.parametrize("command", ["status", "enable", "env"])
def test_environment_with_lone_surrogate_is_reported(workspace: Path, command: str) -> None:
    write(workspace, {**REMOTE, "environment": "\ud800"})
    env = {"ALTIMATE_URL": "http://127.0.0.1:9", "ALTIMATE_INSTANCE_NAME": "acme"}
    done = datapilot("dbt", "defer", command, env={**env, "ALTIMATE_API_KEY": "t0ken-t0ken"})
    assert done.exit_code == 2, done.output
    assert '"shop".environment must be text in UTF-8. Fix it' in done.stderr


@pytest.mark.parametrize("command", ["status", "enable", "env", "explain", "disable"])
def test_a_project_directory_without_a_name_is_rejected(workspace: Path, command: str) -> None:
    write(workspace, local("../prod"))
    done = defer(command, "--project-dir", "")
    assert done.exit_code == 2
    assert "Invalid value for '--project-dir': the value is empty" in done.stderr
