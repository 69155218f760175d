"""Settings that enable, disable and status read and write in the editor's file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from datapilot_defer import dbt_file, dbt_project
from datapilot_defer.deadline import Deadline
from datapilot_defer.defer import jsonc
from datapilot_defer.defer import project_settings as defer_settings
from datapilot_defer.defer.project_settings import relocate_path, to_portable_path
from datapilot_defer.defer.settings_file import (
    SETTINGS_KEY,
    SettingsFile,
    read_settings_files,
    user_settings_file,
)
from datapilot_defer.errors import UsageError
from tests.support.commands import Outcome, datapilot
from tests.support.workspace import SETTINGS, entry, local, settings_file, write


def status(*arguments: str) -> Outcome:
    return datapilot("dbt", "defer", "status", "--json", *arguments)


def test_enable_writes_entry_like_panel_and_keeps_other_bytes(workspace: Path, prod: Path) -> None:
    settings_file(workspace).write_text(SETTINGS, encoding="utf-8")
    done = datapilot("dbt", "defer", "enable", "--manifest-path", prod, "--favor-state")
    assert done.exit_code == 0, done.output
    assert settings_file(workspace).read_text("utf-8") == SETTINGS.replace(
        '"other": {"deferToProduction": false},\n',
        f"""\
"other": {{"deferToProduction": false}},
        "shop": {{
            "deferToProduction": true,
            "favorState": true,
            "manifestPathType": "local",
            "manifestPathForDeferral": {json.dumps(str(prod))}
        }},
