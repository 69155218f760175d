"""altimate-datapilot-cli 0.3.8 as a client of our instance and in the same environment."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import requests

from tests.support.environments import executable, require, require_program
from tests.support.instances import RunningInstance

pytestmark = pytest.mark.peer

KINDS = {
    "manifest": "--manifest-path",
    "catalog": "--catalog-path",
    "run_results": "--run-results-path",
}


@pytest.mark.parametrize(
    "named", [("--dbt_core_integration_id", "1"), ("--dbt_core_integration_name", "shop")]
)
def test_cli_onboards_three_kinds_by_id_and_by_name(
    instance: RunningInstance, artifacts: Path, named: tuple[str, str]
) -> None:
    integration = create_integration(instance, "shop")
    assert integration == 1
    access = [
        "--token",
        instance.token,
        "--instance-name",
        instance.instance_name,
        "--backend-url",
        instance.url,
    ]
    files = [
        word for kind, option in KINDS.items() for word in (option, str(artifacts / f"{kind}.json"))
    ]
    where = [*named, "--dbt_core_integration_environment", "PROD"]
    done = run(
        [require_program("altimate", "datapilot"), "dbt", "onboard", *access, *where, *files]
    )
    assert "Manifest onboarded successfully!" in done.stdout
    assert "Ingestion has started for: manifest, catalog, run_results" in done.stdout
    for kind in KINDS:
        assert fetch(instance, integration, kind) == (artifacts / f"{kind}.json").read_bytes()


def test_cli_reports_invalid_credentials_for_wrong_token(
    instance: RunningInstance, artifacts: Path
) -> None:
    access = [
        "--token",
        "wrong",
        "--instance-name",
        instance.instance_name,
        "--backend-url",
        instance.url,
    ]
    where = ["--dbt_core_integration_id", "1", "--dbt_core_integration_environment", "PROD"]
    manifest = ["--manifest-path", str(artifacts / "manifest.json")]
    done = run(
        [require_program("altimate", "datapilot"), "dbt", "onboard", *access, *where, *manifest]
    )
    assert "Error: Invalid credentials." in done.stdout


def test_our_program_delegates_commands_that_only_the_cli_has(artifacts: Path) -> None:
    ours = require_program("together", "datapilot-defer")
    health = run([ours, "dbt", "project-health", "--manifest-path", artifacts / "manifest.json"])
    assert health.returncode == 0, health.stdout
    assert "Insights" in health.stdout
    for command in ("mcp", "knowledge"):
        assert run([ours, command, "--help"]).stdout.startswith(
            f"Usage: datapilot-defer {command} "
        )


def test_our_commands_take_precedence_when_both_are_installed(artifacts: Path) -> None:
    python = executable(require("together"), "python")
    for start in (
        [require_program("together", "datapilot-defer")],
        [python, "-m", "datapilot_defer"],
    ):
        done = run([*start, "dbt", "onboard", "--help"])
        assert "--integration-id" in done.stdout
    validated = run(
        [python, "-m", "datapilot_defer", "dbt", "validate", artifacts / "manifest.json"]
    )
    assert validated.returncode == 0, validated.stdout


def test_help_lists_commands_of_both_without_importing_the_cli() -> None:
    python = executable(require("together"), "python")
    done = run([python, "-X", "importtime", "-m", "datapilot_defer", "--help"])
    assert "project-health" in done.stdout
    imported = {
        line.rpartition("|")[2].strip()
        for line in done.stdout.splitlines()
        if line.startswith("import time:")
    }
    assert {name for name in imported if name.partition(".")[0] == "datapilot"} == set()


def test_command_that_neither_program_has_is_usage_error() -> None:
    done = run([require_program("together", "datapilot-defer"), "dbt", "no-such-command"])
    assert done.returncode == 2
    assert "No such command 'no-such-command'" in done.stdout


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a program without input and return its result, with both streams merged in `stdout`."""
    return subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


def create_integration(instance: RunningInstance, name: str) -> int:
    wanted = {"name": name, "environment": "PROD", "integration_type": "dbt_core"}
    answer = requests.post(
        f"{instance.url}/dbt/v1/project_integration",
        json=wanted,
        headers=instance.headers,
        timeout=10,
    )
    assert answer.status_code == 200, answer.text
    return int(answer.json()["dbt_core_integration_id"])


def fetch(instance: RunningInstance, integration: int, kind: str) -> bytes:
    """Download an artifact like the npm client and return its bytes."""
    query = {"artifact_type": kind, "dbt_core_integration_id": str(integration)}
    answer = requests.get(
        f"{instance.url}/dbt/v1/fetch_artifact_url",
        params=query,
        headers=instance.headers,
        timeout=10,
    )
    assert answer.status_code == 200, answer.text
    return requests.get(answer.json()["url"], timeout=10).content
