"""`datapilot auth` for somebody at a terminal, a real one."""

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


def test_somebody_at_a_terminal_is_asked_and_the_token_is_not_shown(
    instance: RunningInstance, home: Path
) -> None:
    answers = {
        "Instance URL [https://api.myaltimate.com]: ": instance.url,
        "Instance name: ": "acme",
        "Token: ": instance.token,
        "readable by you only? [y/N]: ": "y",
    }
    said = at_a_terminal(["auth", "login"], answers, os.environ)
    file = home / ".altimate" / "altimate.json"
    assert (
        f"Logged in to {instance.url} with instance name 'acme'. The credentials are in {file}."
        in said
    )
    assert "There is no keyring on this system; keep the credentials" in said
    assert instance.token not in said
    assert datapilot("auth", "status").exit_code == 0


def test_a_typed_token_that_is_not_accepted_comes_from_the_prompt(
    instance: RunningInstance,
) -> None:
    answers = {
        "Instance URL [https://api.myaltimate.com]: ": instance.url,
        "Instance name: ": "acme",
        "Token: ": "wrong-token-0000",
    }
    said = at_a_terminal(["auth", "login"], answers, {**os.environ, "NO_COLOR": "1"})
    assert (
        "does not accept the token (from prompt) for the instance name 'acme' (from prompt)" in said
    )
    assert "option" not in said
    assert "wrong-token-0000" not in said


def test_in_ci_nobody_is_asked_even_at_a_terminal() -> None:
    assert "Error: no instance name and no token" in at_a_terminal(
        ["auth", "status"], {}, {**os.environ, "CI": "true", "NO_COLOR": "1"}
    )
