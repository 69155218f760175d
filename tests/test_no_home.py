"""Without a home directory, as in a container with an unknown user id, what can work works."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.commands import Outcome, access, datapilot
from tests.support.environments import require_program
from tests.support.fault_runner import make_world
from tests.support.instances import RunningInstance

pytestmark = pytest.mark.skipif(os.name == "nt", reason="on Windows there always is one")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be a user whom the system does not know, in an empty working folder."""
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USERPROFILE", *(name for name in os.environ if name.startswith("XDG_"))):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.usefixtures("nobody")
def test_onboarding_and_pulling_work(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    world = make_world(instance, artifacts / "manifest.json", tmp_path / "world")
    where = ["--integration-id", world.integration("shop")]
    done = run(instance, "dbt", "onboard", *where, "--manifest-path", world.new)
    assert done.exit_code == 0, done.output
    assert run(instance, "dbt", "pull", *where, "--output", tmp_path / "state").exit_code == 0
    assert run(instance, "auth", "status").exit_code == 0
    assert run(instance, "config", "show").exit_code == 0
    assert run(instance, "doctor").exit_code == 0


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("dbt", "pull", "--integration-id", "1"), "no home directory"),
        (("auth", "login", "--store", "file"), "no home directory"),
    ],
)
def test_what_needs_a_home_says_so(
    instance: RunningInstance, words: tuple[str, ...], says: str
) -> None:
    done = run(instance, *words)
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.usefixtures("nobody")
def test_without_credentials_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done = datapilot("dbt", "integrations", "list")
    assert done.exit_code == 2
    assert "no instance name and no token" in done.stderr


@pytest.mark.usefixtures("nobody")
@pytest.mark.dbt
def test_a_deferred_run_works_with_options_alone(
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
