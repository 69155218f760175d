"""Readers of job logs, which recognize the commands of each CI system.

Each reader follows the parser of the system's runner or of its log viewer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Reader = Callable[[str], bool]

_GITHUB_COMMANDS = (
    *("error", "warning", "notice", "debug", "group", "endgroup", "add-mask", "add-matcher"),
    *("remove-matcher", "set-output", "set-env", "add-path", "save-state", "echo", "stop-commands"),
)
# All characters that a reader of a log may treat as a line break.
LINE_BREAKS = (
    *("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"),
)
_COMMANDS = (
    *("::error::x", " \t::stop-commands::y", "\u00a0::add-mask::a", "::error file=a::x"),
    *("##[error]x", "a ##[group]b", "##[command]c", "###[debug]x"),
    *("##vso[task.setvariable variable=a]b", "a ##VSO[task.complete]", "##vso"),
    *("##teamcity[buildStatus status='FAILURE']", "a##teamcity[x 'y']"),
    *("--- a", "+++ a", "~~~ a", "^^^ +++", "a ::group::b", "::endgroup::"),
    *("section_start:1:a[collapsed=true]\r\x1b[0Kb", "travis_fold:start:a\r\x1b[0K"),
    *("\x1b[8mha:x\x1b[0m", "\x1b]1338;url=x\x07", "\x1b_bk;t=1\x07", "\x9b2J", "\u202eab\u2066"),
)
# Each kind of line break, and each command at the start of a line.
COMMANDS = "::error::x".join(("", *LINE_BREAKS)) + "\n".join(("", *_COMMANDS))
_FORGED = "Forged line"
# Untrusted text must also not forge a line of the program.
ATTACK = f"{COMMANDS}\n{_FORGED}"


def github(line: str) -> bool:
    """Return whether the line has a command of GitHub Actions.

    Sources: TryParseV2 and TryParse in ActionCommand.cs of the runner. The log viewer obeys ##.
    """
    stripped = line.lstrip()
    for name in _GITHUB_COMMANDS:
        if re.match(rf"::{name}( [^:]*)?::", stripped, re.IGNORECASE):
            return True
    return re.search(r"##\[", line) is not None


def azure(line: str) -> bool:
    """Return whether the line has a command of Azure Pipelines.

    Sources: Command.cs and WorkerCommandManager.cs of the agent, which warns of each "##vso".
    """
    return re.search(r"##(vso|\[)", line, re.IGNORECASE) is not None


def teamcity(line: str) -> bool:
    """Return whether the line has a service message, which may be anywhere in it."""
    return "##teamcity[" in line


def gitlab(line: str) -> bool:
    """Return whether the line starts or ends a section with the sequence that clears a line."""
    return re.search(r"section_(start|end):\d+:[^\r]*\r\x1b\[0K", line) is not None


def buildkite(line: str) -> bool:
    """Return whether the line starts a group."""
    return re.match(r"(---|\+\+\+|~~~|\^\^\^)", line) is not None


def airflow(line: str) -> bool:
    """Return whether the line starts or ends a group."""
    return re.search(r"::(end)?group::", line) is not None


def travis(line: str) -> bool:
    """Return whether the line folds the log of Travis CI, which is detected by the variable CI."""
    return re.search(r"travis_\w+:[^\r]*\r", line) is not None


def plain(_: str) -> bool:
    """Return False, because the system has no commands in its log."""
    return False


READERS: dict[str, Reader] = {
    "GitHub Actions": github,
    "GitLab CI": gitlab,
    "CircleCI": plain,
    "Buildkite": buildkite,
    "Azure Pipelines": azure,
    "Bitbucket Pipelines": plain,
    "TeamCity": teamcity,
    "Jenkins": plain,
    "Airflow": airflow,
    "CI": travis,
}
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_OWN_ANNOTATION = re.compile(r"::(error|warning) (file=[^:,]+,)?title=datapilot::")


def find_commands(text: str, *, on_github: bool) -> list[str]:
    """Return the lines of an output that a system or terminal would obey or that are forged.

    on_github: whether the program may write annotations.
    """
    lines = []
    for line in text.split("\n"):
        without_own = line
        if on_github:
            without_own = _OWN_ANNOTATION.sub("", line, count=1)
        is_obeyed = any(reader(without_own) for reader in READERS.values())
        if is_obeyed or _CONTROLS.search(line) or line.startswith(_FORGED):
            lines.append(line)
    return lines
