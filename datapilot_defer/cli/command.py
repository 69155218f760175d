"""Base classes of all commands and groups: common options, exit codes, messages and signals.

Another program may mount a command without our root group, so the root group contains nothing
essential.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise, takewhile
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from datapilot_defer import ci
from datapilot_defer.cli.help import Option, suggest_commands, write_options
from datapilot_defer.cli.output import Output, discard_stdout, lossy_stderr, set_output
from datapilot_defer.config import CREDENTIAL_VARIABLES
from datapilot_defer.errors import DatapilotError, Interrupted, UsageError
from datapilot_defer.formatting import as_one_line

# Modes to open devnull with, for a stream that the parent process has closed.
_STREAM_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}

_HELP_OPTIONS = ["-h", "--help"]


class _Terminated(BaseException):
    """SIGTERM was received. This is not an Exception, so that no library catches it."""


class Command(click.Command):
    """A command that reports an error as a message, as an exit code and, with --json, as JSON.

    Adds the options --json, -q, -v and --log-format. own_signals: whether the command handles
    SIGTERM and SIGINT itself, as a server or a wrapper around dbt does.
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
        """Parse the arguments. Report a usage error also as JSON and as a CI annotation."""
        output = _create_early_output(args)
        try:
            with _exit_if_help_is_unwritable():
                return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _report(error, output)

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
            failure = UsageError("the command ran out of memory")
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
        """Parse the arguments. Report a usage error as a command does."""
        output = _create_early_output(args)
        try:
            with _exit_if_help_is_unwritable():
                return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _report(error, output)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names. Suggest similar ones if there is none."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            _report(_with_suggestions(error, ctx, args[0]), _create_early_output(args))


def _with_suggestions(error: click.UsageError, ctx: click.Context, name: str) -> click.UsageError:
    """Return an error that names similar commands, if there are any."""
    suggestions = suggest_commands(ctx, name)
    if not suggestions:
        return error
    commands = " or ".join(f"`{command}`" for command in suggestions)
    return click.UsageError(f"No such command {name!r}. Did you mean {commands}?", ctx)


class _Switch(click.types.BoolParamType):
    """A boolean type that treats an unknown value as true.

    An invalid value of an environment variable is therefore not an error.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """Return whether the switch is on."""
        try:
            return bool(super().convert(value, param, ctx))
        except click.BadParameter:
            return True


def _create_output(ctx: click.Context) -> Output:
    """Create the output of a command from the options that `Command` adds."""
    output = Output(
        json=ctx.params.pop("output_json"),
        quiet=ctx.params.pop("output_quiet"),
        verbose=ctx.params.pop("output_verbose"),
        log_format=ctx.params.pop("output_log_format"),
        ci_run=ci.detect_ci(os.environ),
    )
    _hide_tokens_of_environment(output)
    return output


def _create_early_output(args: Sequence[str]) -> Output:
    """Create the output for an error in the arguments, which are not parsed yet."""
    options = list(takewhile(lambda argument: argument != "--", args))
    log_format = "text"
    if "--log-format=json" in options or ("--log-format", "json") in pairwise(options):
        log_format = "json"
    output = Output(
        json="--json" in options, log_format=log_format, ci_run=ci.detect_ci(os.environ)
    )
    _hide_tokens_of_environment(output)
    return output


def _hide_tokens_of_environment(output: Output) -> None:
    """Hide tokens in environment variables, because a message may repeat one passed by mistake."""
    for name in CREDENTIAL_VARIABLES["token"]:
        output.hide_secret(os.environ.get(name, ""))


def _check_current_directory() -> None:
    """Raise UsageError if the current directory was deleted: relative paths would fail."""
    try:
        os.getcwd()  # noqa: PTH109 - only whether it works
    except FileNotFoundError:
        raise UsageError("the current directory no longer exists. Change to another one") from None


@contextmanager
def _exit_if_help_is_unwritable() -> Iterator[None]:
    """Exit with a message if --help or --version cannot be written, such as to a full disk."""
    try:
        yield
    except BrokenPipeError:  # the reader has read enough: Click ends the program silently
        raise
    except OSError as error:
        discard_stdout()
        with lossy_stderr():
            click.echo(f"Error: cannot write to standard output: {error.strerror}", err=True)
        raise SystemExit(UsageError.exit_code) from None


class _PrintableError(click.UsageError):
    """A usage error whose message is one line, without tokens or commands of CI systems."""

    def __init__(self, error: click.UsageError, output: Output) -> None:
        message = error.format_message().replace("\n\t", " ")  # Click lists choices in lines
        super().__init__(as_one_line(output.sanitize(message)), error.ctx)
        self._output = output

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message with the usage of the command, or as a line of JSON."""
        if self._output.log_format == "json":
            self._output.error(self.message)
            return
        with lossy_stderr():
            super().show(file)


def _report(error: click.UsageError, output: Output) -> NoReturn:
    """Exit with a usage error of Click. Report it also as JSON and as an annotation."""
    if error.ctx is not None and error.format_message() == error.ctx.get_help():
        raise error  # the help of a group that was called without a command
    shown = _PrintableError(error, output)
    context = error.ctx or click.Context(click.Command("datapilot"))
    with context.scope(cleanup=False):
        output.annotate_error(shown.message)
        output.summarize("failed", shown.message)
    if not output.json:
        raise shown from None
    shown.show()
    with suppress(UsageError):  # stdout is not writable; stderr has the message
        output.print_result(_usage_error_json(shown), "")
    raise SystemExit(shown.exit_code) from None


def _usage_error_json(error: click.UsageError) -> dict[str, object]:
    details = {"kind": "usage_error", "message": error.message}
    return {"ok": False, "exit_code": error.exit_code, "error": details}


def _common_options() -> list[click.Option]:
    return [
        click.Option(
            ["--json", "output_json"],
            is_flag=True,
            help="Print the result as a JSON object on the last line of stdout.",
        ),
        click.Option(
            ["-q", "--quiet", "output_quiet"],
            is_flag=True,
            help="Print only warnings, errors and the result.",
        ),
        Option(
            ["-v", "--verbose", "output_verbose"],
            hidden_names=["--debug"],
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
    """Escape characters that the encoding of stdout or stderr lacks, instead of failing.

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
