"""dbt as a child process that shares our standard streams and receives our signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from datapilot_defer.errors import UsageError

GRACE_S = (
    45.0  # Airflow sends SIGKILL 60 s after SIGTERM. dbt needs the time to cancel its queries.
)
_FORWARDED_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


def run_dbt(
    words: Sequence[str], environment: Mapping[str, str], *, grace_s: float = GRACE_S
) -> int:
    """Run dbt and return its exit code, or 128 + n if it or this process received signal n.

    Signals that dbt does not receive directly are forwarded as SIGINT, or as Ctrl+Break on Windows,
    so that dbt cancels its queries. dbt is killed if it is still running `grace_s` seconds later.
    Raises UsageError if dbt cannot be started.
    """
    # A terminal sends Ctrl-C to both processes. Elsewhere dbt gets its own process group: a
    # SIGTERM to our complete group, which Airflow sends, would end dbt before it can cancel.
    own_group = not _is_terminal_foreground()
    with _SignalForwarder(own_group, grace_s) as forwarder:
        child = _start(words, environment, own_group=own_group)
        forwarder.child = child
        if forwarder.received_signal is not None:  # while dbt was starting
            child.terminate()
        exit_code = child.wait()
    if forwarder.received_signal is not None:
        return 128 + forwarder.received_signal
    if exit_code < 0:  # ended by a signal
        return 128 - exit_code
    return exit_code


def _start(
    words: Sequence[str], environment: Mapping[str, str], *, own_group: bool
) -> subprocess.Popen[bytes]:
    creation_flags = 0
    if own_group:
        creation_flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    try:
        return subprocess.Popen(
            words,
            env=dict(environment),
            start_new_session=own_group and os.name != "nt",
            creationflags=creation_flags,
        )
    except OSError as error:
        raise UsageError(f"cannot start {words[0]}: {error.strerror}") from None


class _SignalForwarder:
    """Handlers that forward signals to dbt while it runs."""

    def __init__(self, own_process_group: bool, grace_s: float) -> None:
        self._own_process_group = own_process_group
        self._grace_s = grace_s
        self._previous_handlers: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.received_signal: int | None = None

    def __enter__(self) -> _SignalForwarder:
        for number in _available_signals():
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous_handlers[number] = signal.signal(number, self._forward)
            elif self._own_process_group and number == signal.SIGINT:
                # Ignore SIGINT with a handler. dbt would inherit SIG_IGN, and could then not be
                # interrupted. Other ignored signals (nohup, background jobs) stay ignored.
                self._previous_handlers[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        is_first = self.received_signal is None
        self.received_signal = number
        if self.child is None or self.child.poll() is not None:
            return
        # Ctrl+C and Ctrl+Break in a Windows console reach dbt directly, as Ctrl-C in a terminal
        # does.
        if self._own_process_group or (os.name != "nt" and number != signal.SIGINT):
            self.child.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))
        if is_first:
            self._timer = threading.Timer(self._grace_s, self.child.kill)
            self._timer.daemon = True
            self._timer.start()


def _available_signals() -> Iterator[int]:
    for name in _FORWARDED_SIGNALS:
        if hasattr(signal, name):
            yield getattr(signal, name)


def _is_terminal_foreground() -> bool:
    """Return whether a terminal sends signals, such as Ctrl-C, to this process."""
    if sys.platform == "win32":
        return sys.stdin.isatty()
    for descriptor in (0, 1, 2):
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:
            continue
    return False
