"""Output of a command: results on stdout, everything else on stderr, no secret on either.

All text passes through this module, which uses `ci_log` so that no CI system interprets a part of
it as a command. The Output is stored in the `meta` of the Click context, so that other programs can
mount a command.
"""

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
from typing import TYPE_CHECKING, NoReturn, TextIO

import click

from datapilot_defer import ci, ci_log
from datapilot_defer.config import SELF_HOSTED_TOKEN
from datapilot_defer.console import NoProgress
from datapilot_defer.errors import DatapilotError, UsageError
from datapilot_defer.formatting import map_strings, replace_unprintable

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from datapilot_defer.console import Progress

_MIN_SECRET_LENGTH = 8  # hiding "x" everywhere would hide the message
_MAX_ANNOTATION_LENGTH = 4096  # GitHub shows no more
_META_KEY = "datapilot_defer.report"
# Query parameters of a signed URL, which grant access to every reader.
_SIGNED_QUERY = re.compile(
    r"([?&][\w.-]*(?:signature|sig|credential|token|secret|key)[\w.-]*=)[^&\s\"'<>]+", re.IGNORECASE
)
# Up to the last @, because a password may contain one.
_USER_INFO = re.compile(r"://[^/\s\"'<>]+@")
_COLORS = {"warning": "yellow", "error": "red"}


