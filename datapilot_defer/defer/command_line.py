"""dbt's command line and environment, so that dbt defers to one state directory and nothing else.

Source: `dbt <command> --help` of dbt-core 1.5.12, 1.6.19, 1.8.10, 1.10.23 and 1.11.16, and
`dbt/cli/params.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.errors import UsageError

# Commands that resolve references, so that deferral has an effect; all take --defer since dbt 1.5.
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
# Options before the command that take a value. The value may look like a command.
_OPTIONS_WITH_VALUE = {
    "--log-format",
    "--log-format-file",
    "--log-level",
    "--log-level-file",
    "--log-path",
    "--log-file-max-bytes",
    "--profile",
    "--profiles-dir",
    "--project-dir",
    "--target",
    "-t",
    "--target-path",
    "--warn-error-options",
    "--printer-width",
    "--record-timing-info",
    "-r",
    "--partial-parse-file-path",
    "--state",
    "--defer-state",
}
# Besides the flags, these decide about deferral. DBT_DEFER_STATE even takes precedence over
# --state (dbt-core issue 11216).
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
    """What to run.

    words: the program and its arguments. command: dbt's own command, such as ("docs", "generate").
    deferred: whether dbt defers. favor_state: whether it then favors the state.
    removed: environment variables that the child process does not get.
    """

    words: tuple[str, ...]
    command: tuple[str, ...]
    deferred: bool
    favor_state: bool
    environment: Mapping[str, str]
    removed: tuple[str, ...]


def find_option(words: Sequence[str], *names: str) -> str | None:
    """Return the value of an option as dbt takes it, the last one given; None when not given."""
    last_value = None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name not in names:
            continue
        if equals:
            last_value = value
        elif index + 1 < len(words):
            last_value = words[index + 1]
    return last_value


def compose_command(
    words: Sequence[str],
    *,
    dbt: DbtInstallation,
    state: Path,
    favor_state: bool,
    environ: Mapping[str, str],
) -> CommandLine:
    """Return the command line and environment that make dbt defer to `state`.

    words: the arguments that the user would give to dbt.
    Raises UsageError for flags that contradict deferring to `state`.
    """
    index, command = find_command(words)
    _check_conflicting_flags(words)
    flags: list[str] = []
    if command in DEFERRING_COMMANDS:
        flags = _deferral_flags(words, dbt, state, favor_state=favor_state)
    elif command in STATE_ONLY_COMMANDS and not find_option(words, "--state"):
        flags = ["--state", str(state)]
    elif command == RETRY_COMMAND and dbt.major_minor >= (1, 8):
        flags = ["--defer-state", str(state)]
    end = index + len(command)
    removed = tuple(name for name in DEFER_VARIABLES if name in environ)
    return CommandLine(
        words=(str(dbt.path), *words[:end], *flags, *words[end:]),
        command=command,
        deferred=command in {*DEFERRING_COMMANDS, RETRY_COMMAND},
        favor_state=_is_state_favored(words, favor_state),
        environment={name: value for name, value in environ.items() if name not in removed},
        removed=removed,
    )


def _deferral_flags(
    words: Sequence[str], dbt: DbtInstallation, state: Path, *, favor_state: bool
) -> list[str]:
    flags = []
    if "--defer" not in words:
        flags.append("--defer")
    flags += _state_flags(words, dbt, state)
    if favor_state and not {"--favor-state", "--no-favor-state"} & set(words):
        flags.append("--favor-state")
    return flags


def _state_flags(words: Sequence[str], dbt: DbtInstallation, state: Path) -> list[str]:
    """Return the flag for deferral; a --state of the user's keeps selecting (state:modified)."""
    if find_option(words, "--state") is None:
        return ["--state", str(state)]
    if dbt.major_minor < (1, 6):
        raise UsageError(
            f"dbt {dbt.version} can't select by one --state and defer to another: leave --state out"
        )
    return ["--defer-state", str(state)]


def _is_state_favored(words: Sequence[str], favor_state: bool) -> bool:
    if "--no-favor-state" in words:
        return False
    return favor_state or "--favor-state" in words


def _check_conflicting_flags(words: Sequence[str]) -> None:
    if "--no-defer" in words:
        raise UsageError("--no-defer contradicts `defer run`: leave it out, or run dbt itself")
    if find_option(words, "--defer-state"):
        raise UsageError(
            "--defer-state contradicts `defer run`, which defers to what is set for this project "
            "(see `datapilot dbt defer status`): leave it out, or run dbt itself"
        )


def find_command(words: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """Return position and words of dbt's command. Raises UsageError when there is none."""
    index = 0
    while index < len(words):
        word = words[index]
        if word in _COMMANDS:
            return index, _command_at(words, index)
        if not word.startswith("-"):
            raise _unknown_command_error(word)
        index += 1
        if word in _OPTIONS_WITH_VALUE:
            index += 1
    raise UsageError("say what dbt shall do, such as `datapilot dbt defer run build -s my_model`")


def _command_at(words: Sequence[str], index: int) -> tuple[str, ...]:
    """Return the command at this position, of one word or two."""
    following = words[index + 1 : index + 2]
    if words[index] in _TWO_WORDS and following and not following[0].startswith("-"):
        return (words[index], following[0])
    return (words[index],)


def _unknown_command_error(word: str) -> UsageError:
    if word == "dbt":
        return UsageError("leave the word dbt out: `datapilot dbt defer run build -s my_model`")
    if " " in word:
        return UsageError(
            f"{word!r} is one word for dbt: write the words without quotes, "
            "`defer run build -s my_model`"
        )
    return UsageError(
        f"{word!r} is no command of dbt; write it as for dbt itself: `defer run build -s my_model`"
    )


def check_retry(words: Sequence[str], project: DbtProject) -> None:
    """Raise UsageError if `dbt retry` would not defer: it repeats the last run with its own flags.

    It would not when the last run was not deferred, or when its state directory no longer exists.
    """
    target = Path(find_option(words, "--state") or project.target)
    file = project.folder / target / "run_results.json"
    arguments = _read_run_arguments(file)
    deferring_commands = {command[-1] for command in DEFERRING_COMMANDS}
    if arguments.get("which") not in deferring_commands:
        return
    if not arguments.get("defer"):
        raise UsageError(
            f"the last run ({file}) was not deferred, and `dbt retry` repeats it as it was: "
            "it would not defer either; run the same again with `datapilot dbt defer run`"
        )
    state = arguments.get("state")
    if isinstance(state, str) and not (project.folder / state / "manifest.json").is_file():
        raise UsageError(
            f"the last run deferred to {state}, which holds no manifest.json any more, "
            "and `dbt retry` needs it there; run the same again with `datapilot dbt defer run`"
        )


def _read_run_arguments(file: Path) -> Mapping[str, object]:
    """Return the arguments of the last run; {} when dbt itself will report that there is none."""
    try:
        arguments = json.loads(file.read_bytes())["args"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return {}
    if not isinstance(arguments, dict):
        return {}
    return arguments