""",
    )


def test_enable_creates_settings_file(workspace: Path, prod: Path) -> None:
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert entry(workspace) == local(prod)


def test_directory_inside_workspace_is_stored_relative_to_it(workspace: Path, prod: Path) -> None:
    shutil.move(prod, workspace / "prod")
    assert datapilot("dbt", "defer", "enable", "--manifest-path", "../prod").exit_code == 0
    assert entry(workspace) == local("${workspaceFolder}/prod")
    assert status().json["state_dir"] == str(workspace / "prod")


def test_path_of_manifest_json_means_its_directory(workspace: Path, prod: Path) -> None:
    assert (
        datapilot("dbt", "defer", "enable", "--manifest-path", prod / "manifest.json").exit_code
        == 0
    )
    assert entry(workspace) == local(prod)


def test_enable_after_disable_uses_previous_source(workspace: Path, prod: Path) -> None:
    datapilot("dbt", "defer", "enable", "--manifest-path", prod, "--favor-state")
    assert datapilot("dbt", "defer", "disable", "--json").json["enabled"] is False
    assert entry(workspace) == local(prod, deferToProduction=False, favorState=True)
    assert datapilot("dbt", "defer", "enable").exit_code == 0
    assert entry(workspace) == local(prod, favorState=True)


def test_each_settings_file_is_parsed_once(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file(workspace).write_text(SETTINGS, encoding="utf-8")
    parsed: list[str] = []
    parse = jsonc.parse

    def count_and_call(text: str) -> jsonc.JsoncValue:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr(jsonc, "parse", count_and_call)
    done = datapilot("dbt", "defer", "enable", "--manifest-path", prod)
    assert done.exit_code == 0, done.output
    assert parsed == ["", SETTINGS]  # The user's file, which is missing, and the workspace's.


def test_edit_between_read_and_write_is_kept(workspace: Path) -> None:
    settings_file(workspace).write_text(SETTINGS, encoding="utf-8")
    file = read_settings_files(workspace / "shop", {}).effective
    edited = SETTINGS.replace("100", "120")
    settings_file(workspace).write_text(edited, encoding="utf-8")
    file.update({"deferToProduction": True})
    assert '"editor.rulers": [120]' in settings_file(workspace).read_text("utf-8")


def test_local_manifest_is_read_once(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(workspace, local(prod))
    read: list[Path] = []

    def count_and_call(path: Path, file_name: str, deadline: Deadline) -> bytes:
        read.append(path)
        return dbt_file.read_dbt_file(path, file_name, deadline)

    monkeypatch.setattr("datapilot_defer.artifact.read_dbt_file", count_and_call)
    assert status().exit_code == 0
    assert read.count(prod / "manifest.json") == 1


def test_disable_without_settings_creates_no_file(workspace: Path) -> None:
    assert datapilot("dbt", "defer", "disable").exit_code == 0
    assert not settings_file(workspace).exists()


def test_enable_with_unusable_manifest_stores_nothing(workspace: Path, prod: Path) -> None:
    (prod / "manifest.json").write_text("{}", encoding="utf-8")
    for path, code in ((prod, 1), (prod / "no", 2)):
        done = datapilot("dbt", "defer", "enable", "--manifest-path", path)
        assert done.exit_code == code, done.output
        assert str(path) in done.stderr
    assert "is not a directory. Create it, and copy manifest.json into it from" in done.stderr
    assert not settings_file(workspace).exists()


def test_enable_without_source_lists_options(workspace: Path) -> None:
    done = datapilot("dbt", "defer", "enable")
    assert done.exit_code == 2
    assert "--integration-id ID`, `--integration-name NAME` or `--manifest-path DIR`" in done.stderr


def test_enable_rejects_two_sources(workspace: Path, prod: Path) -> None:
    done = datapilot("dbt", "defer", "enable", "--integration-id", 7, "--manifest-path", prod)
    assert done.exit_code == 2
    assert "not both" in done.stderr


def test_enable_without_dbt_reports_missing_check(workspace: Path, prod: Path) -> None:
    done = datapilot("dbt", "defer", "enable", "--manifest-path", prod)
    assert "dbt is not on PATH" in done.stderr
    assert "Skipping the check that dbt can read the manifest" in done.stderr
    assert (
        datapilot("dbt", "defer", "enable", "--manifest-path", prod, "--dbt", "/no/dbt").exit_code
        == 2
    )


def test_settings_outside_workspace_are_in_user_file(
    workspace: Path, prod: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / ".vscode").rmdir()
    done = datapilot("dbt", "defer", "enable", "--manifest-path", prod, "--json")
    own = user_settings_file(workspace / "shop")
    assert done.json["settings_file"] == str(own.path)
    assert own.path.is_relative_to(home)
    stored = json.loads(own.path.read_text("utf-8"))
    assert stored == {SETTINGS_KEY: {str(workspace / "shop"): local(prod)}}
    assert f"because there is no .vscode directory in {workspace / 'shop'}" in done.stderr


def test_enable_moves_settings_to_new_workspace(workspace: Path, prod: Path) -> None:
    (workspace / ".vscode").rmdir()
    shutil.move(prod, workspace / "shop" / "prod")
    datapilot("dbt", "defer", "enable", "--manifest-path", "prod", "--favor-state")
    own = user_settings_file(workspace / "shop").path
    text = json.loads(own.read_text("utf-8"))
    assert text[SETTINGS_KEY].keys() == {str(workspace / "shop")}
    text[SETTINGS_KEY]["/other"] = {"deferToProduction": True}
    own.write_text(json.dumps(text), encoding="utf-8")
    (workspace / ".vscode").mkdir()
    assert datapilot("dbt", "defer", "disable", "--json").json["settings_file"] == str(own)
    done = datapilot("dbt", "defer", "enable", "--json")
    assert done.json["settings_file"] == str(settings_file(workspace))
    assert "VS Code does not use" not in done.stderr
    assert entry(workspace) == local("${workspaceFolder}/shop/prod", favorState=True)
    assert json.loads(own.read_text("utf-8")) == {
        SETTINGS_KEY: {"/other": {"deferToProduction": True}}
    }
    assert datapilot("dbt", "defer", "disable", "--json").json["settings_file"] == str(
        settings_file(workspace)
    )
    assert status().json["enabled"] is False


def test_moving_settings_keeps_comments_of_other_projects(workspace: Path, prod: Path) -> None:
    own = user_settings_file(workspace / "shop").path
    own.parent.mkdir(parents=True, exist_ok=True)
    other = '        // of a colleague\n        "/other": {"favorState":true} // for now\n'
    text = f'{{\n    "{SETTINGS_KEY}": {{\n%s{other}    }}\n}}\n'
    entry_of_shop = f"        {json.dumps(str(workspace / 'shop'))}: {json.dumps(local(prod))},\n"
    own.write_text(text % entry_of_shop, encoding="utf-8")
    assert datapilot("dbt", "defer", "enable").exit_code == 0
    assert own.read_text("utf-8") == text % ""
    assert entry(workspace) == local(prod)


def test_user_option_stores_outside_workspace(workspace: Path, prod: Path) -> None:
    assert datapilot("dbt", "defer", "enable", "--user", "--manifest-path", prod).exit_code == 0
    assert not settings_file(workspace).exists()
    assert status().json["enabled"] is True


def test_user_option_is_rejected_if_workspace_takes_precedence(workspace: Path, prod: Path) -> None:
    write(workspace, {"deferToProduction": False})
    done = datapilot("dbt", "defer", "enable", "--user", "--manifest-path", prod)
    assert done.exit_code == 2
    assert "which take precedence over your own" in done.stderr


def test_vscode_directory_in_home_is_not_a_workspace(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / ".git").rmdir()
    monkeypatch.setenv("HOME", str(workspace))
    monkeypatch.setenv("USERPROFILE", str(workspace))
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert not settings_file(workspace).exists()


def test_workspace_above_git_root_is_ignored(workspace: Path, prod: Path) -> None:
    (workspace / "shop" / ".git").mkdir()
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert not settings_file(workspace).exists()


def test_projects_of_one_workspace_have_separate_entries(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workspace / "shop", workspace / "more" / "shop")
    datapilot("dbt", "defer", "enable", "--manifest-path", prod)
    monkeypatch.chdir(workspace / "more" / "shop" / "models")
    assert status().json["enabled"] is False
    datapilot("dbt", "defer", "enable", "--manifest-path", prod, "--favor-state")
    assert entry(workspace) == local(prod)
    key = os.path.join("more", "shop")  # noqa: PTH118 - like the panel
    assert entry(workspace, key) == local(prod, favorState=True)


def test_project_at_workspace_root_has_empty_key(workspace: Path, prod: Path) -> None:
    (workspace / "shop" / ".vscode").mkdir()
    write(workspace / "shop", local(prod), key="")
    assert status().json["enabled"] is True


def test_nearest_workspace_with_entry_is_used(workspace: Path, prod: Path) -> None:
    write(workspace, local(prod))
    (workspace / "shop" / ".vscode").mkdir()
    assert status().json["settings_file"] == str(settings_file(workspace))


@pytest.mark.skipif(os.name == "nt", reason="the panel writes backslashes on Windows")
def test_key_with_backslashes_is_recognized(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(workspace / "shop", workspace / "dbt" / "shop")
    monkeypatch.chdir(workspace / "dbt" / "shop")
    write(workspace, local(prod), key="dbt\\shop")
    assert status().json["enabled"] is True


def test_variables_in_path_are_expanded(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATES", str(prod.parent))
    write(workspace, local("${env:STATES}/prod"))
    assert status().json["state_dir"] == str(prod)
    write(workspace, local("${workspaceFolder}/../prod"))
    assert status().json["state_dir"] == str(prod)
    write(workspace, local("../prod"))
    assert status().json["state_dir"] == str(prod)
    datapilot("dbt", "defer", "enable", "--manifest-path", "${env:STATES}/prod")
    assert entry(workspace) == local("${env:STATES}/prod")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("STATES", "", "STATES, which is not set"),
        ("DATAPILOT_TOKEN", "t0ken", "DATAPILOT_TOKEN, which may contain a secret"),
        ("Altimate_Url", "t0ken", "Altimate_Url, which may contain a secret"),
        ("DBT_ENV_SECRET_PAT", "t0ken", "DBT_ENV_SECRET_PAT, which may contain a secret"),
        ("ALTIMATE_API_KEY", "t0ken", "ALTIMATE_API_KEY, which may contain a secret"),
    ],
)
def test_variable_that_cannot_be_expanded_is_reported(
    workspace: Path, name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    write(workspace, local(f"/x/${{env:{name}}}"))
    done = status()
    assert done.exit_code == 2
    assert message in done.json["problems"][0]
    assert "t0ken" not in done.output


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (local("x", deferToProduction="yes"), 'shop".deferToProduction must be true or false'),
        (local("x", favorState=1), "favorState must be true or false"),
        (local(7), None),
        (local("x", manifestPathForDeferral=7), "manifestPathForDeferral must be a text"),
        (local("x", manifestPathType="cloud"), 'must be "local" or "remote"'),
        (
            local("x", manifestPathType="remote", dbtCoreIntegrationId="seven"),
            "dbtCoreIntegrationId must be a number",
        ),
        ([1], "must be an object"),
    ],
)
def test_value_of_wrong_type_is_reported(
    workspace: Path, value: object, message: str | None
) -> None:
    write(workspace, value)
    done = status()
    assert done.exit_code == 2
    assert message is None or message in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ', "line 1, column 7"),
        (b'{"a": 1}\n}', "line 2, column 1"),
        (b"[1]", "not an object"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"dbt.deferConfigPerProject": []}', "must be an object"),
    ],
)
def test_invalid_settings_file_is_not_overwritten(
    workspace: Path, prod: Path, content: bytes, message: str
) -> None:
    settings_file(workspace).write_bytes(content)
    done = datapilot("dbt", "defer", "enable", "--manifest-path", prod)
    assert done.exit_code == 2
    assert message in done.stderr
    assert settings_file(workspace).read_bytes() == content


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="needs a directory in which no user can write"
)
def test_unwritable_settings_file_is_reported(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/self")
    done = datapilot("dbt", "defer", "enable", "--user", "--manifest-path", prod)
    assert done.exit_code == 2
    assert "cannot write the settings to /proc/self/datapilot-defer/defer.json" in done.stderr


def test_directory_instead_of_settings_file_is_reported(workspace: Path, prod: Path) -> None:
    settings_file(workspace).mkdir()
    done = datapilot("dbt", "defer", "enable", "--manifest-path", prod)
    assert done.exit_code == 2
    assert str(settings_file(workspace)) in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege")
def test_symlinked_settings_file_keeps_link_and_mode(workspace: Path, prod: Path) -> None:
    dotfiles = workspace.parent / "dotfiles.json"
    dotfiles.write_text(SETTINGS, encoding="utf-8")
    dotfiles.chmod(0o640)
    settings_file(workspace).symlink_to(dotfiles)
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert settings_file(workspace).is_symlink()
    assert '"shop"' in dotfiles.read_text("utf-8")
    assert dotfiles.stat().st_mode & 0o777 == 0o640


def test_status_without_settings_is_off(workspace: Path) -> None:
    done = status()
    assert done.exit_code == 2
    assert (done.json["enabled"], done.json["usable"], done.json["mode"]) == (False, False, None)
    assert datapilot("dbt", "defer", "status").stdout.startswith("Defer is off for shop")


def test_status_shows_source_and_age(workspace: Path, prod: Path) -> None:
    write(workspace, local(prod))
    done = status()
    assert done.json["mode"] == "local"
    assert done.json["state_dir"] == str(prod)
    assert done.json["manifest"]["project_name"] == "shop"
    assert done.json["age_seconds"] > 0
    assert (done.json["usable"], done.json["problems"], done.exit_code) == (True, [], 0)
    assert "dbt is not on PATH" in done.stderr
    assert "written by dbt 1.11" in datapilot("dbt", "defer", "status").stdout


def test_status_reports_too_old_manifest(workspace: Path, prod: Path) -> None:
    write(workspace, local(prod))
    done = status("--max-age", "0s")
    assert done.json["usable"] is False
    assert any("too old" in problem for problem in done.json["problems"])


@pytest.mark.parametrize("age", ["soon", "5", "-1h", "1y"])
def test_invalid_duration_is_rejected(workspace: Path, age: str) -> None:
    done = status("--max-age", age)
    assert done.exit_code == 2
    assert "90m, 24h or 7d" in done.stderr


def test_missing_project_error_names_searched_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = status()
    assert done.exit_code == 2
    assert f"no dbt_project.yml in {tmp_path}" in done.stderr
    assert "--project-dir" in done.stderr


@pytest.mark.parametrize("content", ["name: [", "- 1", "version: 1", "\x00"])
def test_unreadable_project_file_is_reported(workspace: Path, content: str) -> None:
    (workspace / "shop" / "dbt_project.yml").write_text(content, encoding="utf-8")
    done = status()
    assert done.exit_code == 2
    assert "dbt_project.yml" in done.stderr


def test_path_outside_workspace_stays_absolute(tmp_path: Path) -> None:
    file = SettingsFile(tmp_path / "s.json", "", tmp_path / "work")
    assert to_portable_path(tmp_path / "elsewhere", file) == str(tmp_path / "elsewhere")
    assert to_portable_path(tmp_path / "work" / "a b", file) == "${workspaceFolder}/a b"


@pytest.mark.parametrize(
    ("stored_path", "expected"),
    [
        ("prod", "${workspaceFolder}/shop/prod"),
        ("${workspaceFolder}/prod", "${workspaceFolder}/shop/prod"),
        ("../../prod", "{above}"),
        ("${env:STATES}/prod", "${env:STATES}/prod"),
    ],
)
def test_relocated_path_means_same_directory(
    stored_path: str, expected: str, tmp_path: Path
) -> None:
    own = SettingsFile(tmp_path / "d.json", "", tmp_path / "work" / "shop")
    shared = SettingsFile(tmp_path / "s.json", "shop", tmp_path / "work")
    assert relocate_path(stored_path, own, shared) == expected.replace(
        "{above}", str(tmp_path / "prod")
    )
    assert relocate_path(stored_path, own, own) == stored_path


def test_local_mode_without_path_is_reported(workspace: Path) -> None:
    write(workspace, {"deferToProduction": True, "manifestPathType": "local"})
    with pytest.raises(UsageError, match="manifestPathForDeferral is missing"):
        defer_settings.resolve_manifest_directory(
            defer_settings.read_settings(read_settings_files(workspace / "shop", {}).effective), {}
        )


def test_settings_file_that_becomes_invalid_is_not_overwritten(workspace: Path) -> None:
    file = read_settings_files(workspace / "shop", {}).effective
    settings_file(workspace).write_text('{"dbt.deferConfigPerProject": 1}', encoding="utf-8")
    with pytest.raises(UsageError, match="deferConfigPerProject is not an object"):
        file.update({"deferToProduction": True})
    assert settings_file(workspace).read_text("utf-8") == '{"dbt.deferConfigPerProject": 1}'


def test_project_and_target_are_found_like_dbt_does(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workspace / "shop" / "dbt_project.yml"
    file.write_text(
        file.read_text("utf-8") + "\ntarget-path: \"{{ env_var('OUT', 'out') }}\"\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    project = dbt_project.find_project(None, {"DBT_PROJECT_DIR": str(workspace / "shop")})
    assert (project.name, project.target) == ("shop", workspace / "shop" / "out")
    assert (
        dbt_project.find_project(workspace / "shop", {"OUT": "x/../y"}).target
        == workspace / "shop" / "y"
    )
    assert (
        dbt_project.find_project(workspace / "shop", {"DBT_ENGINE_TARGET_PATH": "z"}).target
        == workspace / "shop" / "z"
    )
    assert not dbt_project.is_target_directory(tmp_path / "no", project)
    with pytest.raises(UsageError, match="or use --project-dir"):
        dbt_project.find_project(tmp_path, {})


def test_environment_option_overrides_stored_environment(workspace: Path) -> None:
    write(
        workspace,
        {
            "deferToProduction": True,
            "manifestPathType": "remote",
            "dbtCoreIntegrationId": 7,
            "environment": "PROD",
        },
    )
    done = status("--environment", "QA", "--favor-state")
    assert (done.json["environment"], done.json["favor_state"]) == ("QA", True)
    assert any(
        "no token" in problem or "no instance name" in problem for problem in done.json["problems"]
    )


@pytest.mark.skipif(os.name == "nt", reason="file names are not bytes on Windows")
def test_directory_name_that_is_not_utf_8_is_stored(workspace: Path) -> None:
    name = os.fsdecode(b"pr\xffd")
    read_settings_files(workspace / "shop", {}).effective.update(local(name))
    assert '"pr\\udcffd"' in settings_file(workspace).read_text("utf-8")
    assert entry(workspace) == local(name)


@pytest.mark.parametrize("path", ["a" * 5_000, "a" * 5_000 + "/manifest.json", "a\0b"])
def test_impossible_directory_is_reported(workspace: Path, path: str) -> None:
    write(workspace, local(path))
    done = status()
    assert done.exit_code == 2
    assert done.json["usable"] is False
