"""Protocols for messages, prompts and progress of a command.

`cli.output.Output` implements them. Lower layers use these protocols instead of importing `cli`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Log(Protocol):
    """Messages of one command."""

    def detail(self, text: str) -> None:
        """Print a message that only `--verbose` shows."""

    def note(self, text: str) -> None:
        """Print a message that `--quiet` hides."""

    def warn(self, text: str) -> None:
        """Print a warning. It is never hidden."""


class Progress(Protocol):
    """Progress of one transfer."""

    def advance(self, size_bytes: int) -> None:
        """Advance by a number of bytes. A negative number moves back."""


class NoProgress:
    """Progress that is not shown."""

    def advance(self, size_bytes: int) -> None:
        """Do nothing."""


class Console(Log, Protocol):
    """Messages, prompts, secrets and progress of one command."""

    @property
    def interactive(self) -> bool:
        """Return whether the user can be prompted: on a terminal, outside CI."""

    @property
    def attended(self) -> bool:
        """Return whether a user reads the messages as they appear: on a terminal, outside CI."""

    def ask(self, label: str, *, hidden: bool = False) -> str:
        """Ask the user for a value. Call this only when `interactive` is true.

        hidden: do not show what is typed.
        """

    def hide_secret(self, secret: str) -> None:
        """Print `***` instead of this text from now on."""

    def progress(self, label: str, size_bytes: int) -> AbstractContextManager[Progress]:
        """Show the progress of one transfer of `size_bytes` bytes."""
