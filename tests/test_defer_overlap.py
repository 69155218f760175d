"""Acceptance of manifests that share a node with the project or one of its packages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from datapilot_defer.artifact import Kind, parse_artifact
from datapilot_defer.dbt_project import read_project
from datapilot_defer.defer.overlap import check_overlap
from datapilot_defer.errors import ArtifactRefused
from tests.support.environments import REPOSITORY, require_program

CORE = ("model.core.orders", "test.core.unique_orders.1", "model.core.prices.v2")


class Messages:
    """A console that records the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def detail(self, text: str) -> None:
        """Ignore the text."""

    def note(self, text: str) -> None:
        """Ignore the text."""

    def warn(self, text: str) -> None:
        """Record the text."""
        self.warnings.append(text)


def write(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Return a project without packages."""
    directory = tmp_path / "reports"
    write(directory / "dbt_project.yml", "name: reports\n")
    write(directory / "models" / "revenue.sql")
    return directory


def install(directory: Path, name: str, *models: str) -> None:
    """Install a package as `dbt deps` does."""
    write(directory / name / "dbt_project.yml", f"name: {name}\n")
    for model in models:
        write(directory / name / "models" / f"{model}.sql")


def check(
    directory: Path,
    unique_ids: Sequence[str] = CORE,
    manifest_project: str | None = "core",
    **variables: str,
) -> list[str]:
    """Return the warnings about a manifest whose nodes have no file."""
    return check_files(directory, dict.fromkeys(unique_ids), manifest_project, variables)


def check_files(
    directory: Path,
    files: Mapping[str, str | None],
    manifest_project: str | None = "core",
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the warnings about a manifest. files: the file of each node by unique id."""
    nodes = {unique_id: {"original_file_path": file} for unique_id, file in files.items()}
    content = json.dumps({"metadata": {"project_name": manifest_project}, "nodes": nodes})
    manifest = parse_artifact(content.encode(), path="manifest.json", kind=Kind.MANIFEST)
    messages = Messages()
    environ = environ or {}
    check_overlap(manifest, read_project(directory, environ), environ=environ, console=messages)
    return messages.warnings


def test_manifest_of_installed_package_is_accepted(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "orders")
    assert check(reports) == []
    assert check(reports, manifest_project=None) == []


def test_manifest_with_versioned_model_is_accepted(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "prices_v2")
    assert check(reports) == []


def test_symlinked_package_is_found(reports: Path) -> None:
    install(reports.parent, "core", "orders")
    (reports / "dbt_packages").mkdir()
    (reports / "dbt_packages" / "core").symlink_to(reports.parent / "core")
    assert check(reports) == []


@pytest.mark.parametrize("path", ["../packages", "{{ env_var('PACKAGES') }}"])
def test_install_path_of_project_is_used(path: str, reports: Path) -> None:
    write(reports / "dbt_project.yml", f'name: reports\npackages-install-path: "{path}"\n')
    install(reports.parent / "packages", "core", "orders")
    assert check(reports, PACKAGES=str(reports.parent / "packages")) == []


@pytest.mark.parametrize("name", ["DBT_PACKAGES_INSTALL_PATH", "DBT_ENGINE_PACKAGES_INSTALL_PATH"])
def test_install_path_variable_of_dbt_2_is_used(name: str, reports: Path) -> None:
    install(reports.parent / "packages", "core", "orders")
    assert check(reports, **{name: "../packages"}) == []


def test_manifest_without_common_nodes_is_rejected(reports: Path) -> None:
    install(reports / "dbt_packages", "dates", "calendar")
    with pytest.raises(ArtifactRefused, match=r"is of project 'core' and contains no node of"):
        check(reports)


def test_package_with_same_name_and_other_models_is_rejected(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "customers")
    with pytest.raises(ArtifactRefused, match="contains no node of 'reports'"):
        check(reports)


def test_unreadable_package_is_ignored(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "orders")
    write(reports / "dbt_packages" / "core" / "dbt_project.yml", "name: [")
    with pytest.raises(ArtifactRefused):
        check(reports)


def test_other_project_with_common_package_causes_warning(reports: Path) -> None:
    install(reports / "dbt_packages", "dates", "calendar")
    [warning] = check(reports, [*CORE, "model.dates.calendar"])
    assert "is of project 'core' and contains no node of 'reports'" in warning
    assert "Only models of the package dates can be deferred" in warning


@pytest.mark.parametrize("name", ["packages.yml", "dependencies.yml"])
def test_missing_packages_cause_warning(name: str, reports: Path) -> None:
    write(reports / name, "packages:\n  - local: ../core\n")
    [warning] = check(reports)
    assert "not all of them are installed" in warning
    assert warning.endswith("Run `dbt deps`.")
    install(reports / "dbt_packages", "dates", "calendar")
    with pytest.raises(ArtifactRefused):
        check(reports)


def test_missing_new_package_causes_warning(reports: Path) -> None:
    install(reports / "dbt_packages", "expectations", "tests")
    install(reports / "dbt_packages", "dates", "calendar")
    lock = "packages:\n  - {package: x/expectations, version: 1.0}\n  - {package: x/dates}\n"
    write(reports / "package-lock.yml", lock)
    declared = "packages:\n  - {package: x/expectations, version: [1.0]}\n"
    write(reports / "packages.yml", declared)
    with pytest.raises(ArtifactRefused):
        check(reports)
    write(reports / "packages.yml", declared + "  - local: ../core\n  - 1\n")
    [warning] = check(reports)
    assert "not all of them are installed" in warning


@pytest.mark.parametrize(
    "content", ["", "packages: []", "projects:\n  - name: core\n", "- 1", "packages: [", "[" * 5000]
)
def test_package_file_without_packages_is_ignored(content: str, reports: Path) -> None:
    write(reports / "packages.yml", content)
    with pytest.raises(ArtifactRefused):
        check(reports)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes with a path")
def test_package_file_that_is_pipe_is_not_read(reports: Path) -> None:
    os.mkfifo(reports / "packages.yml")
    with pytest.raises(ArtifactRefused):
        check(reports)


@pytest.mark.parametrize(
    ("unique_id", "file"),
    [
        ("snapshot.reports.history", "snapshots/all.yml"),
        ("snapshot.reports.history", "snapshots/all.sql"),
        ("snapshot.reports.history", "snapshots\\all.sql"),
        ("model.reports.prices.v2", "models/prices_latest.sql"),
    ],
)
def test_node_is_found_by_its_file(unique_id: str, file: str, reports: Path) -> None:
    write(reports / file.replace("\\", "/"))
    assert check_files(reports, {unique_id: file}, "reports") == []
    install(reports / "dbt_packages", "core", "orders")
    write(reports / "dbt_packages" / "core" / file.replace("\\", "/"))
    in_core = unique_id.replace("reports", "core")
    assert check_files(reports, {in_core: file}) == []


@pytest.mark.parametrize(
    ("unique_id", "file"),
    [
        ("model.reports.orders", "models/orders.sql"),
        ("test.reports.unique_orders", "models/schema.yml"),
        ("model.reports.orders", "../secret.sql"),
        ("model.reports.orders", "models"),
        ("model.reports.orders", "\0"),
        ("model.reports.orders", "\ud800"),
        ("model.reports.orders", "x" * 5000),
    ],
)
def test_file_outside_project_is_ignored(unique_id: str, file: str, reports: Path) -> None:
    write(reports / "models" / "schema.yml")
    write(reports.parent / "secret.sql")
    with pytest.raises(ArtifactRefused, match="is also called 'reports'"):
        check_files(reports, {unique_id: file}, "reports")


def test_hostile_package_name_is_ignored(reports: Path) -> None:
    install(reports.parent, "core", "orders")
    (reports / "dbt_packages").mkdir()
    with pytest.raises(ArtifactRefused):
        check(reports, ["model./../core.orders", "model.core.orders", f"model.{'x' * 5000}.a"])


@pytest.mark.dbt
@pytest.mark.skipif(os.name == "nt", reason="the recipe is for a POSIX shell")
def test_recipe_for_project_of_another_team_works(tmp_path: Path) -> None:
    dbt = require_program("dbt", "dbt")
    write(
        tmp_path / "bin" / "datapilot",
        f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m datapilot_defer "$@"\n',
    )
    (tmp_path / "bin" / "datapilot").chmod(0o755)
    done = subprocess.run(
        ["bash", "-euc", recipe()],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{dbt.parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    compiled = tmp_path / "reports" / "target" / "compiled" / "reports" / "models" / "revenue.sql"
    assert '"team"."prod"."orders"' in compiled.read_text(encoding="utf-8")
    assert re.search(r"OK created .* dev\.revenue", done.stdout)


def recipe() -> str:
    """Return the commands of the section "Another team's project" of docs/defer.md."""
    page = (REPOSITORY / "docs" / "defer.md").read_text(encoding="utf-8")
    section = page.partition("## Another team's project")[2].partition("\n## ")[0]
    [block] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return str(block)
