"""A console that records messages and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from datapilot_defer.console import NoProgress, Progress


class RecordingConsole:
    """A console that prints nothing.

    answers: the input of the user for each label; None for a console without a user.
    """

    def __init__(self, answers: Mapping[str, str] | None = None) -> None:
        self.interactive = answers is not None
        self.attended = self.interactive
        self.messages: list[tuple[str, str]] = []
        self.prompts: list[str] = []
        self.secrets: list[str] = []
        self._answers = answers or {}

    def detail(self, text: str) -> None:
        self.messages.append(("detail", text))

    def note(self, text: str) -> None:
        self.messages.append(("note", text))

    def warn(self, text: str) -> None:
        self.messages.append(("warn", text))

    def ask(self, label: str, *, hidden: bool = False) -> str:
        self.prompts.append(label)
        return self._answers[label]

    def hide_secret(self, secret: str) -> None:
        self.secrets.append(secret)

    @contextmanager
    def progress(self, label: str, size_bytes: int) -> Iterator[Progress]:
        yield NoProgress()
