"""Delete old uploads and unreferenced blobs."""

from __future__ import annotations

from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import retention as retention_records


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
