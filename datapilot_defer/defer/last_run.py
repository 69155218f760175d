"""dbt's record of its last command: run_results.json in the target directory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Artifact, Kind, read_artifact
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer.command_line import DEFERRING_COMMANDS, find_option
from datapilot_defer.errors import UsageError
from datapilot_defer.formatting import to_single_line

_MAX_BYTES = 1_000_000_000
_MAX_PATH_LENGTH = 500


@dataclass(frozen=True)
class LastRun:
    """The command that wrote run_results.json. arguments: its options, by dbt's names for them."""

    invocation_id: str | None
    arguments: Mapping[str, Any]


def read_last_run(file: Path) -> LastRun | None:
    """Return the record in a run_results.json; None if it cannot be read."""
    run_results = read_own_artifact(file, Kind.RUN_RESULTS)
    if run_results is None:
        return None
    try:
        arguments = dbt_json.decode(run_results.sections["args"])
    except (KeyError, dbt_json.NotJsonError):
        return None
    if not isinstance(arguments, dict):
        return None
    return LastRun(run_results.metadata.invocation_id, arguments)


def read_own_artifact(file: Path, kind: Kind) -> Artifact | None:
    """Return an artifact that dbt wrote; None if it is missing, too large or unreadable."""
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            return None
        return read_artifact(file, kind)
    except (OSError, UsageError):
        return None


def check_retry(
    words: Sequence[str], project: DbtProject, *, favor_state: bool | None = None
) -> None:
    """Raise UsageError if `dbt retry`, which repeats the last run with its flags, would not defer.

    This is the case if the last run was not deferred, or if its state directory no longer contains
    a manifest. Also raises UsageError if the last run had a different setting from `favor_state`;
    None accepts both. A missing record, or one of a command that never defers, is accepted.
    """
    target = Path(find_option(words, "--state") or project.target)
    file = project.folder / target / Kind.RUN_RESULTS.file_name
    last_run = read_last_run(file)
    if last_run is None:  # dbt itself reports that there is none
        return
    arguments = last_run.arguments
    deferring_commands = [command[-1] for command in DEFERRING_COMMANDS]
    if arguments.get("which") not in deferring_commands:
        return
    if not arguments.get("defer"):
        raise UsageError(
            f"the last run ({file}) was not deferred, and `dbt retry` would repeat it "
            "without defer. Run the original command with `datapilot dbt defer run`"
        )
    if favor_state not in (None, bool(arguments.get("favor_state"))):
        raise UsageError(
            "`dbt retry` repeats the last run, which had the other setting of "
            "--favor-state. Omit the option, or run the original command with `datapilot "
            "dbt defer run`"
        )
    state = arguments.get("state")
    if not isinstance(state, str):
        return
    # Unlike Path.is_file, os.path.isfile never raises an error. The path may be any text.
    if not os.path.isfile(project.folder / state / Kind.MANIFEST.file_name):  # noqa: PTH113
        raise UsageError(
            f"the last run deferred to {to_single_line(state, _MAX_PATH_LENGTH)}, which "
            "no longer contains a manifest.json, and `dbt retry` needs it. Run the "
            "original command with `datapilot dbt defer run`"
        )
