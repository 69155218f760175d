"""How the help of a command is organized, suggestions, and completion in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from datapilot_defer.cli.main import root
from tests.support.commands import LEAVES, datapilot

HEADINGS = [
    "Required options",
    "Required options (one of these)",
    "Options",
    "Integration options",
    "Artifact options",
    "Safety options",
    "Connection options",
    "Output options",
]
SCRIPTS = Path(sys.executable).parent


def sections(dotted: str) -> dict[str, str]:
    """Return the text of the help by heading."""
    text = datapilot(*dotted.split("."), "--help").stdout
    parts: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        if line.endswith(":") and line[:-1] in HEADINGS:
            heading = line[:-1]
        parts[heading] = parts.get(heading, "") + line + "\n"
    return parts


@pytest.mark.parametrize("dotted", LEAVES)
def test_each_option_stands_in_one_group(dotted: str) -> None:
    found = sections(dotted)
    headings = [heading for heading in found if heading]
    assert headings == [heading for heading in HEADINGS if heading in headings]
    for parameter in LEAVES[dotted].params:
        if isinstance(parameter, click.Option):
            name = f" {parameter.opts[0]}"
            assert sum(name in text for heading, text in found.items() if heading) >= 1
    assert "-h, --help" in found["Output options"]


def test_onboard_groups_its_options() -> None:
    found = sections("dbt.onboard")
    assert list(found) == [
        "",
        "Required options (one of these)",
        "Integration options",
        "Artifact options",
        "Safety options",
        "Connection options",
        "Output options",
    ]
    assert "--integration-name" in found["Required options (one of these)"]
    assert "--manifest-path" in found["Artifact options"]
    assert "--allow" in found["Safety options"]
    assert "--token" in found["Connection options"]


@pytest.mark.parametrize("words", [(), ("dbt",), ("dbt", "onboard"), ("dbt", "defer", "run")])
def test_h_is_short_for_help(words: tuple[str, ...]) -> None:
    short = datapilot(*words, "-h")
    assert short == datapilot(*words, "--help")
    assert short.exit_code == 0


@pytest.mark.parametrize("prefix", ["--dbt_core_integration", "--dbt_integration"])
def test_the_spellings_of_another_client_are_accepted_and_not_shown(prefix: str) -> None:
    assert "_integration" not in datapilot("dbt", "onboard", "--help").stdout
    ended = datapilot("dbt", "onboard", f"{prefix}_id", "x")
    assert ended.exit_code == 2
    assert "Invalid value for '--integration-id':" in ended.stderr
    both = datapilot("dbt", "onboard", f"{prefix}_id", 7, f"{prefix}_name", "shop")
    assert "--integration-id or --integration-name, not both" in both.stderr
    ended = datapilot("dbt", "onboard", f"{prefix}_environment", b"\xff".decode("utf-8", "replace"))
    assert ended.exit_code == 2


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        ("onboard", "`datapilot dbt onboard`"),
        ("pull", "`datapilot dbt pull`"),
        ("serve", "`datapilot instance serve`"),
        ("dbt onbord", "`datapilot dbt onboard`"),
        ("status", "`datapilot auth status` or `datapilot dbt defer status`"),
        ("instance token lst", "`datapilot instance token list`"),
        ("dbt integrations onboard", "`datapilot dbt onboard`"),
    ],
)
def test_a_mistaken_command_is_answered_with_a_suggestion(words: str, suggestion: str) -> None:
    ended = datapilot(*words.split())
    assert ended.exit_code == 2
    assert f"No such command '{words.split()[-1]}'. Did you mean {suggestion}?" in ended.stderr


def test_an_unknown_command_is_answered_without_one() -> None:
    assert "Did you mean" not in datapilot("frobnicate").stderr


COMPLETION = {
    "bash": """eval "$(_DATAPILOT_COMPLETE=bash_source datapilot)"
        COMP_WORDS=(datapilot dbt onb); COMP_CWORD=2; _datapilot_completion datapilot
        echo "${COMPREPLY[@]}" """,
    "zsh": """autoload -U compinit; compinit -u -D
        eval "$(_DATAPILOT_COMPLETE=zsh_source datapilot)"
        _describe() { print -r -- ${(P)3} }
        words=(datapilot dbt onb); CURRENT=3; _datapilot_completion""",
    "fish": """_DATAPILOT_COMPLETE=fish_source datapilot | source
        complete --do-complete 'datapilot dbt onb'""",
}


@pytest.mark.skipif(os.name == "nt", reason="the shells are those of Unix")
@pytest.mark.parametrize("shell", COMPLETION)
def test_a_shell_completes_a_command(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [program, "-c", COMPLETION[shell]],
        env={**os.environ, "HOME": str(tmp_path), "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
        capture_output=True,
        encoding="utf-8",
    )
    assert "onboard" in done.stdout, done.stderr


def test_the_help_names_every_command_of_a_group() -> None:
    listed = datapilot("--help").stdout
    assert all(f"  {name}" in listed for name in root.commands)
