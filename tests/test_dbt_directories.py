"""Options for the project and profiles directories, in any position, as passed to dbt."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer.command_line import compose_command, find_command, find_option
from datapilot_defer.defer.dbt_directories import (
    directory_flags,
    find_profiles_directory,
    take_directory_options,
)
from datapilot_defer.errors import UsageError
from tests.support.commands import Outcome, datapilot
from tests.support.dbt_project import PROJECT, Shop
from tests.support.extended_shop import extended_shop
from tests.support.recorded_dbt import RecordedDbt, recorded_dbt

posix = pytest.mark.skipif(os.name == "nt", reason="the recording program is a shell script")

COMMANDS = [
    *("build", "run", "test", "compile", "show", "snapshot", "seed", "ls", "list", "clone"),
    *("docs generate", "docs serve", "source freshness", "retry", "deps", "parse", "debug"),
    *("run-operation", "clean", "init"),
]
# {command} is the dbt command. Words before "|" are options of `defer run`.
POSITIONS = [
    "--project-dir {project} | {command}",
    "--project-dir={project} | {command}",
    "| --project-dir {project} {command}",
    "| --project-dir={project} {command}",
    "| --debug --project-dir {project} {command} --quiet",
    "| {command} --project-dir {project}",
    "| {command} --project-dir={project}",
    "| {command} -s model --project-dir {project} --quiet",
    "| {command} --project-dir {other} --project-dir {project}",
    "| --project-dir {other} {command} --project-dir {project}",
    "--project-dir {other} | {command} --project-dir {project}",
    "--project-dir {other} --project-dir {project} | {command}",
]


@dataclass(frozen=True)
class Projects:
    """Two projects, the current directory in one of them, and the manifest of the other one."""

    project: Path
    other: Path
    state: Path
    dbt: RecordedDbt

    def run(self, words: str) -> Outcome:
        """Run `defer run` with words in the form of POSITIONS; the words for dbt follow `--`."""
        ours, _, dbts = words.partition("|")
        origin = ("--dbt", self.dbt.path, "--manifest-path", self.state)
        return datapilot("dbt", "defer", "run", *origin, *ours.split(), "--", *dbts.split())


@pytest.fixture
def projects(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Projects:
    """Return projects `shop` and `other`; `other` is the current directory."""
    project = tmp_path / "shop"
    other = tmp_path / "other"
    shutil.copytree(PROJECT, project)
    (project / "sub").mkdir()
    other.mkdir()
    (other / "dbt_project.yml").write_text("name: other\nprofile: shop\n", encoding="utf-8")
    monkeypatch.chdir(other)
    return Projects(project, other, artifacts, recorded_dbt(tmp_path / "bin"))


def compose(words: str) -> tuple[str, ...]:
    """Return the arguments for dbt 1.11 in /p that result from words in the form of POSITIONS."""
    ours, _, dbts = words.partition("|")
    given = take_directory_options(
        dbts.split(),
        project_dir=find_option(ours.split(), "--project-dir"),
        profiles_dir=None,
    )
    assert given.project is not None
    project = DbtProject(given.project, "shop", given.project / "target")
    line = compose_command(
        given.words,
        dbt=DbtInstallation(Path("dbt"), "1.11.16"),
        state=Path("/state"),
        favor_state=False,
        environ={},
        directories=directory_flags(find_command(given.words)[1], given, project, {}),
    )
    return line.words[1:]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("command", COMMANDS)
def test_project_option_is_passed_once_after_command(command: str, position: str) -> None:
    words = compose(position.format(command=command, project="/p", other="/other"))
    end = words.index(command.split()[-1]) + 1
    assert words[end : end + 2] == ("--project-dir", str(Path("/p").absolute()))
    assert [word.partition("=")[0] for word in words].count("--project-dir") == 1
    assert "/other" not in words


@posix
@pytest.mark.parametrize("command", ["build", "deps"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("path_template", ["{}", "../{}", "../other/../{}"])
def test_state_and_dbt_use_same_project(
    command: str, position: str, path_template: str, projects: Projects
) -> None:
    project = str(projects.project) if path_template == "{}" else path_template.format("shop")
    done = projects.run(position.format(command=command, project=project, other="."))
    assert done.exit_code == 0, done.stderr
    words = projects.dbt.words
    assert Path(words[words.index("--project-dir") + 1]).resolve() == projects.project
    assert projects.dbt.directory == projects.other
    assert ("--state" in words) is (command != "deps")


@posix
@pytest.mark.parametrize("name", ["DBT_PROJECT_DIR", "DBT_ENGINE_PROJECT_DIR"])
@pytest.mark.parametrize("command", ["build", "docs generate"])
def test_project_variable_is_passed_to_dbt(
    name: str, command: str, projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "../shop")
    assert projects.run(f"| {command}").exit_code == 0
    assert find_option(projects.dbt.words, "--project-dir") == str(projects.project)
    monkeypatch.setenv(name, str(projects.other))
    assert projects.run(f"--project-dir ../shop | {command}").exit_code == 0
    assert find_option(projects.dbt.words, "--project-dir") == str(projects.project)


@posix
def test_other_commands_use_same_project(projects: Projects) -> None:
    origin = ("--project-dir", "../shop", "--manifest-path", projects.state)
    for command in ("enable", "status"):
        done = datapilot("dbt", "defer", command, "--dbt", projects.dbt.path, *origin, "--json")
        assert done.json["project_dir"] == str(projects.project)
    assert projects.run("--project-dir ../shop | build").exit_code == 0
    ours = projects.dbt.words
    datapilot("dbt", "defer", "explain", "--dbt", projects.dbt.path, *origin)
    explained = projects.dbt.words
    for name in ("--project-dir", "--profiles-dir"):
        assert find_option(explained, name) == find_option(ours, name) == str(projects.project)


@posix
def test_project_in_parent_directory_is_passed_to_dbt(
    projects: Projects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(projects.project / "sub")
    assert projects.run("| build").exit_code == 0
    assert find_option(projects.dbt.words, "--project-dir") == str(projects.project)
    # `dbt clean` rejects a --project-dir other than the current directory.
    assert projects.run("| clean").exit_code == 0
    assert projects.dbt.words == ["clean", "--profiles-dir", str(projects.project)]


@posix
def test_state_of_another_project_is_rejected_before_dbt_starts(projects: Projects) -> None:
    done = projects.run("| build --project-dir .")
    assert done.exit_code == 1
    assert "'other'" in done.stderr


@posix
@pytest.mark.parametrize("words", ["| build --project-dir=", "--project-dir= | build"])
def test_option_with_empty_directory_is_rejected(words: str, projects: Projects) -> None:
    done = projects.run(words)
    assert done.exit_code == 2
    expected = "--project-dir has no value"
    if words.startswith("-"):
        expected = "Invalid value for '--project-dir': the value is empty"
    assert expected in done.stderr


@posix
@pytest.mark.parametrize(
    "words",
    [
        "--profiles-dir ../profiles | build",
        "--profiles-dir=../profiles | build",
        "| --profiles-dir ../profiles build",
        "| build --profiles-dir ../profiles",
        "| build --profiles-dir=../profiles -s model",
        "--profiles-dir elsewhere | build --profiles-dir ../profiles",
    ],
)
def test_profiles_directory_is_passed_to_dbt(words: str, projects: Projects) -> None:
    assert projects.run(f"--project-dir ../shop {words}").exit_code == 0
    [profiles] = [
        Path(value)
        for option, value in zip(projects.dbt.words, projects.dbt.words[1:], strict=False)
        if option == "--profiles-dir"
    ]
    assert profiles.is_absolute()
    assert profiles.resolve() == projects.project.parent / "profiles"
    assert "elsewhere" not in projects.dbt.words


@posix
def test_profiles_of_project_are_used_only_if_dbt_finds_no_others(
    projects: Projects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passed_profiles_directory() -> str | None:
        assert projects.run("--project-dir ../shop | build").exit_code == 0
        return find_option(projects.dbt.words, "--profiles-dir")

    assert passed_profiles_directory() == str(projects.project)
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    assert passed_profiles_directory() is None
    monkeypatch.delenv("DBT_PROFILES_DIR")
    (projects.other / "profiles.yml").write_text("", encoding="utf-8")
    assert passed_profiles_directory() is None
    (projects.other / "profiles.yml").unlink()
    (Path.home() / ".dbt").mkdir()
    (Path.home() / ".dbt" / "profiles.yml").write_text("", encoding="utf-8")
    assert passed_profiles_directory() is None


@pytest.mark.parametrize("variable", ["HOME", "USERPROFILE"])
def test_impossible_home_directory_is_ignored(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = DbtProject(tmp_path / "shop", "shop", tmp_path / "target")
    assert find_profiles_directory(project, {variable: "/" + "x" * 5000}) == project.folder


def test_words_after_double_dash_are_not_options() -> None:
    given = take_directory_options(
        ["build", "--", "--project-dir", "x"], project_dir=None, profiles_dir=None
    )
    assert given.project is None
    assert given.words == ("build", "--", "--project-dir", "x")


@pytest.mark.parametrize("words", ["build --project-dir", "--project-dir"])
def test_option_without_value_is_rejected(words: str) -> None:
    with pytest.raises(UsageError, match="--project-dir has no value"):
        take_directory_options(words.split(), project_dir=None, profiles_dir=None)


@pytest.mark.parametrize("words", ["docs", "docs --help", "source", "man", "system update"])
def test_commands_without_project_get_no_directory(words: str) -> None:
    given = take_directory_options(words.split(), project_dir="/p", profiles_dir=None)
    project = DbtProject(Path("/p"), "shop", Path("/p/target"))
    assert directory_flags(find_command(given.words)[1], given, project, {}) == []


@pytest.mark.parametrize("words", ["docs --quiet generate", "docs --target prod generate -s m"])
def test_options_inside_two_word_command_are_recognized(words: str) -> None:
    _, command = find_command(words.split())
    assert command == ("docs", "generate")


@pytest.mark.dbt
@pytest.mark.parametrize(
    "words",
    [
        "--project-dir {shop} | build -s revenue_by_country",
        "| --project-dir {shop} compile -s revenue_by_country",
        "| docs --quiet generate -s revenue_by_country --project-dir={shop}",
    ],
)
def test_dbt_uses_named_project_from_inside_another_project(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = extended_shop(tmp_path / "shops")
    other = tmp_path / "other"
    (other / "models").mkdir(parents=True)
    (other / "dbt_project.yml").write_text("name: other\nprofile: shop\n", encoding="utf-8")
    (other / "models" / "revenue_by_country.sql").write_text("select 1 as x", encoding="utf-8")
    monkeypatch.chdir(other)
    for name in ("DBT_PROFILES_DIR", "SHOP_DATABASE"):
        monkeypatch.setenv(name, shop.environment[name])
    done = _defer_run(shop, words.format(shop="../shops/shop"))
    assert done.exit_code == 0, done.output
    assert not (other / "target").exists()
    results = json.loads((shop.project / "target" / "run_results.json").read_bytes())["results"]
    [result] = [each for each in results if each["unique_id"].startswith("model.")]
    assert result["unique_id"] == "model.shop.revenue_by_country"
    assert '"prod"."orders"' in result["compiled_code"]


def _defer_run(shop: Shop, words: str) -> Outcome:
    ours, _, dbts = words.partition("|")
    origin = ("--dbt", shop.dbt, "--manifest-path", shop.prod_artifacts)
    return datapilot("dbt", "defer", "run", *origin, *ours.split(), "--", *dbts.split())
