"""The command line and environment that make dbt defer to one state directory.

Source: `dbt <command> --help` of dbt-core 1.5.12, 1.6.19, 1.8.10, 1.10.23 and 1.11.16, and
`dbt/cli/params.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.config import without_tokens
from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.errors import UsageError

# Commands that resolve references, so deferral affects them. All accept --defer since dbt 1.5.
DEFERRING_COMMANDS = {
    ("build",),
    ("run",),
    ("test",),
    ("compile",),
    ("show",),
    ("snapshot",),
    ("docs", "generate"),
}
# Commands that use state only for selection. clone also copies from it.
STATE_ONLY_COMMANDS = {
    ("list",),
    ("ls",),
    ("seed",),
    ("clone",),
    ("source", "freshness"),
    ("source", "snapshot-freshness"),  # former name of `source freshness`
}
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
# Options that precede the command and have a value, which may look like a command.
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
    "--indirect-selection",
    "--state",
    "--defer-state",
}
# These variables change deferral. DBT_DEFER_STATE takes precedence over --state in
# dbt 1.x, and DBT_NO_FAVOR_STATE over --favor-state in dbt 2.x.
_DEFER_SETTINGS = (
    "DEFER",
    "STATE",
    "DEFER_STATE",
    "FAVOR_STATE",
    "NO_FAVOR_STATE",
    "DEFER_TO_STATE",
    "ARTIFACT_STATE_PATH",
    "FAVOR_STATE_MODE",
)
DEFER_VARIABLES = tuple(
    f"{prefix}_{name}" for prefix in ("DBT", "DBT_ENGINE") for name in _DEFER_SETTINGS
)


@dataclass(frozen=True)
class CommandLine:
    """A command line of dbt.

    words: the program and its arguments. command: dbt's own command, such as ("docs", "generate").
    favor_state: whether dbt favors the state if the command defers. environment: dbt's environment
    variables. removed: the variables that change deferral and were removed from them.
    """

    words: tuple[str, ...]
    command: tuple[str, ...]
    favor_state: bool
    environment: Mapping[str, str]
    removed: tuple[str, ...]


def find_option(words: Sequence[str], *names: str) -> str | None:
    """Return the last value of an option, which is the one that dbt uses; None if there is none."""
    last_value = None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if word[:2] in names and len(word) > 2:  # such as -tprod
            last_value = word[2:].removeprefix("=")
        elif name not in names:
            continue
        elif equals:
            last_value = value
        elif index + 1 < len(words):
            last_value = words[index + 1]
    return last_value


def compose_command(
    words: Sequence[str],
    *,
    dbt: DbtInstallation,
    state: Path | None,
    favor_state: bool,
    environ: Mapping[str, str],
    directories: Sequence[str] = (),
) -> CommandLine:
    """Return the command line and environment that make dbt defer to `state`.

    words: dbt's command and options, as the user wrote them. state: None for a command that does
    not use state. directories: the flags from `directory_flags`.

    Raises UsageError for a missing or unknown command, for flags that contradict deferring to
    `state`, and for a dbt that cannot both select by one state and defer to another.
    """
    end, command = find_command(words)
    _check_conflicting_flags(words)
    flags: list[str] = []
    if state is not None:
        flags = _flags_for(command, words, dbt, state, favor_state=favor_state)
    removed = tuple(name for name in DEFER_VARIABLES if name in environ)
    return CommandLine(
        words=(str(dbt.path), *words[:end], *directories, *flags, *words[end:]),
        command=command,
        favor_state=_is_state_favored(words, favor_state),
        environment=dbt_environment(environ),
        removed=removed,
    )


def dbt_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables for dbt.

    Variables that change deferral and tokens of instances are removed.
    """
    variables = without_tokens(environ)
    return {name: value for name, value in variables.items() if name not in DEFER_VARIABLES}


def takes_state(command: tuple[str, ...]) -> bool:
    """Return whether a command of dbt defers to a state or selects by it."""
    return command in {*DEFERRING_COMMANDS, *STATE_ONLY_COMMANDS, RETRY_COMMAND}


def _flags_for(
    command: tuple[str, ...],
    words: Sequence[str],
    dbt: DbtInstallation,
    state: Path,
    *,
    favor_state: bool,
) -> list[str]:
    if command in DEFERRING_COMMANDS:
        return _deferral_flags(words, dbt, state, favor_state=favor_state)
    if command in STATE_ONLY_COMMANDS and not find_option(words, "--state"):
        return ["--state", str(state)]
    if command == RETRY_COMMAND and dbt.major_minor >= (1, 8):
        return ["--defer-state", str(state)]
    return []


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
    """Return the flag for the state to defer to.

    A --state of the user still applies to selectors such as state:modified. Raises UsageError for
    dbt before 1.6, which cannot combine the two.
    """
    if find_option(words, "--state") is None:
        return ["--state", str(state)]
    if dbt.major_minor < (1, 6):
        raise UsageError(
            f"dbt {dbt.version} cannot select by one state and defer to another. Omit --state"
        )
    return ["--defer-state", str(state)]


def _is_state_favored(words: Sequence[str], favor_state: bool) -> bool:
    if "--no-favor-state" in words:
        return False
    return favor_state or "--favor-state" in words


def _check_conflicting_flags(words: Sequence[str]) -> None:
    if "--no-defer" in words:
        raise UsageError("--no-defer contradicts `defer run`. Omit it, or run dbt directly")
    if find_option(words, "--defer-state"):
        raise UsageError(
            "--defer-state contradicts `defer run`, which defers to the stored source "
            "(see `datapilot dbt defer status`). Omit it, or run dbt directly"
        )


def find_command(words: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """Return the index of the word after dbt's command, and the words of the command.

    Raises UsageError if the command is missing or unknown.
    """
    index = _skip_options(words, 0)
    if index == len(words):
        raise UsageError(
            "no dbt command given. Add one, such as `datapilot dbt defer run build -s my_model`"
        )
    word = words[index]
    if word not in _COMMANDS:
        raise _unknown_command_error(word)
    end = index + 1
    if word not in _TWO_WORDS:
        return end, (word,)
    second = _skip_options(words, end)
    if second == len(words):
        return end, (word,)
    return second + 1, (word, words[second])


def _skip_options(words: Sequence[str], start: int) -> int:
    """Return the index of the first word that is neither an option nor the value of one."""
    index = start
    while index < len(words) and words[index].startswith("-"):
        if words[index] in _OPTIONS_WITH_VALUE:
            index += 1
        index += 1
    return min(index, len(words))


def _unknown_command_error(word: str) -> UsageError:
    if word == "dbt":
        return UsageError("omit the word dbt: `datapilot dbt defer run build -s my_model`")
    if " " in word:
        return UsageError(
            f"{word!r} is a single argument. Omit the quotes: `defer run build -s my_model`"
        )
    return UsageError(
        f"{word!r} is not a command of dbt. Use one, such as `defer run build -s my_model`"
    )
