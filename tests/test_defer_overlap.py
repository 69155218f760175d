"""A manifest is accepted when it has a node of the project or of one of its packages."""

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
    """A log that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def detail(self, text: str) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def warn(self, text: str) -> None:
        """Keep it."""
        self.warnings.append(text)


def write(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Return a project that has no package yet."""
    folder = tmp_path / "reports"
    write(folder / "dbt_project.yml", "name: reports\n")
    write(folder / "models" / "revenue.sql")
    return folder


def install(directory: Path, name: str, *models: str) -> None:
    """Install a package as `dbt deps` does."""
    write(directory / name / "dbt_project.yml", f"name: {name}\n")
    for model in models:
        write(directory / name / "models" / f"{model}.sql")


def check(
    folder: Path,
    unique_ids: Sequence[str] = CORE,
    manifest_project: str | None = "core",
    **variables: str,
) -> list[str]:
    """Return the warnings about a manifest of nodes that name no file."""
    return check_files(folder, dict.fromkeys(unique_ids), manifest_project, variables)


def check_files(
    folder: Path,
    files: Mapping[str, str | None],
    manifest_project: str | None = "core",
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the warnings about a manifest. files: by unique id, where a node is defined."""
    nodes = {unique_id: {"original_file_path": file} for unique_id, file in files.items()}
    content = json.dumps({"metadata": {"project_name": manifest_project}, "nodes": nodes})
    manifest = parse_artifact(content.encode(), path="manifest.json", kind=Kind.MANIFEST)
    messages = Messages()
    environ = environ or {}
    check_overlap(manifest, read_project(folder, environ), environ=environ, console=messages)
    return messages.warnings


def test_the_manifest_of_an_installed_package_is_accepted(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "orders")
    assert check(reports) == []
    assert check(reports, manifest_project=None) == []


def test_a_versioned_model_alone_is_enough(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "prices_v2")
    assert check(reports) == []


def test_a_linked_package_counts(reports: Path) -> None:
    install(reports.parent, "core", "orders")
    (reports / "dbt_packages").mkdir()
    (reports / "dbt_packages" / "core").symlink_to(reports.parent / "core")
    assert check(reports) == []


@pytest.mark.parametrize("path", ["../packages", "{{ env_var('PACKAGES') }}"])
def test_the_install_path_of_the_project_counts(path: str, reports: Path) -> None:
    write(reports / "dbt_project.yml", f'name: reports\npackages-install-path: "{path}"\n')
    install(reports.parent / "packages", "core", "orders")
    assert check(reports, PACKAGES=str(reports.parent / "packages")) == []


@pytest.mark.parametrize("name", ["DBT_PACKAGES_INSTALL_PATH", "DBT_ENGINE_PACKAGES_INSTALL_PATH"])
def test_the_install_path_of_dbt_2_counts(name: str, reports: Path) -> None:
    install(reports.parent / "packages", "core", "orders")
    assert check(reports, **{name: "../packages"}) == []


def test_a_manifest_that_shares_nothing_is_rejected(reports: Path) -> None:
    install(reports / "dbt_packages", "dates", "calendar")
    with pytest.raises(ArtifactRefused, match=r"is of project 'core' and has nothing of this one"):
        check(reports)


def test_a_package_with_the_same_name_and_other_models_is_rejected(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "customers")
    with pytest.raises(ArtifactRefused, match="has nothing of this one, 'reports'"):
        check(reports)


def test_a_package_that_cannot_be_read_does_not_count(reports: Path) -> None:
    install(reports / "dbt_packages", "core", "orders")
    write(reports / "dbt_packages" / "core" / "dbt_project.yml", "name: [")
    with pytest.raises(ArtifactRefused):
        check(reports)


def test_another_project_with_a_common_package_is_warned_of(reports: Path) -> None:
    install(reports / "dbt_packages", "dates", "calendar")
    [warning] = check(reports, [*CORE, "model.dates.calendar"])
    assert "is of project 'core' and contains no node of 'reports'" in warning
    assert "only models of the package dates can be deferred" in warning


@pytest.mark.parametrize("name", ["packages.yml", "dependencies.yml"])
def test_packages_that_are_not_installed_are_warned_of(name: str, reports: Path) -> None:
    write(reports / name, "packages:\n  - local: ../core\n")
    [warning] = check(reports)
    assert "not all of them are installed" in warning
    assert warning.endswith("Run `dbt deps`.")
    install(reports / "dbt_packages", "dates", "calendar")
    with pytest.raises(ArtifactRefused):
        check(reports)


def test_a_new_package_that_is_not_installed_is_warned_of(reports: Path) -> None:
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
def test_a_package_file_without_packages_changes_nothing(content: str, reports: Path) -> None:
    write(reports / "packages.yml", content)
    with pytest.raises(ArtifactRefused):
        check(reports)


@pytest.mark.skipif(os.name == "nt", reason="named pipes are of POSIX")
def test_a_package_file_that_is_a_pipe_is_not_read(reports: Path) -> None:
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
def test_a_node_with_another_name_than_its_file_counts(
    unique_id: str, file: str, reports: Path
) -> None:
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
def test_a_file_that_is_not_of_the_project_does_not_count(
    unique_id: str, file: str, reports: Path
) -> None:
    write(reports / "models" / "schema.yml")
    write(reports.parent / "secret.sql")
    with pytest.raises(ArtifactRefused, match="is also called 'reports'"):
        check_files(reports, {unique_id: file}, "reports")


def test_a_hostile_package_name_leads_nowhere(reports: Path) -> None:
    install(reports.parent, "core", "orders")
    (reports / "dbt_packages").mkdir()
    with pytest.raises(ArtifactRefused):
        check(reports, ["model./../core.orders", "model.core.orders", f"model.{'x' * 5000}.a"])


@pytest.mark.dbt
@pytest.mark.skipif(os.name == "nt", reason="the recipe is for a POSIX shell")
def test_the_recipe_for_another_teams_project(tmp_path: Path) -> None:
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
