"""Help texts and messages without the words that CONTRIBUTING.md lists."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import cast

import click
import pytest

from datapilot_defer.cli.main import root
from tests.support.commands import LEAVES
from tests.support.environments import REPOSITORY

PACKAGE = REPOSITORY / "datapilot_defer"
ODD_WORDS = cast(
    "re.Pattern[str]", runpy.run_path(str(REPOSITORY / "scripts/metrics"))["ODD_WORDS"]
)
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
TEMPLATES = sorted((PACKAGE / "instance/web/templates").iterdir())


def messages(module: Path) -> list[str]:
    """Return the strings of two or more words that are not docstrings."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, documented)
    ]
    return [text for text in strings if " " in text.strip() and text not in docstrings]


def odd_words(texts: list[str]) -> list[str]:
    """Return each odd word with its text."""
    return [f"{match.group()}: {text}" for text in texts for match in ODD_WORDS.finditer(text)]


@pytest.mark.parametrize("module", MODULES)
def test_messages_have_no_odd_words(module: str) -> None:
    assert odd_words(messages(PACKAGE / module)) == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_pages_have_no_odd_words(template: Path) -> None:
    assert odd_words(template.read_text(encoding="utf-8").splitlines()) == []


@pytest.mark.parametrize("dotted", LEAVES)
def test_help_has_no_odd_words(dotted: str) -> None:
    command = LEAVES[dotted]
    helps = [parameter.to_info_dict().get("help") for parameter in command.params]
    assert odd_words([text for text in [command.help, *helps] if text]) == []


@pytest.mark.parametrize(
    "text",
    ["It is no URL", "There are no folders", "Nobody said so", "mend it", "The token is refused"],
)
def test_odd_word_is_detected(text: str) -> None:
    assert odd_words([text])


@pytest.mark.parametrize(
    "text",
    ["There are no files", "It is no longer there", "connection refused", "a workspace folder"],
)
def test_correct_word_is_accepted(text: str) -> None:
    assert odd_words([text]) == []


def groups(command: click.Command) -> list[click.Group]:
    """Return a group and all groups in it."""
    if not isinstance(command, click.Group):
        return []
    return [command, *(each for child in command.commands.values() for each in groups(child))]


@pytest.mark.parametrize("group", groups(root), ids=lambda group: str(group.name))
def test_command_list_has_no_shortened_line(group: click.Group) -> None:
    context = click.Context(
        group, info_name="datapilot", terminal_width=80, **group.context_settings
    )
    commands = group.get_help(context).partition("Commands:\n")[2]
    assert commands
    assert [line for line in commands.splitlines() if line.endswith(("...", "…"))] == []
