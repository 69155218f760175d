"""The background thread for work that no request waits for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from datapilot_defer.instance.last_used import LastUsed
from datapilot_defer.instance.retention import Sweep, failures_logged
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage

_SWEEP_INTERVAL_S = 6 * 3600.0
_FIRST_SWEEP_S = 60.0
_FLUSH_INTERVAL_S = 30.0
_TICK_S = 1.0
# The pause after each batch of a sweep. It is longer than 0.1 s, because transactions that wait for
# the write lock retry at that interval.
_PAUSE_S = 0.12


@dataclass
class BackgroundThread:
    """A thread that stores when tokens were last used, and deletes data that is no longer kept."""

    storage: Storage
    settings: InstanceSettings
    last_used: LastUsed
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _next_flush: float = 0.0

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="background")
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait until it ends."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        next_sweep = time.monotonic() + _FIRST_SWEEP_S
        while not self._stopping.wait(_TICK_S):
            self._flush_if_due()
            if time.monotonic() >= next_sweep:
                self._sweep()
                next_sweep = time.monotonic() + _SWEEP_INTERVAL_S
        self._flush()

    def _sweep(self) -> None:
        for _ in Sweep(self.storage, self.settings).batches():
            if self._stopping.wait(_PAUSE_S):
                return
            self._flush_if_due()

    def _flush_if_due(self) -> None:
        if time.monotonic() >= self._next_flush:
            self._flush()

    def _flush(self) -> None:
        self._next_flush = time.monotonic() + _FLUSH_INTERVAL_S
        with failures_logged("storing the last use of tokens"):
            self.last_used.flush(self.storage)
