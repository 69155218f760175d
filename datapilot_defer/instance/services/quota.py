"""The limit on the bytes that an instance stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datapilot_defer.errors import Unavailable
from datapilot_defer.formatting import format_size
from datapilot_defer.instance.services.conflicts import QuotaExceeded
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.storage import Storage
from datapilot_defer.storage import quota as quota_records
from datapilot_defer.storage.blobs import Blob
from datapilot_defer.storage.retention import is_blob_referenced


@dataclass(frozen=True)
class Reservation:
    """The space that is reserved for a running upload.

    before_bytes: the space that is reserved for running uploads that started earlier.
    """

    instance_id: int
    size_bytes: int
    before_bytes: int


class Reservations:
    """The space that is reserved for the running uploads of each instance. Not thread-safe."""

    def __init__(self) -> None:
        self._bytes: Counter[int] = Counter()

    @contextmanager
    def hold(self, instance_id: int, size_bytes: int) -> Iterator[Reservation]:
        """Reserve space while the block runs.

        The reserved space may exceed the free space. `check_space` detects that.
        """
        reservation = Reservation(instance_id, size_bytes, self._bytes[instance_id])
        self._bytes[instance_id] += size_bytes
        try:
            yield reservation
        finally:
            self._bytes[instance_id] -= size_bytes


def check_space(storage: Storage, space: Reservation, max_stored_bytes: int | None) -> None:
    """Raise QuotaExceeded if an instance is full, or Unavailable if running uploads may fill it.

    An upload that does not fit may run if no earlier upload is running, because it may be identical
    to a stored artifact. In that case, `check_quota` accepts it.
    """
    if max_stored_bytes is None:
        return
    check_quota(storage, space.instance_id, max_stored_bytes)
    with storage.database.read() as connection:
        stored = quota_records.find_stored_bytes(connection, space.instance_id)
    if stored is None or not space.before_bytes:
        return
    if stored + space.before_bytes + space.size_bytes > max_stored_bytes:
        raise Unavailable(
            "there is not enough space for this upload while other uploads are running. "
            "Try again when they have finished."
        )


def stored_bytes(storage: Storage, principal: Principal) -> int | None:
    """Return the total size of the artifacts of the caller's instance in bytes.

    Identical artifacts count once. Return None for a database of release 0.1.0 that has not been
    measured yet.
    """
    with storage.database.read() as connection:
        return quota_records.find_stored_bytes(connection, principal.instance.id)


def check_quota(
    storage: Storage, instance_id: int, max_stored_bytes: int | None, blob: Blob | None = None
) -> None:
    """Raise QuotaExceeded if an instance has no space for a blob.

    A blob that is already stored needs no space. blob: None checks only whether the limit is
    reached.
    """
    if max_stored_bytes is None:
        return
    with storage.database.read() as connection:
        stored = quota_records.find_stored_bytes(connection, instance_id)
        if stored is None:
            return
        if blob is None:
            has_space = stored < max_stored_bytes
        elif stored + blob.size_bytes <= max_stored_bytes:
            has_space = True
        else:
            has_space = is_blob_referenced(connection, instance_id, blob.sha256)
    if has_space:
        return
    size = ""
    if blob is not None:
        size = f", and this artifact needs {format_size(blob.size_bytes)}"
    raise QuotaExceeded(
        f"the instance stores {format_size(stored)} of at most {format_size(max_stored_bytes)}"
        f"{size}. Ask its administrator to lower --keep or to raise --max-bytes."
    )
