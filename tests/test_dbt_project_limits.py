"""Limits for untrusted dbt projects: time, memory and access to secrets."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from datapilot_defer import dbt_project
from datapilot_defer.dbt_project import find_project, read_project
from datapilot_defer.errors import UsageError
from tests.support.commands import datapilot

LONG = "a" * 5_000
SECRETS = (
    *("ALTIMATE_API_KEY", "DATAPILOT_TOKEN", "ALTIMATE_URL", "DATAPILOT_INSTANCE_NAME"),
    *("DATAPILOT_ADMIN_TOKEN", "DBT_ENV_SECRET_GIT", "altimate_api_key"),
)


def write(directory: Path, text: str) -> Path:
    """Write the project file and a model, and return the directory."""
    (directory / "dbt_project.yml").write_text(f"name: shop\n{text}\n", encoding="utf-8")
    (directory / "models").mkdir(exist_ok=True)
    (directory / "models" / "orders.sql").touch()
    return directory


def nested_aliases(first: str, level: str, depth: int) -> str:
    """Return YAML anchors that each contain the previous one ten times."""
    lines = [f"a0: &a0 {first}"]
    for number in range(1, depth):
        aliases = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(level.format(f"a{number}: &a{number}", aliases))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        nested_aliases("[x]", "{0} [{1}]", 10) + "\nmodel-paths: *a9",
        nested_aliases("[x]", "{0} [{1}]", 10) + "\ntarget-path: *a9",
        nested_aliases("{x: 1}", "{0} {{<<: [{1}]}}", 10),
        "list: [" + "x, " * 200_000 + "]",
    ],
)
def test_growing_document_is_rejected_quickly(text: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(
        UsageError, match=r"dbt_project\.yml cannot be read: it has more than 100,0"
    ):
        read_project(write(tmp_path, text), {})
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x: " + "- " * 100_000 + "y", "."),
        ("x: " + "[" * 100_000, "."),
        ("x: " + "[" * 200 + "]" * 200, "nested more than 100 deep"),
        ("x: " + "1:" * 100_000 + "1", "a value of 200,001 characters is not in quotes"),
        ("x: " + "9" * 5_000, "4300 digits"),
        ("x: !<" + LONG + "> 1", "could not determine a constructor"),
        ("model-paths: [!!bool maybe]", "does not fit its tag"),
        ('x: !!int ""', "does not fit its tag"),
        ('x: !!float ""', "does not fit its tag"),
        ("x: !!timestamp foo", "does not fit its tag"),
    ],
)
def test_unreadable_document_error_is_short(text: str, reason: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=f"cannot be read: .*{reason}") as raised:
        read_project(write(tmp_path, text), {})
    assert time.monotonic() - start < 10
    assert len(str(raised.value)) < 1_000


def test_common_anchors_are_accepted(tmp_path: Path) -> None:
    text = "vars: &vars {a: 1}\nmore: {<<: *vars, b: 2}\npaths: &paths [src]\nmodel-paths: *paths"
    write(tmp_path, text + "\nself: &self [*self]")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "customers.sql").touch()
    assert read_project(tmp_path, {}).sources == (tmp_path / "src" / "customers.sql",)


@pytest.mark.parametrize(
    "paths", [f"['{LONG}']", '["a\\0b"]', "[1, null, [x], {y: z}]", '["../none"]', "[loop]"]
)
def test_invalid_model_paths_are_ignored(paths: str, tmp_path: Path) -> None:
    if os.name == "posix":
        (tmp_path / "loop").symlink_to("loop")
    project = read_project(write(tmp_path, f"model-paths: {paths}"), {})
    assert project.sources == ()


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege")
def test_symlink_loop_ends(tmp_path: Path) -> None:
    write(tmp_path, "")
    (tmp_path / "models" / "again").symlink_to(tmp_path / "models")
    assert read_project(tmp_path, {}).sources == (tmp_path / "models" / "orders.sql",)


def test_root_directory_as_model_path_ends_quickly(tmp_path: Path) -> None:
    start = time.monotonic()
    read_project(write(tmp_path, "model-paths: ['/']"), {})
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(("name", "limit"), [("_MAX_ENTRIES", 3), ("_MAX_WALK_S", -1.0)])
def test_too_large_directories_have_no_sources(
    tmp_path: Path, name: str, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "")
    for number in range(5):
        (tmp_path / "models" / f"{number}.sql").touch()
    assert len(read_project(tmp_path, {}).sources) == 6
    monkeypatch.setattr(dbt_project, name, limit)
    assert read_project(tmp_path, {}).sources == ()


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("default", ["", ", 'out'"])
def test_target_path_cannot_read_secrets(tmp_path: Path, name: str, default: str) -> None:
    write(tmp_path, f"target-path: \"a/{{{{ env_var('{name}'{default}) }}}}\"")
    with pytest.raises(
        UsageError, match=f"environment variable {name}, which may contain a"
    ) as error:
        read_project(tmp_path, {name: "t0ken"})
    assert "t0ken" not in str(error.value)
    assert read_project(tmp_path, {name: "t0ken", "DBT_TARGET_PATH": "x"}).target == tmp_path / "x"


def test_secret_error_names_setting(tmp_path: Path) -> None:
    write(tmp_path, "packages-install-path: \"{{ env_var('ALTIMATE_API_KEY') }}\"")
    with pytest.raises(
        UsageError, match="yml: packages-install-path contains the environment variable"
    ):
        read_project(tmp_path, {})


@pytest.mark.parametrize("name", ["DBT_PROJECT_DIR", "DBT_ENGINE_PROJECT_DIR"])
def test_missing_project_error_names_variable(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "gone"
    with pytest.raises(UsageError, match=f"no dbt_project.yml in {missing}"):
        find_project(None, {name: str(missing)})
    assert find_project(write(tmp_path, ""), {name: str(missing)}).folder == tmp_path


def test_token_in_target_path_is_not_printed(tmp_path: Path) -> None:
    write(tmp_path, "target-path: \"{{ env_var('ALTIMATE_API_KEY') }}\"")
    done = datapilot(
        *("dbt", "onboard", "--project-dir", tmp_path, "--integration-id", 1),
        env={"ALTIMATE_API_KEY": "t0ken-t0ken", "ALTIMATE_INSTANCE_NAME": "acme"},
    )
    assert done.exit_code == 2
    assert "contains the environment variable ALTIMATE_API_KEY" in done.stderr
    assert "t0ken" not in done.output


@pytest.mark.parametrize("text", ['target-path: "a\\0b"', f"target-path: {LONG}", "target-path: 7"])
def test_invalid_target_path_is_usage_error(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    done = datapilot("dbt", "defer", "status", "--project-dir", tmp_path, "--manifest-path", "x")
    assert done.exit_code == 2
    with pytest.raises(UsageError, match="NUL character"):
        read_project(write(tmp_path, 'target-path: "a\\0b"'), {})


@pytest.mark.parametrize("path", ['"a\\0b"', LONG, "loop", "7"])
def test_invalid_packages_path_is_usage_error(workspace: Path, prod: Path, path: str) -> None:
    shutil.rmtree(workspace / "shop" / "models")
    if os.name == "posix":
        (workspace / "shop" / "loop").symlink_to("loop")
    (workspace / "shop" / "dbt_project.yml").write_text(
        f"name: other\npackages-install-path: {path}\n", encoding="utf-8"
    )
    assert datapilot("dbt", "defer", "status", "--manifest-path", prod).exit_code == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
def test_unreadable_project_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        find_project(tmp_path / LONG, {})
    with pytest.raises(UsageError, match="cannot be read: Too many levels of symbolic links"):
        find_project(tmp_path / "loop", {})
    with pytest.raises(UsageError, match=r"no dbt_project\.yml in .*fifo\. Change to"):
        find_project(tmp_path / "fifo", {})
    with pytest.raises(UsageError, match="cannot be read: File name too long"):
        find_project(None, {"DBT_PROJECT_DIR": LONG})


def test_the_variable_that_the_config_file_names_is_not_expanded(tmp_path: Path) -> None:
    write(tmp_path, "target-path: \"{{ env_var('ACME_ACCESS') }}\"")
    config = tmp_path / "home" / ".altimate" / "altimate.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"altimateApiKey": "${env:ACME_ACCESS}"}', encoding="utf-8")
    home = str(tmp_path / "home")
    environ = {"HOME": home, "USERPROFILE": home, "ACME_ACCESS": "t0ken-t0ken"}
    with pytest.raises(UsageError, match="ACME_ACCESS, which may contain a secret"):
        read_project(tmp_path, environ)
