"""Background work of an instance: requested ingestions, and retention."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datapilot_defer.errors import Unavailable
from datapilot_defer.formatting import plural
from datapilot_defer.instance.inspection import Inspection, InspectionResult
from datapilot_defer.instance.retention import apply_retention
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage
from datapilot_defer.storage import ingestions as ingestion_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.blobs import Blob
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.ingestions import LEASE, Ingestion, IngestionStatus
from datapilot_defer.storage.uploads import Upload

log = logging.getLogger("datapilot_defer.instance")

_POLL_INTERVAL_S = 1.0
_LEASE_RENEWAL_S = 3.0
_RETENTION_INTERVAL_S = 6 * 3600.0
_FIRST_RETENTION_S = 60.0
# An ingestion that ended the instance this often is not started again.
_MAX_ATTEMPTS = 3
_MAX_LOG_LENGTH = 50_000


@dataclass
class IngestionWorker:
    """A thread that processes ingestions. Leases coordinate it with workers of other replicas."""

    storage: Storage
    settings: InstanceSettings
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="ingestion")
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and requeue an unfinished ingestion."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Return whether the thread is running; a bug ends it until the instance is restarted."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        next_retention = time.monotonic() + _FIRST_RETENTION_S
        while not self._stop.wait(_POLL_INTERVAL_S):
            try:
                self._process_all()
                if time.monotonic() > next_retention:
                    next_retention = time.monotonic() + _RETENTION_INTERVAL_S
                    apply_retention(self.storage, self.settings)
            except (Unavailable, OSError) as error:
                # The unfinished ingestion continues when its lease has expired.
                log.warning("ingestion: %s", error)

    def _process_all(self) -> None:
        is_processing = True
        while is_processing and not self._stop.is_set():
            is_processing = self._process_next()

    def _process_next(self) -> bool:
        """Process one ingestion; return False when there is none or it was requeued."""
        with self.storage.database.read() as connection:
            if not ingestion_records.has_claimable(connection):
                return False
        with self.storage.database.write() as connection:
            ingestion = ingestion_records.claim_next(connection)
        if ingestion is None:
            return False
        if ingestion.attempts > _MAX_ATTEMPTS:
            message = f"interrupted {_MAX_ATTEMPTS} times; the instance does not try again"
            self._finish(ingestion, IngestionStatus.FAILED, [message])
            return True
        return self._process(ingestion)

    def _process(self, ingestion: Ingestion) -> bool:
        with self.storage.database.read() as connection:
            current = upload_records.list_current(connection, ingestion.environment_id)
        pending = [
            upload for upload in current if upload.ingestion is not IngestionStatus.COMPLETED
        ]
        status = IngestionStatus.COMPLETED
        lines = []
        for upload in pending:
            result = self._inspect_upload(ingestion, upload)
            if result is None:
                self._requeue(ingestion)
                return False
            if not result.accepted:
                status = IngestionStatus.FAILED
            lines += [_format_summary(upload, result), *result.lines]
        self._finish(ingestion, status, lines or ["nothing new"])
        return True

    def _inspect_upload(self, ingestion: Ingestion, upload: Upload) -> InspectionResult | None:
        """Inspect one upload; return None when the instance is stopping."""
        with self.storage.database.write() as connection:
            upload_records.update_upload(
                connection, upload.id, ingestion=IngestionStatus.IN_PROGRESS.value
            )
            location = upload_records.locate_upload(connection, upload.id)
            previous = upload_records.find_previous(connection, upload)
        if location is None:
            return InspectionResult(accepted=False, lines=["removed meanwhile"])
        with tempfile.TemporaryDirectory(prefix="datapilot-") as directory:
            file = Path(directory) / upload.kind.file_name
            self._copy_blob(location.instance_id, upload, file)
            previous_file = None
            if previous is not None:
                previous_file = Path(directory) / "previous.json"
                self._copy_blob(location.instance_id, previous, previous_file)
            result = self._inspect_file(ingestion, upload, file, previous_file)
        if result is not None:
            self._record_result(upload, result)
        return result

    def _inspect_file(
        self, ingestion: Ingestion, upload: Upload, file: Path, previous: Path | None
    ) -> InspectionResult | None:
        inspection = Inspection(
            file,
            upload.kind,
            previous,
            timeout_s=self.settings.inspection_seconds,
            limit_bytes=self.settings.inspection_bytes,
        )
        try:
            while True:
                result = inspection.wait(_LEASE_RENEWAL_S)
                if result is not None:
                    return result
                self._renew_lease(ingestion)
                if self._stop.is_set():
                    return None
        finally:
            inspection.kill()

    def _copy_blob(self, instance_id: int, upload: Upload, path: Path) -> None:
        blob = Blob(upload.metadata.sha256, upload.metadata.size_bytes)
        with path.open("wb") as copy:
            for chunk in self.storage.blobs.read_chunks(instance_id, blob):
                copy.write(chunk)

    def _record_result(self, upload: Upload, result: InspectionResult) -> None:
        status = IngestionStatus.FAILED
        if result.accepted:
            status = IngestionStatus.COMPLETED
        changes = None
        if result.changes is not None:
            changes = json.dumps(asdict(result.changes))
        with self.storage.database.write() as connection:
            upload_records.update_upload(
                connection, upload.id, ingestion=status.value, changes=changes
            )

    def _renew_lease(self, ingestion: Ingestion) -> None:
        with self.storage.database.write() as connection:
            ingestion_records.update_ingestion(
                connection, ingestion.id, lease_until=utc_now() + LEASE
            )

    def _requeue(self, ingestion: Ingestion) -> None:
        with self.storage.database.write() as connection:
            ingestion_records.update_ingestion(
                connection,
                ingestion.id,
                status=IngestionStatus.QUEUED.value,
                lease_until=None,
                attempts=ingestion.attempts - 1,
            )

    def _finish(self, ingestion: Ingestion, status: IngestionStatus, lines: Sequence[str]) -> None:
        with self.storage.database.write() as connection:
            ingestion_records.update_ingestion(
                connection,
                ingestion.id,
                status=status.value,
                finished_at=utc_now(),
                lease_until=None,
                log="\n".join(lines)[:_MAX_LOG_LENGTH],
            )


def _format_summary(upload: Upload, result: InspectionResult) -> str:
    verdict = "has problems"
    if result.accepted:
        verdict = "accepted"
    summary = f"{upload.kind.file_name} (file {upload.id}): {verdict}"
    model_count = upload.metadata.model_count
    if model_count is None:
        return summary
    return f"{summary}, {plural(model_count, 'model')}"
