"""The commands of `datapilot auth` at a real pseudo-terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.commands import datapilot
from tests.support.instances import RunningInstance
from tests.support.terminal import at_a_terminal

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no pseudo-terminals of this kind"
)


def test_login_prompts_and_hides_token(instance: RunningInstance, home: Path) -> None:
    answers = {
        "Instance URL [https://api.myaltimate.com]: ": instance.url,
        "Instance name: ": "acme",
        "Token: ": instance.token,
        "which only you can read? [y/N]: ": "y",
    }
    output = at_a_terminal(["auth", "login"], answers, os.environ)
    file = home / ".altimate" / "altimate.json"
    assert (
        f"Logged in to {instance.url} with instance name 'acme'. The credentials are in {file}."
        in output
    )
    assert "There is no keyring on this system. Store the credentials" in output
    assert instance.token not in output
    assert datapilot("auth", "status").exit_code == 0


def test_rejected_token_error_names_prompt(
    instance: RunningInstance,
) -> None:
    answers = {
        "Instance URL [https://api.myaltimate.com]: ": instance.url,
        "Instance name: ": "acme",
        "Token: ": "wrong-token-0000",
    }
    output = at_a_terminal(["auth", "login"], answers, {**os.environ, "NO_COLOR": "1"})
    assert (
        "does not accept the token (from prompt) for the instance name 'acme' (from prompt)"
        in output
    )
    assert "option" not in output
    assert "wrong-token-0000" not in output


def test_ci_disables_prompts_at_terminal() -> None:
    assert "Error: no instance name and no token" in at_a_terminal(
        ["auth", "status"], {}, {**os.environ, "CI": "true", "NO_COLOR": "1"}
    )
