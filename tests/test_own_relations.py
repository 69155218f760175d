"""Warnings about a manifest that has the relations of the user's own target."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from datapilot_defer.artifact import parse_artifact
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer.dbt_target import select_target
from datapilot_defer.defer.own_relations import OwnRelations, find_own_relations
from tests.support.commands import Outcome, datapilot
from tests.support.dbt_project import PROJECT, Shop
from tests.support.recorded_dbt import recorded_dbt

OWN = {
    "model.shop.orders": '"w"."dev"."orders"',
    "model.shop.mapping": None,
    "seed.shop.countries": '"w"."dev"."countries"',
    "test.shop.unique": '"w"."audit"."unique"',
}
PROFILES = """\
shop:
  target: dev
  outputs:
    dev: {type: duckdb, schema: dev, password: "{{ env_var('PASSWORD') }}"}
    prod: {type: duckdb, schema: prod}
"""
WARNING = "the manifest is of your own target"


def manifest(relations: Mapping[str, str | None], **metadata: str) -> bytes:
    """Return a manifest with these relations."""
    nodes = {name: {"relation_name": relation} for name, relation in relations.items()}
    return json.dumps({"metadata": metadata, "nodes": nodes}).encode()


@pytest.fixture
def project(tmp_path: Path) -> DbtProject:
    """Return a project in which dbt last ran with the default target."""
    target = tmp_path / "shop" / "target"
    target.mkdir(parents=True)
    project = DbtProject(target.parent, "shop", target)
    write_last_run(project)
    (project.folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n")
    (project.folder / "profiles.yml").write_text(PROFILES)
    (target / "manifest.json").write_bytes(manifest(OWN, invocation_id="1"))
    return project


def write_last_run(project: DbtProject, invocation_id: str = "1", **arguments: object) -> None:
    """Write run_results.json like dbt does after a run with the project's profiles."""
    (project.target / "run_results.json").write_text(
        json.dumps(
            {
                "metadata": {"invocation_id": invocation_id},
                "args": {"which": "run", "profiles_dir": str(project.folder), **arguments},
                "results": [],
            }
        ),
        encoding="utf-8",
    )


def compare(
    project: DbtProject,
    relations: Mapping[str, str | None] = OWN,
    options: str = "",
    variables: Mapping[str, str] | None = None,
) -> OwnRelations | None:
    """Compare a manifest that has these relations, before a dbt command with these options."""
    environ = {"DBT_PROFILES_DIR": str(project.folder), **(variables or {})}
    target = select_target(project, options.split(), environ)
    state = parse_artifact(manifest(relations), path="manifest.json", kind=None)
    return find_own_relations(state, project, target)


def test_same_relations_are_detected(project: DbtProject) -> None:
    own_relations = compare(project)
    assert own_relations == OwnRelations(
        project.target / "manifest.json", 2, '"w"."dev"."countries"'
    )
    assert str(project.target / "manifest.json") in own_relations.describe()


def test_nodes_of_only_one_manifest_are_ignored(project: DbtProject) -> None:
    relations = {"model.shop.orders": OWN["model.shop.orders"], "model.shop.new": '"w"."p"."new"'}
    own_relations = compare(project, relations)
    assert own_relations is not None
    assert own_relations.count == 1


@pytest.mark.parametrize(
    "relations",
    [
        {**OWN, "seed.shop.countries": '"w"."prod"."countries"'},
        dict.fromkeys(OWN),
        {"model.shop.mapping": '"w"."prod"."mapping"'},
        {"test.shop.unique": OWN["test.shop.unique"]},
        {"model.other.orders": OWN["model.shop.orders"]},
        {},
    ],
    ids=["one differs", "no relations", "ephemeral here", "only a test", "another package", "none"],
)
def test_other_relations_are_not_reported(
    relations: Mapping[str, str | None], project: DbtProject
) -> None:
    assert compare(project, relations) is None


def test_relations_of_package_are_ignored(project: DbtProject) -> None:
    relations = {"model.core.orders": '"w"."prod"."orders"'}
    own = {**relations, "model.shop.revenue": '"w"."prod"."revenue"'}
    (project.target / "manifest.json").write_bytes(manifest(own, invocation_id="1"))
    assert compare(project, relations) is None


@pytest.mark.parametrize(
    "last",
    [
        {"target": "prod"},
        {"profile": "warehouse"},
        {"profiles_dir": "/etc/dbt"},
        {"profiles_dir": None},
        {"invocation_id": "2"},
    ],
)
def test_last_run_of_another_target_is_ignored(last: dict[str, Any], project: DbtProject) -> None:
    write_last_run(project, **last)
    assert compare(project) is None


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ("run --target prod", {}),
        ("run -t prod", {}),
        ("run -tprod", {}),
        ("run --target=prod", {}),
        ("run", {"DBT_TARGET": "prod"}),
        ("run", {"DBT_ENGINE_TARGET": "prod"}),
    ],
)
def test_target_of_next_command_is_compared(
    options: str, variables: dict[str, str], project: DbtProject
) -> None:
    assert compare(project, options=options, variables=variables) is None
    write_last_run(project, target="prod")
    assert compare(project, options=options, variables=variables) is not None


