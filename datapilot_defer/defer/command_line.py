"""dbt's command line and environment, made so that dbt defers to one state directory and to nothing else.

Source: `dbt <command> --help` of dbt-core 1.5.12, 1.6.19, 1.8.10, 1.10.23 and 1.11.16, and `dbt/cli/params.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.errors import UsageError

# Commands that resolve references, so that deferring means something; they take all the flags since dbt 1.5.
DEFERRING_COMMANDS = {
    ("build",),
    ("run",),
    ("test",),
    ("compile",),
    ("show",),
    ("snapshot",),
    ("docs", "generate"),
}
# Commands that only select by state (clone also copies from it).
STATE_ONLY_COMMANDS = {("list",), ("ls",), ("seed",), ("clone",), ("source", "freshness")}
RETRY_COMMAND = ("retry",)
_TWO_WORDS = {"docs", "source"}
_OTHER_COMMANDS = {
    "deps",
    "clean",
    "debug",
    "init",
    "parse",
    "run-operation",
    "retry",
    "docs",
    "source",
    "system",
    "man",
}
_COMMANDS = {words[0] for words in DEFERRING_COMMANDS | STATE_ONLY_COMMANDS} | _OTHER_COMMANDS
# Options before the command that take a value, which may look like a command.
_OPTIONS_WITH_VALUE = {
    *(
        "--log-format",
        "--log-format-file",
        "--log-level",
        "--log-level-file",
        "--log-path",
        "--log-file-max-bytes",
    ),
    *(
        "--profile",
        "--profiles-dir",
        "--project-dir",
        "--target",
        "-t",
        "--target-path",
        "--warn-error-options",
    ),
    *(
        "--printer-width",
        "--record-timing-info",
        "-r",
        "--partial-parse-file-path",
        "--state",
        "--defer-state",
    ),
}
# What decides about deferral besides the flags. DBT_DEFER_STATE even wins over --state (dbt-core issue 11216).
_DEFER_SETTINGS = (
    "DEFER",
    "STATE",
    "DEFER_STATE",
    "FAVOR_STATE",
    "DEFER_TO_STATE",
    "ARTIFACT_STATE_PATH",
    "FAVOR_STATE_MODE",
)
DEFER_VARIABLES = tuple(
    f"{prefix}_{name}" for prefix in ("DBT", "DBT_ENGINE") for name in _DEFER_SETTINGS
)


@dataclass(frozen=True)
class CommandLine:
    """What to run. command: dbt's own command, such as ("docs", "generate"). deferred: whether dbt will defer.

    removed: environment variables that the child does not get.
    """

    words: tuple[str, ...]
    command: tuple[str, ...]
    deferred: bool
    favor_state: bool
    environment: Mapping[str, str]
    removed: tuple[str, ...]


def find_option(words: Sequence[str], *names: str) -> str | None:
    """The value of an option as dbt would take it: the last one given. None when it is not there."""
    found = None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names and (equals or index + 1 < len(words)):
            found = value if equals else words[index + 1]
    return found


def compose_command(
    words: Sequence[str],
    *,
    dbt: DbtInstallation,
    state: Path,
    favor_state: bool,
    environ: Mapping[str, str],
) -> CommandLine:
    """The command line and environment for `words`, which is what the user would give to dbt.

    Raises UsageError for flags that contradict deferring to `state`.
    """
    at, command = find_command(words)
    _check_conflicting_flags(words)
    flags: list[str] = []
    if command in DEFERRING_COMMANDS:
        flags = [] if "--defer" in words else ["--defer"]
        flags += _state_flags(words, dbt, state)
        if favor_state and not {"--favor-state", "--no-favor-state"} & set(words):
            flags.append("--favor-state")
    elif command in STATE_ONLY_COMMANDS:
        flags = [] if find_option(words, "--state") else ["--state", str(state)]
    elif command == RETRY_COMMAND and dbt.major_minor >= (1, 8):
        flags = ["--defer-state", str(state)]
    removed = tuple(name for name in DEFER_VARIABLES if name in environ)
    environment = {name: value for name, value in environ.items() if name not in removed}
    end = at + len(command)
    composed = (str(dbt.path), *words[:end], *flags, *words[end:])
    favored = "--no-favor-state" not in words and (favor_state or "--favor-state" in words)
    return CommandLine(
        composed,
        command,
        command in DEFERRING_COMMANDS or command == RETRY_COMMAND,
        favored,
        environment,
        removed,
    )


def find_command(words: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """Where dbt's command stands and what it is, of one or two words. Raises UsageError when there is none."""
    index = 0
    while index < len(words):
        word = words[index]
        if word in _COMMANDS:
            two = (
                word in _TWO_WORDS
                and index + 1 < len(words)
                and not words[index + 1].startswith("-")
            )
            return index, tuple(words[index : index + 1 + two])
        if not word.startswith("-"):
            raise _unknown_command_error(word)
        index += 2 if word in _OPTIONS_WITH_VALUE else 1
    raise UsageError("say what dbt shall do, such as `datapilot dbt defer run build -s my_model`")


def _unknown_command_error(word: str) -> UsageError:
    if word == "dbt":
        return UsageError("leave the word dbt out: `datapilot dbt defer run build -s my_model`")
    if " " in word:
        return UsageError(
            f"{word!r} is one word for dbt: write the words without quotes, `defer run build -s my_model`"
        )
    return UsageError(
        f"{word!r} is no command of dbt; write it as for dbt itself: `defer run build -s my_model`"
    )


def check_retry(words: Sequence[str], project: DbtProject) -> None:
    """Refuse a `dbt retry` that would not defer: it repeats the last run with that run's own flags.

    Raises UsageError when the last run was not deferred, or its state directory is gone.
    """
    folder = Path(find_option(words, "--state") or project.target)
    file = project.folder / folder / "run_results.json"
    try:
        args = json.loads(file.read_bytes())["args"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # dbt says itself that there is nothing to retry
    if not isinstance(args, dict) or args.get("which") not in {
        words[-1] for words in DEFERRING_COMMANDS
    }:
        return
    if not args.get("defer"):
        raise UsageError(
            f"the last run ({file}) was not deferred, and `dbt retry` repeats it as it was: it would not defer either; "
            "run the same again with `datapilot dbt defer run`"
        )
    state = args.get("state")
    if isinstance(state, str) and not (project.folder / state / "manifest.json").is_file():
        raise UsageError(
            f"the last run deferred to {state}, which holds no manifest.json any more, and `dbt retry` needs it there; "
            "run the same again with `datapilot dbt defer run`"
        )


def _check_conflicting_flags(words: Sequence[str]) -> None:
    if "--no-defer" in words:
        raise UsageError("--no-defer contradicts `defer run`: leave it out, or run dbt itself")
    if find_option(words, "--defer-state"):
        raise UsageError(
            "--defer-state contradicts `defer run`, which defers to what is set for this project "
            "(see `datapilot dbt defer status`): leave it out, or run dbt itself"
        )


def _state_flags(words: Sequence[str], dbt: DbtInstallation, state: Path) -> list[str]:
    """--state serves selection (state:modified) and deferral; a --state of the user's keeps the selection."""
    if find_option(words, "--state") is None:
        return ["--state", str(state)]
    if dbt.major_minor < (1, 6):
        raise UsageError(
            f"dbt {dbt.version} can't select by one --state and defer to another: leave --state out"
        )
    return ["--defer-state", str(state)]
