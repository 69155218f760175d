"""Delete old uploads and unreferenced blobs, in the background."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import retention as retention_records

log = logging.getLogger("datapilot_defer.instance")

_INTERVAL_S = 6 * 3600.0
_FIRST_RUN_S = 60.0
_TICK_S = 1.0


@dataclass
class BackgroundThread:
    """A thread that applies retention every few hours."""

    storage: Storage
    settings: InstanceSettings
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="retention")
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread is running; a bug ends it until the instance is restarted."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        next_run = time.monotonic() + _FIRST_RUN_S
        while not self._stop.wait(_TICK_S):
            if time.monotonic() < next_run:
                continue
            next_run = time.monotonic() + _INTERVAL_S
            try:
                apply_retention(self.storage, self.settings)
            except (Unavailable, OSError) as error:
                log.warning("retention: %s", error)


def apply_retention(storage: Storage, settings: InstanceSettings) -> None:
    """Delete uploads beyond retention or never finished, then the blobs that no record needs."""
    count = settings.keep_count
    age = settings.keep_age
    with storage.database.read() as connection:
        environment_ids = retention_records.environments_over_retention(
            connection, count=count, age=age
        )
    for environment_id in environment_ids:
        with storage.database.write() as connection:
            retention_records.delete_beyond_retention(
                connection, environment_id, count=count, age=age
            )
    with storage.database.write() as connection:
        retention_records.delete_unverified(connection, settings.grace)
    for instance_id, sha256 in storage.blobs.list_older_than(settings.grace):
        _delete_unreferenced(storage, instance_id, sha256)


def _delete_unreferenced(storage: Storage, instance_id: int, sha256: str) -> None:
    with storage.database.read() as connection:
        if retention_records.is_blob_referenced(connection, instance_id, sha256):
            return
    # Check again with writers locked out: an upload of the same bytes may have come in between.
    with storage.database.write() as connection:
        instance_records.lock_instance(connection, instance_id)
        if not retention_records.is_blob_referenced(connection, instance_id, sha256):
            storage.blobs.delete(instance_id, sha256)
