"""Time limits for calls that may never return, such as to a server, a resolver or a keyring."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from datapilot_defer.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
# For a command, unless --timeout or DATAPILOT_TIMEOUT sets another one.
DEFAULT_TIMEOUT_S = 600.0
# Waits are short, because Ctrl-C does not end a long one on Windows.
_MAX_WAIT_S = 0.2
_MIN_WAIT_S = 0.001


class Deadline:
    """A point in time by which work must be done.

    is_option: whether the user can set it with --timeout.
    """

    def __init__(self, seconds: float, *, is_option: bool = True) -> None:
        self.seconds = seconds
        self._is_option = is_option
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the remaining seconds; 0 if it has passed."""
        return max(0.0, self._end - time.monotonic())

    def check(self, action: str) -> None:
        """Raise Unavailable if it has passed. action: the work, for the message."""
        if not self.remaining():
            raise self.expired_error(action)

    def expired_error(self, action: str) -> Unavailable:
        """Return the error for work that was not done in time."""
        message = f"{action} did not end within {self.seconds:g} s"
        if self._is_option:
            message += ". Try again, or use a longer --timeout"
        return Unavailable(message)

    def run(self, call: Callable[[], T], action: str) -> T:
        """Return the result of `call`. Raises Unavailable if it does not return in time.

        The call runs in its own thread, because a DNS lookup or a stalled TLS handshake cannot be
        interrupted. Meanwhile, the main thread can still handle signals. An exception from the call
        is raised again here.
        """
        worker = _WorkerThread(call)
        worker.start()
        while not worker.done.wait(min(_MAX_WAIT_S, max(_MIN_WAIT_S, self.remaining()))):
            self.check(action)
        return worker.result()


class _WorkerThread(threading.Thread, Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self._call = call
        self._result: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            self._error = error
        self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]
