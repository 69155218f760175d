"""What an instance does besides answering: ingestions that were asked for, and the sweep of what nobody needs."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.inspection import InspectionResult, inspect
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import ingestions, tokens, uploads
from datapilot_defer.storage.blobs import CHUNK_BYTES, BlobStore
from datapilot_defer.storage.database import Database, utc_now
from datapilot_defer.storage.ingestions import (
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    LEASE,
    QUEUED,
    Ingestion,
)
from datapilot_defer.storage.uploads import Upload

log = logging.getLogger("datapilot_defer.instance")

_POLL_SECONDS = 1.0
_SWEEP_SECONDS = 6 * 3600.0
_FIRST_SWEEP_SECONDS = 60.0
# An ingestion that ended the instance this often is not begun again.
_MAX_ATTEMPTS = 3
_LOG_LENGTH = 50_000


@dataclass
class IngestionWorker:
    """A thread that works while the instance runs; other replicas may have one too, records say who does what."""

    records: Database
    blobs: BlobStore
    settings: InstanceSettings
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._run, name="ingestion")
        self._thread.start()

    def stop(self) -> None:
        """End, giving back what is half done; another start takes it up again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether it works; a fault of ours ends it, and only another start of the instance begins it again."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        next_sweep = time.monotonic() + _FIRST_SWEEP_SECONDS
        while not self._stop.wait(_POLL_SECONDS):
            try:
                while not self._stop.is_set() and self._process_next():
                    pass
                if time.monotonic() > next_sweep:
                    next_sweep = time.monotonic() + _SWEEP_SECONDS
                    apply_retention(self.records, self.blobs, self.settings)
            except (
                Unavailable,
                OSError,
            ) as error:  # what was begun is taken up again when its lease is over
                log.warning("ingestion: %s", error)

    def _process_next(self) -> bool:
        """Work on one ingestion; False when there is none."""
        with self.records.read() as connection:
            if not ingestions.has_claimable(connection):
                return False
        with self.records.write() as connection:
            task = ingestions.claim_next(connection)
        if task is None:
            return False
        if task.attempts > _MAX_ATTEMPTS:
            self._finish(
                task,
                FAILED,
                [f"interrupted {_MAX_ATTEMPTS} times; the instance does not try again"],
            )
            return True
        return self._process(task)

    def _process(self, task: Ingestion) -> bool:
        with self.records.read() as connection:
            todo = [
                each
                for each in uploads.list_current(connection, task.environment_id)
                if each.ingestion != COMPLETED
            ]
        status, lines = COMPLETED, [] if todo else ["nothing new"]
        for file in todo:
            found = self._inspect_upload(task, file)
            if found is None:
                with self.records.write() as connection:
                    before = {"status": QUEUED, "lease_until": None, "attempts": task.attempts - 1}
                    ingestions.update_ingestion(connection, task.id, **before)
                return False
            status = status if found.accepted else FAILED
            lines += [_format_summary(file, found), *found.lines]
        self._finish(task, status, lines)
        return True

    def _inspect_upload(self, task: Ingestion, file: Upload) -> InspectionResult | None:
        """Look at one file; None when the instance is about to end."""
        with self.records.write() as connection:
            uploads.update_upload(connection, file.id, ingestion=IN_PROGRESS)
            place, before = (
                uploads.locate_upload(connection, file.id),
                uploads.find_previous(connection, file),
            )
        if place is None:
            return InspectionResult(accepted=False, lines=["removed meanwhile"])
        with tempfile.TemporaryDirectory(prefix="datapilot-") as folder:
            here = self._copy_blob(place[0], file, Path(folder) / Kind(file.kind).file_name)
            there = (
                self._copy_blob(place[0], before, Path(folder) / "previous.json")
                if before
                else None
            )
            found = inspect(
                here,
                Kind(file.kind),
                there,
                seconds=self.settings.inspection_seconds,
                limit_bytes=self.settings.inspection_bytes,
                pulse=lambda: self._renew_lease(task),
            )
        if found is not None:
            changes = json.dumps(found.changes) if found.changes else None
            with self.records.write() as connection:
                status = COMPLETED if found.accepted else FAILED
                uploads.update_upload(connection, file.id, ingestion=status, changes=changes)
        return found

    def _copy_blob(self, owner: int, file: Upload, path: Path) -> Path:
        with path.open("wb") as copy:
            for start in range(0, file.size_bytes or 0, CHUNK_BYTES):
                length = min(CHUNK_BYTES, (file.size_bytes or 0) - start)
                copy.write(self.blobs.read(owner, str(file.sha256), start=start, length=length))
        return path

    def _renew_lease(self, task: Ingestion) -> bool:
        with self.records.write() as connection:
            ingestions.update_ingestion(connection, task.id, lease_until=utc_now() + LEASE)
        return not self._stop.is_set()

    def _finish(self, task: Ingestion, status: str, lines: list[str]) -> None:
        with self.records.write() as connection:
            ended = {"status": status, "finished_at": utc_now(), "lease_until": None}
            ingestions.update_ingestion(
                connection, task.id, **ended, log="\n".join(lines)[:_LOG_LENGTH]
            )


def apply_retention(records: Database, blobs: BlobStore, settings: InstanceSettings) -> None:
    """Forget what retention does not keep and uploads that were never finished; delete blobs that no record needs."""
    with records.read() as connection:
        places = uploads.environments_over_retention(
            connection, count=settings.keep_count, age=settings.keep_age
        )
    for environment_id in places:
        with records.write() as connection:
            uploads.delete_beyond_retention(
                connection, environment_id, count=settings.keep_count, age=settings.keep_age
            )
    with records.write() as connection:
        uploads.delete_unverified(connection, settings.grace)
    for owner, sha256 in blobs.list_older_than(settings.grace):
        with records.read() as connection:
            if uploads.is_blob_referenced(connection, owner, sha256):
                continue
        # Again while nobody else can write: an upload of the same bytes may have come in between.
        with records.write() as connection:
            tokens.lock_instance(connection, owner)
            if not uploads.is_blob_referenced(connection, owner, sha256):
                blobs.delete(owner, sha256)


def _format_summary(file: Upload, found: InspectionResult) -> str:
    word = "accepted" if found.accepted else "has problems"
    models = "" if file.model_count is None else f", {file.model_count} models"
    return f"{Kind(file.kind).file_name} (file {file.id}): {word}{models}"
