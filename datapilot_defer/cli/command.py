"""Classes of all commands and groups: common options, exit codes, messages and signals.

Another program may mount a command without our root group, so nothing essential lives there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

import click

from datapilot_defer import ci, ci_log
from datapilot_defer.cli.help import suggest_commands, write_options
from datapilot_defer.cli.output import Output, hide_tokens, set_output
from datapilot_defer.errors import DatapilotError, Interrupted, UsageError
from datapilot_defer.formatting import as_one_line

# Modes to open devnull with, for a stream that the parent process has closed.
_STREAM_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}

_HELP_OPTIONS = ["-h", "--help"]


class _Terminated(BaseException):
    """SIGTERM was received. Not an Exception, so that no library catches it."""


class Command(click.Command):
    """A command whose errors become a message and an exit code, also as JSON.

    Adds the options --json, -q, -v and --log-format.
    own_signals: the command handles SIGTERM and SIGINT itself (a server, a wrapper around dbt).
    """

    def __init__(self, *args: Any, own_signals: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own_signals = own_signals
        self.params.extend(_common_options())
        self.context_settings.setdefault("help_option_names", _HELP_OPTIONS)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups."""
        write_options(self, ctx, formatter)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments. Report a usage error as JSON and in CI too."""
        wants_json = _wants_json(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _report(error, wants_json=wants_json)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Print expected errors as messages and exit with their exit codes."""
        output = _create_output(ctx)
        set_output(ctx, output)
        failure: DatapilotError
        try:
            _check_current_directory()
            with _raise_on_sigterm(enabled=not self.own_signals):
                return super().invoke(ctx)
        except click.UsageError as error:
            failure = UsageError(error.format_message())
        except DatapilotError as error:
            failure = error
        except MemoryError:
            failure = UsageError("not enough memory for the files and responses")
        except _Terminated:
            failure = Interrupted(signal.SIGTERM)
        except (KeyboardInterrupt, click.Abort):
            failure = Interrupted(signal.SIGINT)
        output.print_error(failure)
        raise click.exceptions.Exit(failure.exit_code)


class Group(click.Group):
    """A group that reports usage errors as a command does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings.setdefault("help_option_names", _HELP_OPTIONS)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments."""
        wants_json = _wants_json(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _report(error, wants_json=wants_json)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first argument. Suggest others if there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            _report(_with_suggestions(error, ctx, args[0]), wants_json=_wants_json(args))


def _with_suggestions(error: click.UsageError, ctx: click.Context, name: str) -> click.UsageError:
    """Return an error that names similar commands, if there are any."""
    suggestions = suggest_commands(ctx, name)
    if not suggestions:
        return error
    commands = " or ".join(f"`{command}`" for command in suggestions)
    return click.UsageError(f"No such command {name!r}. Did you mean {commands}?", ctx)


class _Switch(click.types.BoolParamType):
    """A switch that is on for any value except those that mean off, and never an error."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """Return whether the switch is on."""
        try:
            return bool(super().convert(value, param, ctx))
        except click.BadParameter:
            return True


def _create_output(ctx: click.Context) -> Output:
    """Create the output of a command from the options that `Command` adds."""
    return Output(
        json=ctx.params.pop("output_json"),
        quiet=ctx.params.pop("output_quiet"),
        verbose=ctx.params.pop("output_verbose"),
        log_format=ctx.params.pop("output_log_format"),
        ci_run=ci.detect_ci(os.environ),
    )


def _check_current_directory() -> None:
    """Raise UsageError if the current directory was deleted: relative paths would fail."""
    try:
        os.getcwd()  # noqa: PTH109 - only whether it works
    except FileNotFoundError:
        raise UsageError("the current directory no longer exists. Change to another one") from None


def _wants_json(args: Sequence[str]) -> bool:
    options = takewhile(lambda argument: argument != "--", args)
    return "--json" in options


def _report(error: click.UsageError, *, wants_json: bool) -> NoReturn:
    """Exit with a usage error of Click, also as JSON and as an annotation."""
    if error.ctx is not None and error.format_message() == error.ctx.get_help():
        raise error  # a group without a command
    shown = _printable_error(error)
    output = Output(json=wants_json, ci_run=ci.detect_ci(os.environ))
    context = error.ctx or click.Context(click.Command("datapilot"))
    with context.scope(cleanup=False):
        output.annotate_error(shown.format_message())
        output.summarize("failed", shown.format_message())
    if not wants_json:
        raise shown from None
    shown.show()
    output.print_result(_usage_error_json(shown), "")
    raise SystemExit(shown.exit_code) from None


def _printable_error(error: click.UsageError) -> click.UsageError:
    """Return the error without tokens, commands of CI systems and line breaks."""
    message = error.format_message()
    shown = as_one_line(ci_log.neutralize(hide_tokens(message)))
    if shown == message:
        return error
    return click.UsageError(shown, error.ctx)


def _usage_error_json(error: click.UsageError) -> dict[str, object]:
    details = {"kind": "usage_error", "message": error.format_message()}
    return {"ok": False, "exit_code": error.exit_code, "error": details}


def _common_options() -> list[click.Option]:
    return [
        click.Option(
            ["--json", "output_json"],
            is_flag=True,
            help="Print the result as a JSON object in the last line.",
        ),
        click.Option(
            ["-q", "--quiet", "output_quiet"],
            is_flag=True,
            help="Print only warnings, errors and the result.",
        ),
        click.Option(
            ["-v", "--verbose", "--debug", "output_verbose"],
            is_flag=True,
            type=_Switch(),
            envvar="DATAPILOT_DEBUG",
            show_envvar=True,
            help="Print every step.",
        ),
        click.Option(
            ["--log-format", "output_log_format"],
            type=click.Choice(["text", "json"]),
            default="text",
            help="Format of messages on stderr.",
        ),
    ]


@contextmanager
def _raise_on_sigterm(*, enabled: bool) -> Iterator[None]:
    """Turn SIGTERM into an exception, so that unfinished work is cleaned up."""
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: object) -> None:
        raise _Terminated

    previous_handler = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def configure_streams() -> None:
    """Make every character printable, also in a Windows console and in other encodings.

    A stream that the parent process has closed is replaced by devnull.
    """
    for name, mode in _STREAM_MODES.items():
        if getattr(sys, name) is None:
            empty_stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, empty_stream)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