@pytest.mark.parametrize("directory", ["\0", "\ud800", "x" * 5000, ["x"], {}])
def test_impossible_profiles_directory_is_ignored(directory: object, project: DbtProject) -> None:
    write_last_run(project, profiles_dir=directory)
    assert compare(project) is None


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege")
def test_symlink_loop_is_ignored(project: DbtProject) -> None:
    loop = project.folder / "loop"
    loop.symlink_to(loop)
    assert compare(project, variables={"DBT_PROFILES_DIR": str(loop)}) is None
    write_last_run(project, profiles_dir=str(loop))
    assert compare(project) is None
    assert compare(project, variables={"DBT_PROFILES_DIR": str(loop)}) is None


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ("run -t dev", {}),
        ("run -tdev", {}),
        ("run", {"DBT_TARGET": "dev"}),
        ("run --profile shop", {}),
    ],
)
def test_default_target_can_be_given_by_name(
    options: str, variables: dict[str, str], project: DbtProject
) -> None:
    assert compare(project, options=options, variables=variables) is not None
    write_last_run(project, target="dev", profile="shop")
    assert compare(project) is not None


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("profiles.yml", "target: dev", "target: \"{{ env_var('SHOP_TARGET', 'dev') }}\""),
        ("profiles.yml", "schema: dev", "schema: \"{{ env_var('SHOP_SCHEMA', 'dev') }}\""),
        ("profiles.yml", "schema: dev", "settings: [{database: \"{{ var('database') }}\"}]"),
        ("profiles.yml", "target: dev", "target: {{ env_var('SHOP_TARGET') }}"),
        ("dbt_project.yml", "profile: shop", "profile: \"{{ env_var('SHOP_PROFILE') }}\""),
        (
            "dbt_project.yml",
            "profile: shop",
            "profile: shop\nmodels: {+schema: \"{{ env_var('SHOP_SCHEMA') }}\"}",
        ),
    ],
)
def test_target_that_depends_on_environment_is_ignored(
    file: str, old: str, new: str, project: DbtProject
) -> None:
    content = (project.folder / file).read_text(encoding="utf-8")
    assert old in content
    (project.folder / file).write_text(content.replace(old, new), encoding="utf-8")
    assert compare(project) is None


NAMING_MACRO = {"macro_sql": "{{ find_schema() }}", "depends_on": {"macros": ["macro.shop.find"]}}


@pytest.mark.parametrize(
    ("node", "called"),
    [
        ({}, "{{ env_var('SHOP_SCHEMA', target.schema) }}"),
        ({}, "{{ var ('schema', target.schema) }}"),
        ({"raw_code": "{{ config(schema=env_var('SHOP_SCHEMA')) }} select 1"}, ""),
        ({"patch_path": "shop://orders.yml"}, ""),
        ({"original_file_path": "orders.yml"}, ""),
    ],
)
def test_a_name_that_the_environment_may_change_tells_nothing(
    node: Mapping[str, str], called: str, project: DbtProject
) -> None:
    (project.folder / "orders.yml").write_text("schema: \"{{ env_var('SHOP_SCHEMA') }}\"")
    content = json.loads(manifest(OWN, invocation_id="1"))
    content["nodes"]["model.shop.orders"].update(package_name="shop", **node)
    content["macros"] = {
        "macro.shop.generate_schema_name": NAMING_MACRO,
        "macro.shop.find": {"macro_sql": called, "depends_on": {"macros": []}},
        "macro.shop.other": {"macro_sql": "{{ var('start') }}", "depends_on": {"macros": []}},
    }
    (project.target / "manifest.json").write_text(json.dumps(content))
    assert compare(project) is None
    content["nodes"]["model.shop.orders"] = {"relation_name": OWN["model.shop.orders"]}
    content["macros"]["macro.shop.find"]["macro_sql"] = "{{ target.schema }}"
    (project.target / "manifest.json").write_text(json.dumps(content))
    assert compare(project) is not None


