"""The thread of an instance that does what no request waits for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from datapilot_defer.instance.last_used import LastUsed
from datapilot_defer.instance.retention import Sweep
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage

_SWEEP_INTERVAL_S = 6 * 3600.0
_FIRST_SWEEP_S = 60.0
_FLUSH_INTERVAL_S = 30.0
_TICK_S = 1.0


@dataclass
class BackgroundThread:
    """A thread that stores when tokens were used, and deletes what is not kept."""

    storage: Storage
    settings: InstanceSettings
    last_used: LastUsed
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="background")
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread is running."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        next_flush = time.monotonic() + _FLUSH_INTERVAL_S
        next_sweep = time.monotonic() + _FIRST_SWEEP_S
        while not self._stopping.wait(_TICK_S):
            if time.monotonic() >= next_flush:
                self.last_used.flush(self.storage)
                next_flush = time.monotonic() + _FLUSH_INTERVAL_S
            if time.monotonic() >= next_sweep:
                Sweep(self.storage, self.settings, self._stopping).run()
                next_sweep = time.monotonic() + _SWEEP_INTERVAL_S
        self.last_used.flush(self.storage)
