"""A program that replaces dbt and records its arguments, directory and variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """#!/bin/sh
env >> {directory}/environment
if [ "$1" = --version ]; then echo 'Core: - installed: {version}'; exit; fi
pwd > {directory}/directory
printf '%s\\n' "$@" > {directory}/words
"""


@dataclass(frozen=True)
class RecordedDbt:
    """A program that replaces dbt."""

    path: Path

    @property
    def words(self) -> list[str]:
        """Return the arguments of the last call."""
        return (self.path.parent / "words").read_text(encoding="utf-8").splitlines()

    @property
    def directory(self) -> Path:
        """Return the current directory of the last call."""
        return Path((self.path.parent / "directory").read_text(encoding="utf-8").strip())

    @property
    def variables(self) -> set[str]:
        """Return the names of the environment variables of all calls, --version included."""
        lines = (self.path.parent / "environment").read_text(encoding="utf-8").splitlines()
        return {line.partition("=")[0] for line in lines}


def recorded_dbt(directory: Path, version: str = "1.11.16") -> RecordedDbt:
    """Create the program in a new directory."""
    directory.mkdir()
    program = directory / "dbt"
    script = _SCRIPT.format(directory=directory, version=version)
    program.write_text(script, encoding="utf-8")
    program.chmod(0o755)
    return RecordedDbt(program)
