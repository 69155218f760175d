"""Deletion of expired records and unreferenced blobs in small steps between requests."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from datapilot_defer.errors import DatapilotError
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage, audit, deleted_integrations, web_sessions
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import quota as quota_records
from datapilot_defer.storage import retention as retention_records
from datapilot_defer.storage.blobs import BlobEntry
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.integrations import UNDELETE_PERIOD
from datapilot_defer.storage.retention import ExpiredUploads

log = logging.getLogger("datapilot_defer.instance")

_BATCH_SIZE = 200
_AUDIT_AGE = timedelta(days=400)
# How long an upload may still run after its URL has expired. An upload of 512 MB at the lowest
# permitted speed takes less time.
_SENDING_TIME = timedelta(hours=3)


def apply_retention(storage: Storage, settings: InstanceSettings) -> None:
    """Delete all records and blobs that the settings do not keep."""
    for _ in Sweep(storage, settings).batches():
        pass


@contextmanager
def failures_logged(job: str) -> Iterator[None]:
    """Log an exception of a job instead of raising it."""
    try:
        yield
    except (DatapilotError, OSError) as error:
        log.warning("%s failed: %s. It will be repeated later.", job, error)
    except Exception as error:
        log.exception("%s failed: %s. It will be repeated later.", job, type(error).__name__)


@dataclass(frozen=True)
class Sweep:
    """One pass that deletes all records and blobs that retention does not keep."""

    storage: Storage
    settings: InstanceSettings

    def batches(self) -> Iterator[None]:
        """Delete in short transactions and yield after each one.

        The caller may pause between batches, so that other writers can proceed. It may also stop,
        because the next sweep deletes the rest. A failed step is logged and does not prevent the
        others.
        """
        steps = {
            "retention": self._delete_expired(),
            "deletion of unverified uploads": self._delete_unverified(),
            "deletion of expired sessions": self._delete_sessions(),
            "deletion of old entries of the audit log": self._delete_audit_events(),
            "deletion of deleted integrations": self._purge_integrations(),
            "deletion of unreferenced blobs": self._delete_blobs(),
            "measurement of the stored bytes": self._measure_blobs(),
        }
        for name, step in steps.items():
            with failures_logged(name):
                yield from step

    def _delete_expired(self) -> Iterator[None]:
        settings = self.settings
        with self.storage.database.read() as connection:
            environment_ids = retention_records.environments_over_retention(
                connection, count=settings.keep_count, age=settings.keep_age
            )
        for environment_id in environment_ids:
            yield from self._delete_expired_of(environment_id)

    def _delete_expired_of(self, environment_id: int) -> Iterator[None]:
        expired = ExpiredUploads(environment_id, self.settings.keep_count, self.settings.keep_age)
        while True:
            with self.storage.database.read() as connection:
                ids = expired.read_batch(connection)
            if ids is None:
                return
            if ids:
                with self.storage.database.write() as connection:
                    retention_records.delete_uploads(connection, environment_id, ids)
                yield

    def _delete_unverified(self) -> Iterator[None]:
        last_id = 0
        sending_time = timedelta(seconds=self.settings.upload_seconds) + _SENDING_TIME
        while True:
            with self.storage.database.read() as connection:
                ids = retention_records.find_unverified(
                    connection,
                    after_id=last_id,
                    sending_time=sending_time,
                    grace=self.settings.grace,
                    rejected_grace=self.settings.rejected_grace,
                )
            if not ids:
                return
            last_id = ids[-1]
            with self.storage.database.write() as connection:
                retention_records.delete_unverified(connection, ids)
            yield

    def _delete_sessions(self) -> Iterator[None]:
        with self.storage.database.write() as connection:
            web_sessions.delete_expired(connection)
        yield

    def _delete_audit_events(self) -> Iterator[None]:
        oldest = utc_now() - _AUDIT_AGE
        has_more = True
        while has_more:
            with self.storage.database.write() as connection:
                deleted = audit.delete_older_than(connection, oldest, limit=_BATCH_SIZE)
            has_more = deleted == _BATCH_SIZE
            yield

    def _purge_integrations(self) -> Iterator[None]:
        before = utc_now() - UNDELETE_PERIOD
        with self.storage.database.read() as connection:
            ids = deleted_integrations.list_purgeable(connection, before)
        for integration_id in ids:
            has_more = True
            while has_more:
                with self.storage.database.write() as connection:
                    has_more = deleted_integrations.purge_batch(
                        connection, integration_id, before, limit=_BATCH_SIZE
                    )
                yield

    def _delete_blobs(self) -> Iterator[None]:
        oldest = utc_now() - self.settings.grace
        for number, entry in enumerate(self.storage.blobs.list_blobs(), 1):
            if entry.stored_at < oldest:
                self._delete_unreferenced(entry)
            if number % _BATCH_SIZE == 0:
                yield
        self.storage.blobs.delete_incomplete(self.settings.grace)

    def _measure_blobs(self) -> Iterator[None]:
        # Measure without pauses, because uploads received in the meantime may count twice until the
        # next sweep.
        with self.storage.database.read() as connection:
            before = quota_records.list_stored_bytes(connection)
        measured: Counter[int] = Counter()
        for entry in self.storage.blobs.list_blobs():
            measured[entry.instance_id] += entry.blob.size_bytes
        with self.storage.database.write() as connection:
            quota_records.correct_stored_bytes(connection, measured, before)
        yield

    def _delete_unreferenced(self, entry: BlobEntry) -> None:
        """Delete a blob unless an upload refers to it."""
        instance_id = entry.instance_id
        sha256 = entry.blob.sha256
        with self.storage.database.read() as connection:
            if retention_records.is_blob_referenced(connection, instance_id, sha256):
                return
        # Check again while no other transaction can write, because an upload of the same bytes may
        # have arrived in the meantime.
        with self.storage.database.write() as connection:
            instance_records.lock_instance(connection, instance_id)
            if not retention_records.is_blob_referenced(connection, instance_id, sha256):
                self.storage.blobs.delete(instance_id, sha256)
