"""Running our command line, in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from datapilot_defer.cli.main import root
from tests.support.instances import RunningInstance


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The object in the last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def said(self) -> str:
        """Everything that appeared anywhere."""
        return self.stdout + self.stderr


def datapilot(
    *arguments: object, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> Outcome:
    """Run `datapilot ARGUMENTS`; a traceback fails the test."""
    result = CliRunner().invoke(
        root, [str(argument) for argument in arguments], env=env, input=stdin, prog_name="datapilot"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def access(instance: RunningInstance, token: str | None = None) -> dict[str, str]:
    """The environment variables that lead to this instance, as admin or with another token."""
    return {
        "ALTIMATE_URL": instance.url,
        "ALTIMATE_INSTANCE_NAME": instance.instance_name,
        "ALTIMATE_API_KEY": token or instance.token,
    }
