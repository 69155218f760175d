"""Announce, receive and verify an upload; start the ingestion."""

from __future__ import annotations

from dataclasses import dataclass

from datapilot_defer.artifact import ArtifactMetadata, Kind, Provenance
from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    NotFound,
    Unavailable,
    UsageError,
)
from datapilot_defer.instance import inspection
from datapilot_defer.instance.services import upload_checks
from datapilot_defer.instance.services.conflicts import Conflict, UploadReplaced
from datapilot_defer.instance.services.integrations import find_environment, find_integration
from datapilot_defer.instance.services.principal import Principal, require_scope
from datapilot_defer.storage import Storage
from datapilot_defer.storage import ingestions as ingestion_records
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.blobs import Blob
from datapilot_defer.storage.database import Connection, utc_now
from datapilot_defer.storage.integrations import Integration
from datapilot_defer.storage.uploads import Upload


@dataclass(frozen=True)
class UploadClaim:
    """What a client states about its upload. sha256, size_bytes: None if it does not state them.

    force: skip the safety checks.
    """

    upload_id: int
    sha256: str | None
    size_bytes: int | None
    provenance: Provenance
    force: bool


@dataclass(frozen=True)
class VerifiedUpload:
    """A verified upload. unchanged: the same bytes were current before."""

    upload: Upload
    unchanged: bool


def announce_upload(
    storage: Storage, principal: Principal, *, integration_id: int, environment: str, kind: Kind
) -> int:
    """Create the record of an upload to come and return its id. Raises AccessDenied, NotFound."""
    require_scope(principal, "upload", integration_id)
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    with storage.database.write() as connection:
        return upload_records.create_upload(
            connection, environment_id=selected.id, token_id=principal.token.id, kind=kind
        )


def receive_upload(storage: Storage, upload_id: int, blob: Blob) -> None:
    """Record that the bytes of an upload are stored. Raises Conflict after verification."""
    with storage.database.write() as connection:
        is_marked = upload_records.mark_received(
            connection, upload_id, sha256=blob.sha256, size_bytes=blob.size_bytes
        )
    if not is_marked:
        raise Conflict(f"file {upload_id} was verified meanwhile: ask for a new signed URL")


def verify_upload(storage: Storage, principal: Principal, claim: UploadClaim) -> VerifiedUpload:
    """Make an upload current if it is complete and safe. Repeating the call changes nothing.

    Raises AccessDenied, NotFound, UsageError when the upload is not what the client states,
    ArtifactRefused and UnsafeUpload when it may not become current, UploadReplaced.
    """
    upload, integration = _find_own_upload(storage, principal, claim)
    if upload.uploaded_at is not None:
        return VerifiedUpload(upload, unchanged=False)
    try:
        metadata = _describe_upload(storage, integration, upload)
        unchanged = _make_current(storage, integration, upload, metadata, claim)
    except UploadReplaced:
        raise
    except ArtifactRefused as error:
        with storage.database.write() as connection:
            upload_records.update_upload(connection, upload.id, refusal=str(error))
        raise
    return VerifiedUpload(upload, unchanged)


def _describe_upload(
    storage: Storage, integration: Integration, upload: Upload
) -> ArtifactMetadata:
    """Return the metadata of a received upload; its content leaves memory again."""
    content = storage.blobs.read(integration.instance_id, upload.metadata.sha256)
    return inspection.describe_content(content, upload.kind)


def _find_own_upload(
    storage: Storage, principal: Principal, claim: UploadClaim
) -> tuple[Upload, Integration]:
    """Return the caller's own received upload, if it is what the caller states."""
    upload_id = claim.upload_id
    with storage.database.read() as connection:
        location = upload_records.locate_upload(connection, upload_id)
        upload = upload_records.find_upload(connection, upload_id)
    instance = principal.instance
    if upload is None or location is None or location.instance_id != instance.id:
        raise NotFound(f"instance {instance.name!r} has no file {upload_id}")
    require_scope(principal, "upload", location.integration_id)
    if upload.token_id != principal.token.id:
        raise AccessDenied(f"file {upload_id} was announced with another token")
    _check_claim(claim, upload)
    return upload, find_integration(storage, principal, location.integration_id)


