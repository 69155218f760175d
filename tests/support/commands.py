"""Run the command line in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from datapilot_defer.cli.main import root
from tests.support.instances import RunningInstance
from tests.support.json_contract import LEAVES as LEAVES
from tests.support.json_contract import check_output


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Return the object in the last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def output(self) -> str:
        """Return standard output followed by standard error."""
        return self.stdout + self.stderr


def datapilot(
    *arguments: object, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> Outcome:
    """Run `datapilot ARGUMENTS`. Raise unexpected exceptions and check JSON against its schema."""
    result = CliRunner().invoke(
        root, [str(argument) for argument in arguments], env=env, input=stdin, prog_name="datapilot"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    check_output(arguments, result.stdout, result.exit_code)
    return Outcome(result.exit_code, result.stdout, result.stderr)


def access(instance: RunningInstance, token: str | None = None) -> dict[str, str]:
    """Return the environment variables that select an instance, by default as admin."""
    return {
        "ALTIMATE_URL": instance.url,
        "ALTIMATE_INSTANCE_NAME": instance.instance_name,
        "ALTIMATE_API_KEY": token or instance.token,
    }


def create_integration(
    instance: RunningInstance, name: str = "shop", environment: str = "PROD"
) -> int:
    """Create an integration with `datapilot` and return its id."""
    created = datapilot(
        *("dbt", "integrations", "create", "--name", name, "--environment", environment, "--json"),
        env=access(instance),
    )
    assert created.exit_code == 0, created.output
    assert created.json["name"] == name
    assert created.json["environments"] == [environment]
    return int(created.json["id"])


def current_sha256(instance: RunningInstance, integration: int, directory: Path) -> str | None:
    """Return the sha256 of the manifest that `dbt pull` downloads, or None if it fails."""
    pulled = datapilot(
        "dbt",
        "pull",
        "--integration-id",
        integration,
        "--output",
        directory,
        "--json",
        env=access(instance),
    )
    if pulled.exit_code:
        return None
    return hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()
