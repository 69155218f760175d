"""A bound on the time that a command may take, whatever a server, a resolver or a keyring does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from datapilot_defer.errors import Unavailable

T = TypeVar("T")


class Deadline:
    """A point in time that work has to be done by."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._end - time.monotonic())

    def check(self, what: str) -> None:
        """Raises Unavailable when it has passed."""
        if not self.remaining():
            raise self.expired_error(what)

    def expired_error(self, what: str) -> Unavailable:
        """The error for work that was not done in time."""
        return Unavailable(
            f"{what} did not end within {self.seconds:g} s; try again, or give it more time with --timeout"
        )

    def run(self, call: Callable[[], T], what: str) -> T:
        """The result of `call`, or Unavailable when it does not come in time.

        The call runs in a thread of its own, because neither a DNS look-up nor a stalled TLS handshake can be
        ended from outside; the main thread stays free to be ended by a signal.
        """
        worker = _WorkerThread(call)
        worker.start()
        while not worker.done.wait(
            min(0.2, self.remaining() or 0.001)
        ):  # short waits: Ctrl-C on Windows ends no long one
            self.check(what)
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
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error
        self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result[0]
