"""Running dbt as a child that gets what we get: the same standard streams, the signals, and time to finish."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from datapilot_defer.errors import UsageError

GRACE_S = 45.0  # Airflow kills 60 s after its SIGTERM; dbt needs the time to cancel its queries


def run_dbt(
    words: Sequence[str], environment: Mapping[str, str], *, grace_s: float = GRACE_S
) -> int:
    """Run dbt and return its exit code; 128 + n when we were told to end by signal n.

    SIGTERM becomes SIGINT for dbt, on which it cancels its queries; it is killed when it has not ended `grace_s`
    later. Raises UsageError when dbt can't be started.
    """
    # On a terminal the terminal itself sends Ctrl-C to both of us. Elsewhere dbt gets a group of its own, for a
    # SIGTERM to our whole group, as Airflow sends it, would end dbt before it can cancel anything.
    alone = not _is_terminal_foreground()
    with _SignalForwarder(alone, grace_s) as relay:
        try:
            relay.child = subprocess.Popen(
                words,
                env=dict(environment),
                start_new_session=alone and os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if alone else 0,
            )
        except OSError as error:
            raise UsageError(f"can't start {words[0]}: {error.strerror}") from None
        if relay.received_signal is not None:  # while it was starting
            relay.child.terminate()
        code = relay.child.wait()
    if relay.received_signal is not None:
        return 128 + relay.received_signal
    return code if code >= 0 else 128 - code


class _SignalForwarder:
    """Passes signals on while dbt runs, and puts the old handlers back."""

    def __init__(self, alone: bool, grace_s: float) -> None:
        self._own_process_group, self._grace_s = alone, grace_s
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.received_signal: int | None = None

    def __enter__(self) -> _SignalForwarder:
        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            if (
                signal.getsignal(number) is not signal.SIG_IGN
            ):  # nohup and background jobs stay deaf to it
                self._before[number] = signal.signal(number, self._forward)
            elif self._own_process_group and number == signal.SIGINT:
                # Deaf too, but dbt inherits no handler as it would SIG_IGN: SIGINT is how it is told to end.
                self._before[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        first, self.received_signal = self.received_signal is None, number
        if self.child is None or self.child.poll() is not None:
            return
        # A console's Ctrl+C and Ctrl+Break reach dbt without us, as a terminal's Ctrl-C does.
        if self._own_process_group or (os.name != "nt" and number != signal.SIGINT):
            self.child.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))
        if first:
            self._timer = threading.Timer(self._grace_s, self.child.kill)
            self._timer.daemon = True
            self._timer.start()


def _is_terminal_foreground() -> bool:
    """Whether somebody's terminal delivers its signals to us: we are in its foreground."""
    if sys.platform == "win32":
        return sys.stdin.isatty()
    for descriptor in (0, 1, 2):
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:
            continue
    return False