@pytest.mark.parametrize("content", ["", "- 1", "shop: 1", "shop: {outputs: {dev: 1}}", "[" * 5000])
def test_unreadable_profiles_are_ignored(content: str, project: DbtProject) -> None:
    (project.folder / "profiles.yml").write_text(content, encoding="utf-8")
    assert compare(project) is None


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ("run --profile other", {}),
        ("run", {"DBT_PROFILE": "other"}),
        ("run --profiles-dir /etc/dbt", {}),
        ("run", {"DBT_PROFILES_DIR": "/etc/dbt"}),
    ],
)
def test_another_profile_is_not_compared(
    options: str, variables: dict[str, str], project: DbtProject
) -> None:
    assert compare(project, options=options, variables=variables) is None


@pytest.mark.parametrize("version", ["1.5.9", "1.6.1", "1.7.19"])
def test_deferred_run_of_old_dbt_is_ignored(version: str, project: DbtProject) -> None:
    content = manifest(OWN, invocation_id="1", dbt_version=version)
    (project.target / "manifest.json").write_bytes(content)
    assert compare(project) is not None
    write_last_run(project, defer=True)
    assert compare(project) is None
    content = manifest(OWN, invocation_id="1", dbt_version="1.8.0")
    (project.target / "manifest.json").write_bytes(content)
    assert compare(project) is not None


@pytest.mark.parametrize("name", ["manifest.json", "run_results.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"args": 1, "nodes": 1}'])
def test_unreadable_files_are_ignored(name: str, content: str, project: DbtProject) -> None:
    (project.target / name).write_text(content, encoding="utf-8")
    assert compare(project) is None
    (project.target / name).unlink()
    assert compare(project) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes with a path")
@pytest.mark.parametrize("name", ["manifest.json", "run_results.json"])
def test_pipe_is_not_read(name: str, project: DbtProject) -> None:
    (project.target / name).unlink()
    os.mkfifo(project.target / name)
    assert compare(project) is None


@pytest.mark.parametrize("name", ["manifest.json", "run_results.json"])
def test_huge_file_is_not_read(name: str, project: DbtProject) -> None:
    with (project.target / name).open("r+b") as file:
        file.truncate(1_000_000_001)
    assert compare(project) is None


def write_constant_profiles(directory: Path, database: str) -> None:
    """Replace the environment variables in the shop's profiles by values."""
    file = directory / "profiles.yml"
    content = file.read_text(encoding="utf-8")
    content = content.replace("{{ env_var('SHOP_DATABASE', 'warehouse.duckdb') }}", database)
    content = content.replace("{{ env_var('SHOP_SCHEMA', 'dev') }}", "dev")
    file.write_text(content, encoding="utf-8")


@pytest.mark.skipif(os.name == "nt", reason="the recording program is a shell script")
@pytest.mark.parametrize(
    "words", [("enable",), ("status",), ("run", "build", "--target", "prod"), ("env",)]
)
def test_commands_warn_of_own_relations(
    words: tuple[str, ...], artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = tmp_path / "shop"
    shutil.copytree(PROJECT, shop)
    write_constant_profiles(shop, "warehouse.duckdb")
    shutil.copytree(artifacts, shop / "target")
    results = json.loads((shop / "target" / "run_results.json").read_bytes())
    results["args"]["profiles_dir"] = str(shop)
    (shop / "target" / "run_results.json").write_text(json.dumps(results), encoding="utf-8")
    monkeypatch.chdir(shop)
    if words[0] != "run":
        monkeypatch.setenv("DBT_TARGET", "prod")
    dbt = recorded_dbt(tmp_path / "bin").path
    command, *more = words
    done = datapilot("dbt", "defer", command, "--dbt", dbt, "--manifest-path", artifacts, *more)
    assert WARNING in done.stderr
    assert done.stderr.count("Warning:") == 1
    monkeypatch.setenv("DBT_TARGET", "dev")
    done = datapilot("dbt", "defer", "status", "--dbt", dbt, "--manifest-path", artifacts)
    assert "Warning" not in done.stderr


def test_dbt_run_with_own_manifest_causes_warning(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.project)
    write_constant_profiles(shop.profiles, shop.duckdb.as_posix())
    for name in ("DBT_PROFILES_DIR", "SHOP_DATABASE"):
        monkeypatch.setenv(name, shop.environment[name])
    assert _compile(shop, shop.prod_artifacts).exit_code == 0  # This writes a manifest.
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(shop.project / "target" / "manifest.json", own)
    assert WARNING in _compile(shop, own).stderr
    assert WARNING not in _compile(shop, shop.prod_artifacts).stderr
    assert WARNING not in _compile(shop, shop.prod_artifacts, "--target", "prod").stderr
    assert WARNING in _compile(shop, shop.prod_artifacts, "--target", "prod").stderr


def _compile(shop: Shop, state: Path, *words: str) -> Outcome:
    origin = ("--dbt", shop.dbt, "--manifest-path", state)
    return datapilot("dbt", "defer", "run", *origin, "compile", "-s", "customers", *words)
