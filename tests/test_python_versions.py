"""The main commands of client and server on each supported Python.

"oldest" is the oldest Python with the oldest dependencies that setup.cfg allows.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.environments import PYTHON_VERSIONS, REPOSITORY, require_program
from tests.support.json_contract import check_output

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("environment", PYTHON_VERSIONS)]


@pytest.fixture
def variables(environment: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Serve an instance and yield the environment variables that select it."""
    command = [
        str(require_program(environment, "datapilot")),
        *("instance", "serve", "--data", str(tmp_path / "data"), "--port", "0", "--json"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            started = json.loads(serving.stdout.readline())
            yield {
                **os.environ,
                "ALTIMATE_URL": started["url"],
                "ALTIMATE_INSTANCE_NAME": started["instance_name"],
                "ALTIMATE_API_KEY": started["token"],
            }
        finally:
            serving.terminate()


def test_interpreter_has_expected_version(environment: str) -> None:
    python = require_program(environment, "python")
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith(f"Python {PYTHON_VERSIONS[environment]}.")


def test_every_module_imports(environment: str) -> None:
    paths = (
        path.relative_to(REPOSITORY).with_suffix("")
        for path in (REPOSITORY / "datapilot_defer").rglob("*.py")
        if path.name != "env.py"  # Only Alembic can run this module.
    )
    names = ", ".join(".".join(path.parts).removesuffix(".__init__") for path in paths)
    python = require_program(environment, "python")
    subprocess.run([python, "-W", "error", "-c", f"import {names}"], check=True)


def test_manifest_is_validated_onboarded_and_pulled(
    environment: str, variables: dict[str, str], artifacts: Path, tmp_path: Path
) -> None:
    manifest = artifacts / "manifest.json"
    program = require_program(environment, "datapilot")

    def datapilot(*words: object) -> Any:
        """Return the result of `datapilot dbt WORDS --json`."""
        command = [str(program), "dbt", *map(str, words), "--json"]
        completed = subprocess.run(command, env=variables, capture_output=True, encoding="utf-8")
        assert completed.returncode == 0, completed.stderr
        check_output(command[1:], completed.stdout, completed.returncode)
        return json.loads(completed.stdout.splitlines()[-1])

    assert datapilot("validate", manifest)["files"][0]["verdict"] == "accepted"
    created = datapilot("integrations", "create", "--name", "shop")
    onboarded = datapilot("onboard", "--integration-id", created["id"], "--manifest-path", manifest)
    assert onboarded["ok"] is True
    datapilot("pull", "--integration-name", "shop", "--output", tmp_path / "state")
    assert (tmp_path / "state" / "manifest.json").read_bytes() == manifest.read_bytes()
