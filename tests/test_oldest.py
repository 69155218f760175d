"""The oldest Python, with the oldest dependencies that setup.cfg admits, does the main job on both sides."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.environments import REPOSITORY, require_program

pytestmark = pytest.mark.slow


@pytest.fixture
def variables(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment variables that lead to an instance, served by the oldest environment."""
    command = [
        str(require_program("oldest", "datapilot")),
        "instance",
        "serve",
        "--data",
        str(tmp_path / "data"),
    ]
    with subprocess.Popen(
        [*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    ) as serving:
        try:
            assert serving.stdout is not None
            shown = json.loads(serving.stdout.readline())
            yield {
                **os.environ,
                "ALTIMATE_URL": shown["url"],
                "ALTIMATE_INSTANCE_NAME": shown["instance_name"],
                "ALTIMATE_API_KEY": shown["token"],
            }
        finally:
            serving.terminate()


def test_every_module_imports() -> None:
    paths = (
        path.relative_to(REPOSITORY).with_suffix("")
        for path in (REPOSITORY / "datapilot_defer").rglob("*.py")
    )
    names = ", ".join(".".join(path.parts).removesuffix(".__init__") for path in paths)
    subprocess.run([require_program("oldest", "python"), "-c", f"import {names}"], check=True)


def test_it_validates_onboards_and_pulls_the_same_bytes(
    variables: dict[str, str], artifacts: Path, tmp_path: Path
) -> None:
    manifest = artifacts / "manifest.json"
    assert datapilot(variables, "validate", manifest)["files"][0]["verdict"] == "accepted"
    made = datapilot(variables, "integrations", "create", "--name", "shop")
    onboarded = datapilot(
        variables, "onboard", "--integration-id", made["id"], "--manifest-path", manifest
    )
    assert onboarded["ok"] is True
    datapilot(variables, "pull", "--integration-name", "shop", "--output", tmp_path / "state")
    assert (tmp_path / "state" / "manifest.json").read_bytes() == manifest.read_bytes()


def datapilot(variables: dict[str, str], *words: object) -> Any:
    """The result of `datapilot dbt WORDS --json` in the oldest environment."""
    command = [str(require_program("oldest", "datapilot")), "dbt", *map(str, words), "--json"]
    done = subprocess.run(command, env=variables, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
