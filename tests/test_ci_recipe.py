"""The documented script of docs/ci.md for several projects, run against a real instance."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import access, create_integration, current_sha256
from tests.support.environments import REPOSITORY
from tests.support.instances import RunningInstance

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the script is for bash")
PROJECTS = ("finance", "marketing", "shop")


@pytest.fixture
def repository(artifacts: Path, tmp_path: Path) -> Path:
    """Return a repository with three projects and the script."""
    directory = tmp_path / "repository"
    for name in PROJECTS:
        target = directory / "projects" / name / "target"
        target.mkdir(parents=True)
        (target.parent / "dbt_project.yml").write_text(f"name: {name}\n", encoding="utf-8")
        manifest = (artifacts / "manifest.json").read_text(encoding="utf-8")
        own = manifest.replace('"project_name": "shop"', f'"project_name": "{name}"')
        (target / "manifest.json").write_text(own, encoding="utf-8")
    page = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (directory / "onboard.sh").write_text(script, encoding="utf-8")
    return directory


def run(repository: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the script in the repository, as a CI job does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "onboard.sh"],
        cwd=repository,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY), "CI": "1", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def break_manifest(repository: Path, project: str) -> None:
    manifest = repository / "projects" / project / "target" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:1000])


def test_broken_project_fails_job_without_stopping_others(
    instance: RunningInstance, repository: Path, tmp_path: Path
) -> None:
    ids = {name: create_integration(instance, name) for name in PROJECTS}
    break_manifest(repository, "marketing")
    done = run(repository, access(instance))
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == "Not onboarded: marketing (1)"
    has_manifest = [
        current_sha256(instance, ids[name], tmp_path / name) is not None for name in PROJECTS
    ]
    assert has_manifest == [True, False, True]


def test_all_projects_are_onboarded(instance: RunningInstance, repository: Path) -> None:
    for name in PROJECTS:
        create_integration(instance, name)
    done = run(repository, access(instance))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Onboarded to integration") == 3
    assert "Not onboarded" not in done.stderr
    again = run(repository, access(instance))
    assert (again.returncode, again.stdout.count("Unchanged in integration")) == (0, 3)


def test_manifest_of_another_project_is_rejected(
    instance: RunningInstance, repository: Path
) -> None:
    for name in PROJECTS:
        create_integration(instance, name)
    shared = repository / "projects" / "marketing" / "target"
    done = run(repository, {**access(instance), "DBT_TARGET_PATH": str(shared)})
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == "Not onboarded: finance (1) shop (1)"
    assert f"{shared / 'manifest.json'} is of project 'marketing'" in done.stderr
    assert f"the project in {repository / 'projects' / 'shop'} is 'shop'" in done.stderr


def test_job_returns_highest_exit_code(instance: RunningInstance, repository: Path) -> None:
    create_integration(instance, "finance")
    create_integration(instance, "marketing")
    break_manifest(repository, "finance")
    done = run(repository, access(instance))
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1] == "Not onboarded: finance (1) shop (4)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = run(repository, {**access(instance), "ALTIMATE_URL": url, "DATAPILOT_TIMEOUT": "1"})
    assert done.returncode == 5, done.stderr
    assert done.stderr.splitlines()[-1] == "Not onboarded: finance (1) marketing (5) shop (5)"


def test_repository_without_projects_fails(instance: RunningInstance, repository: Path) -> None:
    shutil.rmtree(repository / "projects")
    assert run(repository, access(instance)).returncode == 2
