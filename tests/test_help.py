"""Groups of options in help, suggestions for commands, and completion in real shells."""

from __future__ import annotations

import os
import re
import shlex
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
    """Return the sections of a command's help by heading."""
    text = datapilot(*dotted.split("."), "--help").stdout
    parts: dict[str, str] = {}
    heading = ""
    for line in text.splitlines():
        if line.endswith(":") and line[:-1] in HEADINGS:
            heading = line[:-1]
        parts[heading] = parts.get(heading, "") + line + "\n"
    return parts


@pytest.mark.parametrize("dotted", LEAVES)
def test_each_option_is_in_a_group(dotted: str) -> None:
    parts = sections(dotted)
    headings = [heading for heading in parts if heading]
    assert headings == [heading for heading in HEADINGS if heading in headings]
    for parameter in LEAVES[dotted].params:
        if isinstance(parameter, click.Option):
            name = f" {parameter.opts[0]}"
            assert sum(name in text for heading, text in parts.items() if heading) >= 1
    assert "-h, --help" in parts["Output options"]


def test_onboard_groups_its_options() -> None:
    parts = sections("dbt.onboard")
    assert list(parts) == [
        "",
        "Required options (one of these)",
        "Integration options",
        "Artifact options",
        "Safety options",
        "Connection options",
        "Output options",
    ]
    assert "--integration-name" in parts["Required options (one of these)"]
    assert "--manifest-path" in parts["Artifact options"]
    assert "--allow" in parts["Safety options"]
    assert "--token" in parts["Connection options"]


@pytest.mark.parametrize("words", [(), ("dbt",), ("dbt", "onboard"), ("dbt", "defer", "run")])
def test_short_help_option(words: tuple[str, ...]) -> None:
    short = datapilot(*words, "-h")
    assert short == datapilot(*words, "--help")
    assert short.exit_code == 0


@pytest.mark.parametrize("prefix", ["--dbt_core_integration", "--dbt_integration"])
def test_options_of_other_client_are_accepted_and_hidden(prefix: str) -> None:
    assert "_integration" not in datapilot("dbt", "onboard", "--help").stdout
    done = datapilot("dbt", "onboard", f"{prefix}_id", "x")
    assert done.exit_code == 2
    assert "Invalid value for '--integration-id':" in done.stderr
    both = datapilot("dbt", "onboard", f"{prefix}_id", 7, f"{prefix}_name", "shop")
    assert "--integration-id or --integration-name, not both" in both.stderr
    done = datapilot("dbt", "onboard", f"{prefix}_environment", b"\xff".decode("utf-8", "replace"))
    assert done.exit_code == 2


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
def test_mistyped_command_gets_suggestion(words: str, suggestion: str) -> None:
    done = datapilot(*words.split())
    assert done.exit_code == 2
    assert f"No such command '{words.split()[-1]}'. Did you mean {suggestion}?" in done.stderr


def test_unknown_command_gets_no_suggestion() -> None:
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has other shells")
@pytest.mark.parametrize("shell", COMPLETION)
def test_shell_completes_command(shell: str, tmp_path: Path) -> None:
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


def test_group_help_lists_every_command() -> None:
    listed = datapilot("--help").stdout
    assert all(f"  {name}" in listed for name in root.commands)


@pytest.mark.parametrize("dotted", LEAVES)
def test_help_has_an_example_of_the_command(dotted: str) -> None:
    _, _, examples = (LEAVES[dotted].help or "").partition("Example")
    lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
    assert lines
    for line in lines:
        command = re.sub(r'^eval "\$\((.*)\)"$', r"\1", line).partition(" >> ")[0]
        program, *words = shlex.split(command)
        assert program == "datapilot"
        path = dotted.split(".")
        assert words[: len(path)] == path
        context = click.Context(LEAVES[dotted], **LEAVES[dotted].context_settings)
        LEAVES[dotted].make_parser(context).parse_args(words[len(path) :])


def contexts(command: click.Command, parent: click.Context | None = None) -> list[click.Context]:
    """Return the context of a command and of all commands in it."""
    context = click.Context(
        command, parent, info_name=command.name, terminal_width=80, **command.context_settings
    )
    children = command.commands.values() if isinstance(command, click.Group) else ()
    return [context, *(each for child in children for each in contexts(child, context))]


@pytest.mark.parametrize("context", contexts(root), ids=lambda context: context.command_path)
def test_help_fits_into_80_columns(context: click.Context) -> None:
    assert [line for line in context.get_help().splitlines() if len(line) > 80] == []
