"""The steps of an upload: announce, receive, verify, and accept if rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    NotFound,
    Unavailable,
    UsageError,
)
from datapilot_defer.instance.services.conflicts import Conflict, UnsafeUpload
from datapilot_defer.instance.services.integrations import (
    find_active_integration,
    find_environment,
    find_integration,
)
from datapilot_defer.instance.services.principal import (
    Principal,
    require_scope,
    require_valid_token,
)
from datapilot_defer.instance.services.publishing import (
    Candidate,
    UploadClaim,
    make_current,
    publish,
)
from datapilot_defer.instance.services.quota import check_quota
from datapilot_defer.instance.verification import Verification
from datapilot_defer.instance.worker import VerificationPool
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import publications as publication_records
from datapilot_defer.storage import quota as quota_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.audit import AuditAction, record_event
from datapilot_defer.storage.blobs import Blob, StoredContent
from datapilot_defer.storage.integrations import Integration, UploadCheck
from datapilot_defer.storage.publications import PublicationReason
from datapilot_defer.storage.uploads import Reason, Rejection, Upload

# Maximum number of times that an upload is verified because others became current.
_MAX_VERIFICATIONS = 3


@dataclass(frozen=True)
class VerifiedUpload:
    """A verified upload. unchanged: whether the same bytes were already current."""

    upload: Upload
    unchanged: bool


def announce_upload(
    storage: Storage,
    principal: Principal,
    *,
    integration_id: int,
    environment: str,
    kind: Kind,
    max_stored_bytes: int | None,
) -> int:
    """Create the record of an upload whose bytes will follow, and return its id.

    Raises AccessDenied, NotFound, and QuotaExceeded when the instance already stores
    max_stored_bytes.
    """
    require_scope(principal, "upload", integration_id)
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    check_quota(storage, principal.instance.id, max_stored_bytes)
    with storage.database.write() as connection:
        return upload_records.create_upload(
            connection, environment_id=selected.id, token_id=principal.token.id, kind=kind
        )


def receive_upload(storage: Storage, instance_id: int, upload_id: int, blob: Blob) -> None:
    """Record that the bytes of an upload are stored.

    Raises Conflict if the upload is already verified or rejected.
    """
    with storage.database.write() as connection:
        quota_records.add_stored_blob(connection, instance_id, blob)
        is_marked = upload_records.mark_received(
            connection, upload_id, sha256=blob.sha256, size_bytes=blob.size_bytes
        )
    if not is_marked:
        raise Conflict(
            f"file {upload_id} is already verified or rejected. Request a new signed URL."
        )


def verify_upload(
    storage: Storage, pool: VerificationPool, principal: Principal, claim: UploadClaim
) -> VerifiedUpload:
    """Make an upload current if it is complete, valid and safe.

    Repeating a successful call changes nothing. Raises AccessDenied, NotFound, UsageError when the
    upload has not arrived or differs from the claim, ArtifactRefused or UnsafeUpload when it is
    rejected, UploadReplaced, and Unavailable.
    """
    upload, integration = _find_own_upload(storage, principal, claim)
    if upload.uploaded_at is not None:
        return VerifiedUpload(upload, unchanged=False)
    if upload.rejection == Rejection.INVALID:
        # An invalid upload stays invalid. The results of checks may change, because they depend on
        # the clock and the current upload.
        raise _rejection_error(upload.id, (Rejection.INVALID,), upload.refusal or "")
    for _ in range(_MAX_VERIFICATIONS):
        with storage.database.read() as connection:
            current = publication_records.find_current(
                connection, upload.environment_id, upload.kind
            )
        verification = _verify_content(storage, pool, integration, upload, current)
        candidate = Candidate(integration, upload, current, verification)
        decision = publish(storage, principal, candidate, claim)
        if decision is not None:
            if decision.reasons:
                raise _rejection_error(upload.id, decision.reasons, decision.message)
            return VerifiedUpload(upload, decision.unchanged)
    raise Unavailable(
        f"other uploads became current while file {upload.id} was verified. Try again."
    )


def _verify_content(
    storage: Storage,
    pool: VerificationPool,
    integration: Integration,
    upload: Upload,
    current: Upload | None,
) -> Verification:
    content = _content_of(storage, integration, upload)
    previous = None
    if upload.kind is Kind.MANIFEST and current is not None:
        previous = _content_of(storage, integration, current)
    verification = pool.verify(upload.kind, content, previous)
    metadata = verification.metadata
    if metadata is not None and metadata.sha256 != upload.metadata.sha256:
        raise Unavailable(f"the stored bytes of file {upload.id} are damaged. Upload it again.")
    return verification


def _content_of(storage: Storage, integration: Integration, upload: Upload) -> StoredContent:
    blob = Blob(upload.metadata.sha256, upload.metadata.size_bytes)
    return StoredContent(storage.blobs, integration.instance_id, blob)


def _rejection_error(upload_id: int, reasons: Sequence[Reason], message: str) -> ArtifactRefused:
    """Return the error for a rejected upload, with the names of its failed checks."""
    failed_checks = [reason for reason in reasons if isinstance(reason, UploadCheck)]
    details = {"dbt_core_integration_file_id": upload_id, "check": failed_checks}
    if failed_checks:
        return UnsafeUpload(message, details)
    return ArtifactRefused(message, details)


def _find_own_upload(
    storage: Storage, principal: Principal, claim: UploadClaim
) -> tuple[Upload, Integration]:
    """Return the caller's own upload and its integration.

    Raises AccessDenied, NotFound, and UsageError when the upload has not arrived or differs from
    the claim.
    """
    upload, integration = _find_upload(storage, principal, claim.upload_id)
    require_scope(principal, "upload", integration.id)
    if upload.token_id != principal.token.id:
        raise AccessDenied(f"file {upload.id} was announced with another token")
    _check_claim(claim, upload)
    return upload, integration


def _find_upload(
    storage: Storage, principal: Principal, upload_id: int
) -> tuple[Upload, Integration]:
    """Return an upload of the caller's instance, and its integration. Raises NotFound."""
    with storage.database.read() as connection:
        location = upload_records.locate_upload(connection, upload_id)
        upload = upload_records.find_upload(connection, upload_id)
    instance = principal.instance
    if upload is None or location is None or location.instance_id != instance.id:
        raise NotFound(f"instance {instance.name!r} has no file {upload_id}")
    return upload, find_integration(storage, principal, location.integration_id)


