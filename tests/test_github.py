"""Checks of the GitHub workflows and forms by other programs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.environments import REPOSITORY, executable

GITHUB = REPOSITORY / ".github"
SCHEMAS = {
    "workflows/tests.yml": "vendor.github-workflows",
    "workflows/release.yml": "vendor.github-workflows",
    "dependabot.yml": "vendor.dependabot",
    "ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/feature.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
}
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$")


def check(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program that is installed in the environment of this Python."""
    path = executable(Path(sys.prefix), program)
    return subprocess.run([path, *words], cwd=REPOSITORY, capture_output=True, encoding="utf-8")


def run_zizmor(directory: Path) -> subprocess.CompletedProcess[str]:
    return check("zizmor", "--offline", "--pedantic", "--no-progress", str(directory))


def test_every_file_has_schema() -> None:
    files = {path.relative_to(GITHUB).as_posix() for path in GITHUB.rglob("*.yml")}
    assert files == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_file_matches_schema(name: str) -> None:
    done = check("check-jsonschema", "--builtin-schema", SCHEMAS[name], str(GITHUB / name))
    assert done.returncode == 0, done.stdout


def test_zizmor_reports_no_problem() -> None:
    done = run_zizmor(GITHUB)
    assert done.returncode == 0, done.stdout


def test_zizmor_reports_unpinned_action(tmp_path: Path) -> None:
    workflow = (GITHUB / "workflows" / "tests.yml").read_text(encoding="utf-8")
    changed = re.sub(r"checkout@[0-9a-f]{40}", "checkout@v5", workflow)
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    (tmp_path / ".github" / "workflows" / "tests.yml").write_text(changed, encoding="utf-8")
    done = run_zizmor(tmp_path)
    assert done.returncode != 0
    assert "unpinned" in done.stdout


def test_actions_are_pinned_by_hash_with_version() -> None:
    for path in (GITHUB / "workflows").glob("*.yml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        uses = [line.strip().removeprefix("- ") for line in lines if "uses:" in line]
        assert uses
        assert [line for line in uses if not PINNED.fullmatch(line)] == []


def test_hooks_run_programs_of_environment() -> None:
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    requirements = (REPOSITORY / "setup.cfg").read_text(encoding="utf-8")
    programs = re.findall(r"entry: \.venv/bin/(\w+)", hooks)
    assert programs
    for program in programs:
        assert re.search(rf"^    {program}==", requirements, flags=re.MULTILINE)
