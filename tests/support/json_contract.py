"""Checks of `--json` output against the JSON schema of each command in docs/json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
from jsonschema import Draft202012Validator, FormatChecker

from datapilot_defer.cli.main import root

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "json"
# `serve` prints its URL and continues. The others print dbt's output and a shell script.
EXEMPT = frozenset({"instance.serve", "dbt.defer.run", "dbt.defer.env"})
ERROR = "error"
_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def is_utc_timestamp(value: object) -> bool:
    """Return whether a value is an ISO timestamp in UTC or not a string."""
    if not isinstance(value, str):
        return True
    return datetime.fromisoformat(value).utcoffset() == timedelta()


def leaf_commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Yield each command that is not a group, with its dotted name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaf_commands(command, (*path, name))
        else:
            yield ".".join((*path, name)), command


LEAVES = dict(leaf_commands(root))


def schema_name(dotted: str) -> str:
    """Return the name of a command's schema without its suffix."""
    return dotted.replace(".", "-")


@cache
def validator(name: str) -> Draft202012Validator:
    """Return the validator of a schema."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema, format_checker=_FORMATS)


def find_problems(dotted: str, result: Any) -> list[str]:
    """Return the differences of a command's result from its schema."""
    name = schema_name(dotted)
    if isinstance(result, dict) and "error" in result:
        name = ERROR
    return [
        f"{name}.json: {error.json_path}: {error.message}"
        for error in validator(name).iter_errors(result)
    ]


def check_output(arguments: Sequence[object], stdout: str, exit_code: int | None) -> None:
    """Fail if the output of a command with --json does not match its schema.

    arguments: the arguments of `datapilot`. exit_code: None or negative for a command that was
    killed, which is not checked.
    """
    if exit_code is None or exit_code < 0:
        return
    words = list(takewhile(lambda word: word != "--", map(str, arguments)))
    dotted = find_command(words)
    if "--json" not in words or "--help" in words or dotted is None or dotted in EXEMPT:
        return
    assert stdout, f"{dotted} --json: nothing on standard output"
    result = json.loads(stdout.splitlines()[-1])
    assert find_problems(dotted, result) == [], result
    assert result.get("exit_code", exit_code) == exit_code, result


def find_command(words: Sequence[str]) -> str | None:
    """Return the dotted name of the command in these words, or None if there is none."""
    command: click.Command | None = root
    path: list[str] = []
    for word in words:
        if not isinstance(command, click.Group):
            break
        path.append(word)
        command = command.commands.get(word)
    dotted = ".".join(path)
    if dotted in LEAVES:
        return dotted
    return None
