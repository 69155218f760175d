"""dbt's own environment variables for deferring, in the words of each shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from datapilot_defer.defer.command_line import DEFER_VARIABLES
from datapilot_defer.errors import UsageError


def defer_variables(state: Path, *, favor_state: bool) -> dict[str, str]:
    """The variables that make any dbt from 1.5 on defer to this state directory."""
    return {
        "DBT_DEFER": "true",
        "DBT_STATE": str(state),
        "DBT_FAVOR_STATE": str(favor_state).lower(),
    }


def conflicting_variables(environ: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    """The variables that are set and would decide otherwise; without values, all that are set."""
    return [name for name in DEFER_VARIABLES if name in environ and name not in values]


def detect_shell(environ: Mapping[str, str]) -> str:
    """The shell that the user most likely has."""
    name = Path(environ.get("SHELL", "")).name
    if name in ("bash", "zsh", "fish"):
        return name
    return "powershell" if os.name == "nt" else "bash"


def format_script(shell: str, values: Mapping[str, str], removed: Sequence[str]) -> str:
    """The lines that set and take away these variables. Raises UsageError for a value that can't be written so."""
    if any("\n" in value or "\r" in value for value in values.values()):
        raise UsageError(
            "the state directory's name has a line break, which no shell's file takes; use another folder"
        )
    forms: dict[str, tuple[str, str, Callable[[str], str]]] = {
        "bash": ("export {}={}", "unset {}", shlex.quote),
        "zsh": ("export {}={}", "unset {}", shlex.quote),
        "fish": ("set -gx {} {}", "set -e {}", _quote_fish),
        "powershell": (
            "$env:{} = {}",
            "Remove-Item Env:{} -ErrorAction SilentlyContinue",
            _quote_powershell,
        ),
        # An empty variable counts as unset for dbt; neither file can take one away.
        "github": ("{}={}", "{}=", str),
        "dotenv": ("{}={}", "{}=", _quote_dotenv),
    }
    setting, removing, quote = forms[shell]
    lines = [setting.format(name, quote(value)) for name, value in values.items()]
    return "\n".join([*lines, *(removing.format(name) for name in removed)])


def _quote_fish(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quote_powershell(value: str) -> str:
    escaped = value.replace("'", "''")
    return f"'{escaped}'"


def _quote_dotenv(value: str) -> str:
    """In single quotes nothing is replaced; python-dotenv and docker differ in everything else."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
