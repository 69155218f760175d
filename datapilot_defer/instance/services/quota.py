"""Limit the bytes that an instance stores."""

from __future__ import annotations

from datapilot_defer.formatting import format_size
from datapilot_defer.instance.services.conflicts import QuotaExceeded
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.storage import Storage
from datapilot_defer.storage import quota as quota_records
from datapilot_defer.storage.blobs import Blob
from datapilot_defer.storage.retention import is_blob_referenced


def stored_bytes(storage: Storage, principal: Principal) -> int | None:
    """Return how many bytes the artifacts of the caller's instance have.

    Equal artifacts count once. None: a database of release 0.1.0, not yet measured.
    """
    with storage.database.read() as connection:
        return quota_records.find_stored_bytes(connection, principal.instance.id)


def check_quota(
    storage: Storage, instance_id: int, max_stored_bytes: int | None, blob: Blob | None = None
) -> None:
    """Raise QuotaExceeded when an instance has no space for a blob, or for any other blob.

    Uploads that are received at the same time may exceed the limit together by their sizes.
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
        size = f", and this artifact has {format_size(blob.size_bytes)}"
    raise QuotaExceeded(
        f"the instance stores {format_size(stored)} of at most {format_size(max_stored_bytes)}"
        f"{size}. Ask its administrator to lower --keep or to raise --max-bytes."
    )
