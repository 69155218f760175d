"""Commands without a home directory, as in a container with an unknown user id."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.commands import Outcome, access, datapilot
from tests.support.environments import require_program
from tests.support.fault_runner import make_world
from tests.support.instances import RunningInstance

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows always has a home directory")


@pytest.fixture
def unknown_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run the test as a user unknown to the system, in an empty current directory."""
    import pwd

    def fail(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", fail)
    for name in ("HOME", "USERPROFILE", *(name for name in os.environ if name.startswith("XDG_"))):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.usefixtures("unknown_user")
def test_onboard_and_pull_work(instance: RunningInstance, artifacts: Path, tmp_path: Path) -> None:
    world = make_world(instance, artifacts / "manifest.json", tmp_path / "world")
    selection = ["--integration-id", world.integration("shop")]
    done = run(instance, "dbt", "onboard", *selection, "--manifest-path", world.new)
    assert done.exit_code == 0, done.output
    assert run(instance, "dbt", "pull", *selection, "--output", tmp_path / "state").exit_code == 0
    assert run(instance, "auth", "status").exit_code == 0
    assert run(instance, "config", "show").exit_code == 0
    assert run(instance, "doctor").exit_code == 0


@pytest.mark.usefixtures("unknown_user")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dbt", "pull", "--integration-id", "1"), "no home directory"),
        (("auth", "login", "--store", "file"), "no home directory"),
    ],
)
def test_command_that_needs_home_reports_it(
    instance: RunningInstance, words: tuple[str, ...], message: str
) -> None:
    done = run(instance, *words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.usefixtures("unknown_user")
def test_missing_credentials_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    done = datapilot("dbt", "integrations", "list")
    assert done.exit_code == 2
    assert "no instance name and no token" in done.stderr


@pytest.mark.usefixtures("unknown_user")
@pytest.mark.dbt
def test_defer_env_works_with_options(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    world = make_world(instance, artifacts / "manifest.json", tmp_path / "world")
    integration = world.integration("shop")
    Path("dbt_project.yml").write_text(
        "name: shop\nversion: '1'\nprofile: shop\n", encoding="utf-8"
    )
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = datapilot(
        *(
            "dbt",
            "defer",
            "env",
            "--integration-id",
            integration,
            "--dbt",
            require_program("dbt", "dbt"),
            "--json",
        ),
        env={**access(instance), **env},
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])


def run(instance: RunningInstance, *words: object) -> Outcome:
    return datapilot(*words, env=access(instance))
