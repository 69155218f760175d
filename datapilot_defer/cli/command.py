"""The class of every command: common options, exit codes, messages and signals, under whichever Click group.

A foreign host that mounts a command skips our root group, so nothing that matters may live there.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from datapilot_defer import ci
from datapilot_defer.cli.output import Output, set_output
from datapilot_defer.errors import DatapilotError, Interrupted, UsageError


class _Terminated(BaseException):
    """SIGTERM arrived. Not an Exception, so that no library swallows it on the way out."""


class Command(click.Command):
    """A command whose errors become a message and an exit code, also as JSON. Adds --json, -q, -v and --log-format.

    own_signals: the command ends itself on SIGTERM and SIGINT (a server, a wrapper around dbt).
    """

    def __init__(self, *args: Any, own_signals: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.own_signals = own_signals
        self.params.extend(_common_options())

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments. A usage error is also a JSON object when that was asked for."""
        wants_json = _wants_json(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if not wants_json:
                raise
            error.show()
            Output(json=True, quiet=True, log_format="json").print_result(
                _usage_error_json(error), ""
            )
            raise SystemExit(error.exit_code) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what a user, a file or a network can cause ends in a message and an exit code."""
        report = Output(
            **{
                name: ctx.params.pop(f"report_{name}")
                for name in ("json", "quiet", "verbose", "log_format")
            }
        )
        report.ci_run = ci.detect_ci(os.environ)
        set_output(ctx, report)
        try:
            _check_current_directory()
            with _raise_on_sigterm(enabled=not self.own_signals):
                return super().invoke(ctx)
        except click.UsageError as error:
            report.print_error(UsageError(error.format_message()))
            ctx.exit(error.exit_code)
        except DatapilotError as error:
            report.print_error(error)
            ctx.exit(error.exit_code)
        except (_Terminated, KeyboardInterrupt, click.Abort) as signalled:
            number = signal.SIGTERM if isinstance(signalled, _Terminated) else signal.SIGINT
            interrupted = Interrupted(number)
            report.print_error(interrupted)
            ctx.exit(interrupted.exit_code)


def _check_current_directory() -> None:
    """Say now what would otherwise fail wherever a relative path is looked at."""
    try:
        os.getcwd()  # noqa: PTH109 - only whether it works
    except FileNotFoundError:
        raise UsageError(
            "the working folder does not exist any more; change into one that does"
        ) from None


def _wants_json(args: Sequence[str]) -> bool:
    options = args[: args.index("--")] if "--" in args else args
    return "--json" in options


def _usage_error_json(error: click.UsageError) -> dict[str, object]:
    about = {"kind": "usage_error", "message": error.format_message()}
    return {"ok": False, "exit_code": error.exit_code, "error": about}


def _common_options() -> list[click.Option]:
    return [
        click.Option(
            ["--json", "report_json"],
            is_flag=True,
            help="Print the result as one JSON object, as last line.",
        ),
        click.Option(
            ["-q", "--quiet", "report_quiet"],
            is_flag=True,
            help="Say only warnings, errors and the result.",
        ),
        click.Option(
            ["-v", "--verbose", "--debug", "report_verbose"], is_flag=True, help="Say every step."
        ),
        click.Option(
            ["--log-format", "report_log_format"],
            type=click.Choice(["text", "json"]),
            default="text",
            help="How lines on stderr are written.",
        ),
    ]


@contextmanager
def _raise_on_sigterm(*, enabled: bool) -> Iterator[None]:
    """Turn SIGTERM into an exception, so that what is half done is undone on the way out."""
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(_number: int, _frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def configure_streams() -> None:
    """Make any character printable: a Windows console or a log with an old encoding must not end a command.

    A stream that is closed, as some schedulers start programs, becomes one that is empty.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(
                sys,
                name,
                Path(os.devnull).open("r" if name == "stdin" else "w", encoding="utf-8"),  # noqa: SIM115
            )
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
