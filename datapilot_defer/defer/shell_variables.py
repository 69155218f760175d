"""Environment variables that make dbt defer, in the syntax of each shell."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from datapilot_defer.defer.command_line import DEFER_VARIABLES
from datapilot_defer.errors import UsageError

_PLAIN = re.compile(r"[\w./-]+", re.ASCII)
# Source: `IsSingleQuote` in CharTraits.cs of PowerShell.
_POWERSHELL_QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")
# dbt 1.x treats an empty variable as unset. dbt 2.x rejects these variables if they are empty.
_SWITCHES = ("_DEFER", "_FAVOR_STATE")


def defer_variables(state: Path, *, favor_state: bool) -> dict[str, str]:
    """Return the variables that make dbt 1.5 and later defer to this state directory."""
    return {
        "DBT_DEFER": "true",
        "DBT_STATE": str(state),
        "DBT_FAVOR_STATE": str(favor_state).lower(),
    }


def conflicting_variables(environ: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """Return the names of variables in `environ` that change deferral and are not in `values`."""
    return [name for name in DEFER_VARIABLES if name in environ and name not in values]


def detect_shell(environ: Mapping[str, str]) -> str:
    """Return the shell that the user most likely uses."""
    name = Path(environ.get("SHELL", "")).name
    if name in ("bash", "zsh", "fish"):
        return name
    return "powershell" if os.name == "nt" else "bash"


def format_script(shell: str, values: Mapping[str, str], removed: Sequence[str]) -> str:
    """Return the lines that set and remove variables.

    Raises UsageError for a value that contains an unprintable character.
    """
    if not all(value.isprintable() for value in values.values()):
        raise UsageError(
            "the name of the state directory contains a line break or another character "
            "that cannot be printed, so a shell cannot read it. Use another directory"
        )
    set_line, unset_line, quote = _SYNTAX[shell]
    lines = [set_line.format(name, quote(value)) for name, value in values.items()]
    lines += [unset_line.format(name, _value_when_unset(name)) for name in removed]
    return "\n".join(lines)


def _quote_posix(value: str) -> str:
    """Quote for bash and zsh. `shlex.quote` does not quote `:=`, which zsh expands."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("'", "'\"'\"'")
    return f"'{escaped}'"


def _value_when_unset(name: str) -> str:
    """Return the value that dbt treats like an unset variable, for files that cannot unset one."""
    if name.endswith(_SWITCHES):
        return "false"
    return ""


def _no_quotes(value: str) -> str:
    return value


def _quote_with_backslashes(value: str) -> str:
    """Quote for fish and dotenv files, in the only syntax that python-dotenv and docker share."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quote_powershell(value: str) -> str:
    """Quote for PowerShell, which treats typographic single quotes like the ASCII one."""
    escaped = _POWERSHELL_QUOTES.sub(r"\g<0>\g<0>", value)
    return f"'{escaped}'"


# The syntax of each shell for setting and removing a variable, and for quoting a value.
_SYNTAX = {
    "bash": ("export {}={}", "unset {}", _quote_posix),
    "zsh": ("export {}={}", "unset {}", _quote_posix),
    "fish": ("set -gx {} {}", "set -e {}", _quote_with_backslashes),
    "powershell": (
        "$env:{} = {}",
        "Remove-Item Env:{} -ErrorAction SilentlyContinue",
        _quote_powershell,
    ),
    # The files of GitHub Actions and dotenv files cannot remove a variable.
    "github": ("{}={}", "{}={}", _no_quotes),
    "dotenv": ("{}={}", "{}={}", _quote_with_backslashes),
}
