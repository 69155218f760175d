"""`datapilot auth` for somebody at a terminal, a real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.commands import datapilot
from tests.support.instances import RunningInstance

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
        f"Logged in to {instance.url} as instance name 'acme'; the credentials are in {file}."
        in said
    )
    assert "There is no keyring on this system; keep the credentials" in said
    assert instance.token not in said
    assert datapilot("auth", "status").exit_code == 0


def test_in_ci_nobody_is_asked_even_at_a_terminal() -> None:
    assert "Error: no instance name and no token" in at_a_terminal(
        ["auth", "status"], {}, {**os.environ, "CI": "true", "NO_COLOR": "1"}
    )


_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def at_a_terminal(words: list[str], answers: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Run `datapilot WORDS` at a pseudo-terminal, answer its prompts and return its output."""
    command = [sys.executable, "-c", _TERMINAL, sys.executable, "-m", "datapilot_defer", *words]
    shown = b""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for question, answer in answers.items():
            before = len(shown)
            while question.encode() not in shown[before:]:
                piece = os.read(process.stdout.fileno(), 4096)
                assert piece, shown
                shown += piece
            process.stdin.write(f"{answer}\n".encode())
            process.stdin.flush()
        shown += process.stdout.read()
    return shown.decode()