@dataclass
class Output:
    """Messages, prompts, progress and the result of one command. Implements `console.Console`.

    may_ask: whether prompts are permitted. shows_tokens: whether to print tokens of self-hosted
    instances, for a command that creates one and prints it once.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    log_format: str = "text"
    ci_run: ci.CiRun | None = None
    may_ask: bool = True
    shows_tokens: bool = False
    _secrets: list[str] = field(default_factory=list, repr=False)

    @property
    def interactive(self) -> bool:
        """Return whether the user can be prompted.

        That requires `may_ask` and a terminal, outside CI and without --json.
        """
        if not self.may_ask or self.ci_run is not None or self.json:
            return False
        return sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def attended(self) -> bool:
        """Return whether a user reads the messages as they appear: on a terminal, outside CI."""
        return self.ci_run is None and sys.stderr.isatty()

    @property
    def _on_github(self) -> bool:
        return self.ci_run is not None and self.ci_run.system is ci.GITHUB_ACTIONS

    def hide_secret(self, secret: str) -> None:
        """Print `***` instead of this text from now on, unless it is too short to be a secret."""
        if len(secret) < _MIN_SECRET_LENGTH:
            return
        self._secrets.append(secret)

    def note(self, text: str) -> None:
        """Print a message that -q hides."""
        if not self.quiet:
            self._write_line("info", text)

    def detail(self, text: str) -> None:
        """Print a message that only -v shows."""
        if self.verbose:
            self._write_line("debug", text)

    def warn(self, text: str) -> None:
        """Print a warning. It is never hidden."""
        self._write_line("warning", f"Warning: {text}", annotated=text)

    def error(self, text: str) -> None:
        """Print why the command failed. It is never hidden."""
        self._write_line("error", f"Error: {text}", annotated=text)

    def print_result(self, data: Mapping[str, object], text: str) -> None:
        """Print the result: the text, or with --json the object as the last line. Call it once."""
        with lossy_stderr():
            sys.stderr.flush()
        result = self.sanitize(text)
        if self.json:
            result = self._format_json(data, sys.stdout)
        try:
            if result:
                click.echo(result)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has read enough: Click ends the command silently
            raise
        except OSError as error:
            discard_stdout()
            raise UsageError(
                f"cannot write the result to standard output: {error.strerror}"
            ) from None

    def prints_as_is(self, text: str) -> bool:
        """Return whether a text would be printed unchanged, which a script requires."""
        return self.sanitize(text) == text

    def print_error(self, error: DatapilotError) -> None:
        """Print an error; with --json also as the result object."""
        message = str(error)
        self.error(message)
        self.summarize("failed", message)
        if not self.json:
            return
        result: dict[str, object] = {
            "ok": False,
            "exit_code": error.exit_code,
            "error": {**error.details, "kind": error.kind, "message": message},
        }
        with suppress(UsageError):  # stdout is not writable; stderr has the message
            self.print_result(result, "")

    def annotate_error(self, text: str, file: str | None = None) -> None:
        """Show an error, which the result also reports, on the page of a GitHub job.

        Does nothing elsewhere. file: the file that it is about, relative to the repository.
        """
        self._annotate("error", text, file)

    def annotate_warning(self, text: str) -> None:
        """Show a warning from the result on the page of a GitHub job; do nothing elsewhere."""
        self._annotate("warning", text)

    def _annotate(self, level: str, text: str, file: str | None = None) -> None:
        if self._on_github and self.log_format == "text":
            shown = self.sanitize(text)[:_MAX_ANNOTATION_LENGTH]
            with lossy_stderr():
                click.echo(ci_log.format_annotation(level, shown, file), err=True)

    def summarize(self, outcome: str, text: str) -> None:
        """Add a command's outcome with a text to a GitHub job's summary; do nothing elsewhere."""
        if not self._on_github:
            return
        context = click.get_current_context(silent=True)
        command = "datapilot"
        if context is not None:
            command = ci_log.escape_markdown(context.command_path)
        block = ci_log.format_code_block(self._hide_secrets(text))
        ci_log.append_summary(os.environ, f"### {command}: {outcome}\n\n{block}")

    def exit(self, code: int) -> NoReturn:
        """End the command with this exit code."""
        click.get_current_context().exit(code)

    def ask(self, label: str, *, hidden: bool = False) -> str:
        """Ask the user for a value on the terminal. hidden: do not show what is typed."""
        return str(click.prompt(label.capitalize(), hide_input=hidden, err=True))

    @contextmanager
    def progress(self, label: str, size_bytes: int) -> Iterator[Progress]:
        """Show a progress bar for `size_bytes` bytes.

        It is shown only on a terminal, outside CI, and without --quiet, --json and JSON logs.
        """
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
        if self.log_format == "json":
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            entry = {"time": now, "level": level, "message": text}
            line = self._format_json(entry, sys.stderr)
        elif self._on_github and annotated is not None:
            line = ci_log.format_annotation(level, self.sanitize(annotated))
        else:
            # Further lines are indented, so that no text from outside looks like a separate
            # message.
            line = self.sanitize(text).replace("\n", "\n  ")
            if level in _COLORS and not os.environ.get("NO_COLOR"):
                line = click.style(line, fg=_COLORS[level])
        with lossy_stderr():
            click.echo(line, err=True)

    def _format_json(self, data: Mapping[str, object], stream: TextIO) -> str:
        """Return an object as one line of JSON, without secrets, that the stream can encode."""
        plain = json.loads(json.dumps(data, default=str))
        # Hide secrets before encoding: a match in JSON text could end within an escape sequence.
        shown = map_strings(plain, self._hide_secrets)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        # The stream would replace a character that it cannot encode with text that is not JSON.
        ensure_ascii = not encoding.lower().startswith("utf")
        return ci_log.escape_json(json.dumps(shown, ensure_ascii=ensure_ascii))

    def sanitize(self, text: str) -> str:
        """Return the text with secrets masked, and control characters and CI commands disarmed."""
        return ci_log.neutralize(self._hide_secrets(text))

    def _hide_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if not self.shows_tokens:
            text = hide_tokens(text)
        without_signatures = _SIGNED_QUERY.sub(r"\1***", text)
        return _USER_INFO.sub("://***@", without_signatures)


@contextmanager
def lossy_stderr() -> Iterator[None]:
    """Drop messages that cannot be written, because a full disk must not stop an upload."""
    try:
        yield
    except OSError:
        # Python would fail again when it closes the broken stream at exit.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


@dataclass(frozen=True)
class _ProgressBar:
    """A progress bar on the terminal."""

    bar: ProgressBar[int]

    def advance(self, size_bytes: int) -> None:
        """Advance the bar by a number of bytes."""
        self.bar.update(size_bytes)


def hide_tokens(text: str) -> str:
    """Mask the tokens of self-hosted instances in a text, such as one given as a name."""
    return SELF_HOSTED_TOKEN.sub("dpd_***", text)


def mask_token(token: str) -> str:
    """Return a text that shows only the length of a token."""
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
    """Return the output of the running command, or a default one."""
    output = click.get_current_context().meta.get(_META_KEY)
    if isinstance(output, Output):
        return output
    return Output()


def set_output(ctx: click.Context, output: Output) -> None:
    """Make this the output of the command that `ctx` belongs to."""
    ctx.meta[_META_KEY] = output


def discard_stdout() -> None:
    """Replace a broken stdout. Python would fail again when closing it at exit."""
    sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
