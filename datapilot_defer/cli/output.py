"""What a command says: results on stdout, everything else on stderr, no secret on either."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from datapilot_defer import ci
from datapilot_defer.console import NoProgress
from datapilot_defer.errors import DatapilotError, UsageError
from datapilot_defer.formatting import escape_controls, replace_unprintable

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from datapilot_defer.console import Progress

_MIN_SECRET_LENGTH = 8  # hiding "x" everywhere would hide the message
_META_KEY = "datapilot_defer.report"
# What an instance or an object store may have put into a URL that it lets us show: nobody else may use it.
_SIGNED_QUERY = re.compile(
    r"([?&][\w.-]*(?:signature|sig|credential|token|secret|key)[\w.-]*=)[^&\s\"'<>]+", re.IGNORECASE
)
_USER_INFO = re.compile(r"://[^/\s\"'<>@]+@")


@dataclass
class Output:
    """One command's voice. It lives in the Click context's `meta`, so that any host can mount the command."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    log_format: str = "text"
    ci_run: ci.CiRun | None = None
    _secrets: list[str] = field(default_factory=list, repr=False)

    @property
    def interactive(self) -> bool:
        """Whether somebody is there to be asked: a terminal, outside CI."""
        return self.ci_run is None and not self.json and sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def _on_github(self) -> bool:
        return self.ci_run is not None and self.ci_run.system is ci.GITHUB_ACTIONS

    def hide_secret(self, secret: str) -> None:
        """From now on, print `***` wherever this text would appear. What is too short to be a secret stays."""
        if len(secret) < _MIN_SECRET_LENGTH:
            return
        if self._on_github and secret not in self._secrets:
            click.echo(f"::add-mask::{secret}", err=True)
        self._secrets += [secret, json.dumps(secret)[1:-1]]  # also as it stands inside of JSON

    def note(self, text: str) -> None:
        """Say what is going on; -q hides it."""
        if not self.quiet:
            self._write_line("info", text)

    def detail(self, text: str) -> None:
        """Say what only -v wants to know."""
        if self.verbose:
            self._write_line("debug", text)

    def warn(self, text: str) -> None:
        """Say what may surprise later. Never hidden."""
        self._write_line("warning", f"Warning: {text}", annotated=text)

    def error(self, text: str) -> None:
        """Say why the command failed. Never hidden."""
        self._write_line("error", f"Error: {text}", annotated=text)

    def print_result(self, data: Mapping[str, object], text: str) -> None:
        """The command's result: the text, or with --json the object as the very last line. Called once."""
        sys.stderr.flush()
        shown = (
            self._sanitize(json.dumps(data, ensure_ascii=False, default=str))
            if self.json
            else self._sanitize(text)
        )
        try:
            if shown:
                click.echo(shown)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has enough: Click ends the command without a word
            raise
        except OSError as error:
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - or Python fails again at its end
            raise UsageError(
                f"can't write the result to standard output: {error.strerror}"
            ) from None

    def print_error(self, error: DatapilotError, extra: Mapping[str, object] | None = None) -> None:
        """Say an error; with --json also as the result object."""
        self.error(str(error))
        if self.json:
            about = {"kind": error.kind, "message": str(error)}
            with suppress(UsageError):  # nowhere to write it; it was said on stderr
                self.print_result(
                    {"ok": False, "exit_code": error.exit_code, "error": about, **(extra or {})}, ""
                )

    def exit(self, code: int) -> NoReturn:
        """End the command with this exit code."""
        click.get_current_context().exit(code)

    def ask(self, label: str, *, hidden: bool = False) -> str:
        """Ask the user for a value on the terminal. hidden: do not show what is typed."""
        return str(click.prompt(label.capitalize(), hide_input=hidden, err=True))

    @contextmanager
    def progress(self, label: str, size_bytes: int) -> Iterator[Progress]:
        """Show a progress bar for `size_bytes` bytes, on a terminal outside CI."""
        if not self._shows_progress:
            yield NoProgress()
            return
        with click.progressbar(length=size_bytes, label=label, file=sys.stderr, width=0) as bar:
            yield _ProgressBar(bar)

    @property
    def _shows_progress(self) -> bool:
        is_silent = self.quiet or self.json or self.log_format == "json"
        return not is_silent and self.ci_run is None and sys.stderr.isatty()

    def _write_line(self, level: str, text: str, annotated: str | None = None) -> None:
        text = self._sanitize(text)
        if self.log_format == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            click.echo(
                json.dumps({"time": now, "level": level, "message": text}, ensure_ascii=False),
                err=True,
            )
            return
        if self._on_github and annotated is not None:
            click.echo(ci.format_annotation(level, self._sanitize(annotated)), err=True)
            return
        colour = {"warning": "yellow", "error": "red"}.get(level)
        plain = colour is None or bool(os.environ.get("NO_COLOR"))
        click.echo(text if plain else click.style(text, fg=colour), err=True)

    def _sanitize(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        without_signatures = _SIGNED_QUERY.sub(r"\1***", text)
        return escape_controls(_USER_INFO.sub("://***@", without_signatures))


@dataclass(frozen=True)
class _ProgressBar:
    """A progress bar on the terminal."""

    bar: ProgressBar[int]

    def advance(self, size_bytes: int) -> None:
        """Advance the bar by a number of bytes."""
        self.bar.update(size_bytes)


def mask_token(token: str) -> str:
    """Return a token as it may be shown: only its length."""
    return f"*** ({len(token)} characters)"


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return text in columns, each as wide as its widest cell, without control characters."""
    cells = [[replace_unprintable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def current_output() -> Output:
    """The report of the command that is running."""
    report = click.get_current_context().meta.get(_META_KEY)
    return report if isinstance(report, Output) else Output()


def set_output(ctx: click.Context, report: Output) -> None:
    """Make this the report of the command that `ctx` belongs to."""
    ctx.meta[_META_KEY] = report