def _check_claim(claim: UploadClaim, upload: Upload) -> None:
    if not upload.is_received:
        raise UsageError(
            f"file {upload.id} has not arrived. PUT its bytes to the signed URL first."
        )
    received = upload.metadata
    if claim.sha256 in (None, received.sha256) and claim.size_bytes in (None, received.size_bytes):
        return
    raise UsageError(
        f"file {upload.id} arrived with {received.size_bytes} bytes and sha256 {received.sha256}, "
        "which does not match what was sent. Upload it again."
    )


def accept_upload(
    storage: Storage, principal: Principal, upload_id: int
) -> tuple[Upload, Integration]:
    """Accept an upload that a check rejected, and return it with its integration.

    The upload becomes current. Raises AccessDenied unless the caller is an admin, NotFound, and
    Conflict when no check rejected the upload.
    """
    require_scope(principal, "admin")
    _, integration = _find_upload(storage, principal, upload_id)
    with storage.database.write() as connection:
        instance_records.lock_instance(connection, principal.instance.id)
        require_valid_token(connection, principal)
        find_active_integration(connection, principal, integration.id)
        upload = upload_records.find_upload(connection, upload_id)
        if upload is None or upload.rejection is None:
            raise Conflict(f"file {upload_id} was not rejected")
        if not upload.failed_checks:
            raise Conflict(f"file {upload_id} cannot be accepted: {upload.refusal}")
        make_current(connection, principal, upload, reason=PublicationReason.ACCEPT)
        record_event(
            connection,
            principal.instance.id,
            principal.actor,
            AuditAction.UPLOAD_ACCEPTED,
            integration_id=integration.id,
            detail=f"{upload.rejection}: {upload.kind.file_name} {upload.id}",
        )
    return upload, integration


def check_onboarding(
    storage: Storage, principal: Principal, *, integration_id: int, environment: str
) -> None:
    """Check that the caller's last uploads to an environment became current.

    Raises AccessDenied, NotFound, Conflict when the last upload was rejected, and Unavailable when
    it was received but not verified.
    """
    require_scope(principal, "upload", integration_id)
    integration = find_integration(storage, principal, integration_id)
    selected = find_environment(integration, environment)
    with storage.database.read() as connection:
        unpublished = upload_records.find_last_unpublished(
            connection, selected.id, principal.token.id, kind=Kind.MANIFEST
        )
        current = publication_records.list_current(connection, selected.id)
    if unpublished is not None:
        # altimate-datapilot-cli ignores the response from verify_upload and reports this error
        # instead.
        raise _unpublished_error(unpublished)
    if not current:
        raise NotFound(
            f"nothing was uploaded to the environment {selected.name} of integration "
            f"{integration.id}"
        )


def _unpublished_error(upload: Upload) -> Conflict | Unavailable:
    if upload.refusal is not None:
        return Conflict(f"the last {upload.kind.value} was rejected: {upload.refusal}")
    return Unavailable(f"the last {upload.kind.value} was not verified. Upload it again.")