def _check_claim(claim: UploadClaim, upload: Upload) -> None:
    if not upload.is_received:
        raise UsageError(f"file {upload.id} did not arrive: PUT its bytes to the signed URL first")
    received = upload.metadata
    if claim.sha256 in (None, received.sha256) and claim.size_bytes in (None, received.size_bytes):
        return
    raise UsageError(
        f"what arrived as file {upload.id} is not what was sent, "
        f"but {received.size_bytes} bytes with sha256 {received.sha256}; upload it again"
    )


def _make_current(
    storage: Storage,
    integration: Integration,
    upload: Upload,
    metadata: ArtifactMetadata,
    claim: UploadClaim,
) -> bool:
    """Make an upload current; return whether the same bytes were current before."""
    with storage.database.write() as connection:
        instance_records.lock_instance(connection, integration.instance_id)
        latest = upload_records.find_upload(connection, upload.id)
        if _was_verified_meanwhile(upload, latest):
            return False
        if latest != upload:
            raise UploadReplaced(
                f"file {upload.id} was uploaded again meanwhile: ask for a new signed URL"
            )
        current = upload_records.find_current(connection, upload.environment_id, upload.kind)
        unchanged = current is not None and current.metadata.sha256 == upload.metadata.sha256
        if not unchanged and not claim.force:
            _check_safety(connection, integration, current, metadata)
        _check_blob_exists(storage, integration, upload)
        _publish(connection, integration, upload, metadata, claim.provenance)
    return unchanged


def _was_verified_meanwhile(upload: Upload, latest: Upload | None) -> bool:
    """Return whether the same call, repeated, was faster."""
    if latest is None or latest.uploaded_at is None:
        return False
    return latest.metadata.sha256 == upload.metadata.sha256


def _check_safety(
    connection: Connection,
    integration: Integration,
    current: Upload | None,
    metadata: ArtifactMetadata,
) -> None:
    if metadata.kind is not Kind.MANIFEST:
        return
    # Read it again: another upload may have set the integration's project.
    latest = integration_records.find_integration(
        connection, integration.instance_id, integration.id
    )
    current_metadata = None
    if current is not None:
        current_metadata = current.metadata
    upload_checks.check_upload(latest or integration, current_metadata, metadata)


def _check_blob_exists(storage: Storage, integration: Integration, upload: Upload) -> None:
    """Raise Unavailable unless the blob exists, so that no record appears without its blob.

    Until the transaction ends, retention cannot delete the blob.
    """
    if not storage.blobs.exists(integration.instance_id, upload.metadata.sha256):
        raise Unavailable(f"the bytes of file {upload.id} are gone; upload it again")


def _publish(
    connection: Connection,
    integration: Integration,
    upload: Upload,
    metadata: ArtifactMetadata,
    provenance: Provenance,
) -> None:
    now = utc_now()
    project_name = None
    if upload.kind is Kind.MANIFEST:
        project_name = metadata.project_name
    upload_records.mark_verified(
        connection, upload.id, metadata=metadata, provenance=provenance, uploaded_at=now
    )
    upload_records.make_current(connection, upload, now)
    integration_records.record_publication(
        connection, integration.id, project_name=project_name, uploaded_at=now
    )


def start_ingestion(
    storage: Storage, principal: Principal, *, integration_id: int, environment: str
) -> None:
    """Request an ingestion of an environment's current artifacts.

    Raises AccessDenied, NotFound, Conflict when the caller's last upload was rejected.
    """
    require_scope(principal, "upload", integration_id)
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    with storage.database.write() as connection:
        rejected = upload_records.find_last_rejected(
            connection, selected.id, principal.token.id, kind=Kind.MANIFEST
        )
        if rejected is not None:
            # altimate-datapilot-cli ignores the answer of verify_upload and reports this one.
            raise Conflict(f"the last {rejected.kind.value} was refused: {rejected.refusal}")
        if not upload_records.list_current(connection, selected.id):
            raise NotFound(
                f"nothing was uploaded to integration {integration.id}, {selected.name}, yet"
            )
        ingestion_records.enqueue(connection, selected.id)
