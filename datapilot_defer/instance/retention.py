"""Delete old uploads and unreferenced blobs, in small steps between the requests."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from datapilot_defer.errors import DatapilotError
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage, audit, deleted_integrations, web_sessions
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import quota as quota_records
from datapilot_defer.storage import retention as retention_records
from datapilot_defer.storage.blobs import BlobEntry
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.retention import ExpiredUploads

log = logging.getLogger("datapilot_defer.instance")

# Between two batches, requests that wait for the write lock get it: they look for it every 0.1 s.
_PAUSE_S = 0.12
_PURGE_BATCH = 200
_AUDIT_AGE = timedelta(days=400)


def apply_retention(storage: Storage, settings: InstanceSettings) -> None:
    """Delete all records and blobs that the settings do not keep."""
    Sweep(storage, settings).run()


@dataclass
class Sweep:
    """One deletion of everything that is not kept.

    stopping: ends it early, at the next batch. What is left is deleted by the next sweep.
    """

    storage: Storage
    settings: InstanceSettings
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Run all steps. A step that fails is logged and does not prevent the others."""
        steps = {
            "retention": self._delete_expired,
            "deletion of unverified uploads": self._delete_unverified,
            "deletion of expired sessions": self._delete_sessions,
            "deletion of old entries of the audit log": self._delete_audit_events,
            "deletion of deleted integrations": self._purge_integrations,
            "deletion of unreferenced blobs": self._delete_blobs,
        }
        for name, step in steps.items():
            if self.stopping.is_set():
                return
            try:
                step()
            except (DatapilotError, OSError) as error:
                log.warning("%s failed: %s. It is repeated later.", name, error)
            except Exception as error:
                log.exception("%s failed: %s. It is repeated later.", name, type(error).__name__)

    def _delete_expired(self) -> None:
        settings = self.settings
        with self.storage.database.read() as connection:
            environment_ids = retention_records.environments_over_retention(
                connection, count=settings.keep_count, age=settings.keep_age
            )
        for environment_id in environment_ids:
            self._delete_expired_of(environment_id)

    def _delete_expired_of(self, environment_id: int) -> None:
        expired = ExpiredUploads(environment_id, self.settings.keep_count, self.settings.keep_age)
        while not self.stopping.is_set():
            with self.storage.database.read() as connection:
                ids = expired.read_batch(connection)
            if ids is None:
                return
            if ids:
                with self.storage.database.write() as connection:
                    retention_records.delete_uploads(connection, environment_id, ids)
                self.stopping.wait(_PAUSE_S)

    def _delete_unverified(self) -> None:
        last_id = 0
        while not self.stopping.is_set():
            with self.storage.database.read() as connection:
                ids = retention_records.find_unverified(
                    connection,
                    after_id=last_id,
                    grace=self.settings.grace,
                    rejected_grace=self.settings.rejected_grace,
                )
            if not ids:
                return
            last_id = ids[-1]
            with self.storage.database.write() as connection:
                retention_records.delete_unverified(connection, ids)
            self.stopping.wait(_PAUSE_S)

    def _delete_sessions(self) -> None:
        with self.storage.database.write() as connection:
            web_sessions.delete_expired(connection)

    def _delete_audit_events(self) -> None:
        with self.storage.database.write() as connection:
            audit.delete_events_before(connection, utc_now() - _AUDIT_AGE)

    def _purge_integrations(self) -> None:
        with self.storage.database.read() as connection:
            ids = deleted_integrations.list_purgeable(
                connection, utc_now() - self.settings.undelete_period
            )
        for integration_id in ids:
            has_more = True
            while has_more and not self.stopping.is_set():
                with self.storage.database.write() as connection:
                    has_more = deleted_integrations.purge_batch(
                        connection, integration_id, _PURGE_BATCH
                    )
                self.stopping.wait(_PAUSE_S)

    def _delete_blobs(self) -> None:
        """Delete unreferenced blobs and measure the others."""
        with self.storage.database.read() as connection:
            before = quota_records.list_stored_bytes(connection)
        measured: Counter[int] = Counter()
        oldest = utc_now() - self.settings.grace
        for entry in self.storage.blobs.list_blobs():
            if self.stopping.is_set():
                return
            if entry.stored_at >= oldest or not self._delete_unreferenced(entry):
                measured[entry.instance_id] += entry.blob.size_bytes
        with self.storage.database.write() as connection:
            quota_records.correct_stored_bytes(connection, measured, before)
        self.storage.blobs.delete_incomplete(self.settings.grace)

    def _delete_unreferenced(self, entry: BlobEntry) -> bool:
        """Delete a blob unless an upload refers to it, and return whether it was deleted."""
        instance_id = entry.instance_id
        sha256 = entry.blob.sha256
        with self.storage.database.read() as connection:
            if retention_records.is_blob_referenced(connection, instance_id, sha256):
                return False
        # Check again with writers locked out: an upload of the same bytes may have come in between.
        with self.storage.database.write() as connection:
            instance_records.lock_instance(connection, instance_id)
            if retention_records.is_blob_referenced(connection, instance_id, sha256):
                return False
            self.storage.blobs.delete(instance_id, sha256)
        return True
