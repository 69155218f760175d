"""Deciding whether a verified upload becomes current, and recording the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datapilot_defer.artifact import ArtifactMetadata, Kind, Provenance
from datapilot_defer.instance.services.conflicts import UploadReplaced
from datapilot_defer.instance.services.integrations import find_active_integration
from datapilot_defer.instance.services.principal import Principal, require_valid_token
from datapilot_defer.instance.services.upload_checks import (
    FailedCheck,
    describe_allowing,
    describe_future,
    find_failed_checks,
)
from datapilot_defer.instance.verification import Verification
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage import publications as publication_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.audit import AuditAction, record_event
from datapilot_defer.storage.database import Connection, utc_now
from datapilot_defer.storage.integrations import Integration, UploadCheck
from datapilot_defer.storage.publications import PublicationReason
from datapilot_defer.storage.uploads import ModelCounts, Reason, Rejection, Upload, UploadDetails


@dataclass(frozen=True)
class UploadClaim:
    """The information that a client states about its upload.

    sha256, size_bytes: None if the client does not state them. allow: the checks that the upload
    skips.
    """

    upload_id: int
    sha256: str | None
    size_bytes: int | None
    provenance: Provenance
    allow: frozenset[UploadCheck] = frozenset()


@dataclass(frozen=True)
class Candidate:
    """A received upload, its verification, and the upload that it would replace."""

    integration: Integration
    upload: Upload
    current: Upload | None
    verification: Verification


@dataclass(frozen=True)
class Decision:
    """The decision about an upload.

    unchanged: whether the same bytes were already current. reasons: why the upload did not become
    current; empty if it did. message: the reasons as text for users. skipped: the audit log action
    and detail of each check that the upload failed but was allowed to skip, or that could not run.
    """

    unchanged: bool = False
    reasons: tuple[Reason, ...] = ()
    message: str = ""
    skipped: tuple[tuple[AuditAction, str], ...] = ()


def publish(
    storage: Storage, principal: Principal, candidate: Candidate, claim: UploadClaim
) -> Decision | None:
    """Make an upload current or reject it, and record its verification, in one transaction.

    Return None and change nothing if another upload became current since the verification. Raises
    UploadReplaced when other bytes have arrived since then or the upload was deleted,
    AuthenticationFailed when the token was revoked or has expired, and NotFound when the
    integration was deleted.
    """
    upload = candidate.upload
    with storage.database.write() as connection:
        instance_records.lock_instance(connection, principal.instance.id)
        require_valid_token(connection, principal)
        find_active_integration(connection, principal, candidate.integration.id)
        latest = upload_records.find_upload(connection, upload.id)
        if latest is None or latest.metadata.sha256 != upload.metadata.sha256:
            raise UploadReplaced(
                f"file {upload.id} was uploaded again during verification. "
                "Request a new signed URL."
            )
        if latest.uploaded_at is not None:
            # Another call has already verified the upload.
            return Decision()
        current = publication_records.find_current(connection, upload.environment_id, upload.kind)
        if _id_of(current) != _id_of(candidate.current):
            return None
        decision = _decide(connection, candidate, claim)
        _record_verification(connection, candidate, claim)
        if decision.reasons:
            upload_records.mark_rejected(connection, upload.id, decision.reasons, decision.message)
            return decision
        _record_skipped_checks(connection, principal, candidate, decision)
        verified = upload_records.find_upload(connection, upload.id) or upload
        make_current(connection, principal, verified, reason=PublicationReason.UPLOAD)
    return decision


def make_current(
    connection: Connection, principal: Principal, upload: Upload, *, reason: PublicationReason
) -> None:
    """Mark an upload as verified, and make it current for its environment and kind."""
    now = utc_now()
    upload_records.mark_verified(connection, upload.id, now)
    publication_records.make_current(
        connection, upload, since=now, reason=reason, token_id=principal.token.id
    )
    location = upload_records.locate_upload(connection, upload.id)
    project_name = None
    if upload.kind is Kind.MANIFEST:
        project_name = upload.metadata.project_name
    if location is not None:
        integration_records.record_publication(
            connection, location.integration_id, project_name=project_name, uploaded_at=now
        )


def _id_of(upload: Upload | None) -> int | None:
    if upload is None:
        return None
    return upload.id


def _decide(connection: Connection, candidate: Candidate, claim: UploadClaim) -> Decision:
    verification = candidate.verification
    metadata = verification.metadata
    if verification.problem is not None or metadata is None:
        message = verification.problem or "the file could not be verified"
        return Decision(reasons=(Rejection.INVALID,), message=message)
    future = describe_future(metadata, utc_now())
    if future is not None:
        return Decision(reasons=(Rejection.FUTURE,), message=future)
    current = candidate.current
    if current is not None and current.metadata.sha256 == metadata.sha256:
        return Decision(unchanged=True)
    if metadata.kind is not Kind.MANIFEST:
        return Decision()
    return _decide_by_checks(connection, candidate, claim, metadata)


def _decide_by_checks(
    connection: Connection, candidate: Candidate, claim: UploadClaim, metadata: ArtifactMetadata
) -> Decision:
    """Return the decision about a valid manifest that differs from the current one."""
    upload = candidate.upload
    environment = integration_records.get_environment(connection, upload.environment_id)
    failed_checks = _find_failed_checks(connection, candidate, metadata)
    skipped_checks = claim.allow | environment.disabled_checks
    rejecting = [failed for failed in failed_checks if failed.check not in skipped_checks]
    if rejecting:
        # Include failed checks that this upload allowed, because the next upload must allow them
        # too.
        needed = [each for each in failed_checks if each.check not in environment.disabled_checks]
        return Decision(
            reasons=tuple(failed.check for failed in rejecting),
            message=f"{_join_reasons(rejecting)} {describe_allowing(needed, metadata)}",
        )
    file = f"{upload.kind.file_name} {upload.id} in {environment.name}"
    skipped = [(AuditAction.UPLOAD_FORCED, f"{failed.check}: {file}") for failed in failed_checks]
    relations = UploadCheck.RELATIONS
    if _is_comparison_missing(candidate) and relations not in skipped_checks:
        reason = f"{relations}: {file}: the comparison with the current manifest failed"
        skipped.append((AuditAction.CHECK_SKIPPED, reason))
    return Decision(skipped=tuple(skipped))


def _is_comparison_missing(candidate: Candidate) -> bool:
    """Return whether the comparison with the current manifest failed.

    The upload can still become current, because a lost manifest must not prevent its replacement.
    """
    return candidate.current is not None and candidate.verification.relations is None


def _join_reasons(failed_checks: Sequence[FailedCheck]) -> str:
    return "; ".join(failed.reason for failed in failed_checks) + "."


def _record_skipped_checks(
    connection: Connection, principal: Principal, candidate: Candidate, decision: Decision
) -> None:
    for action, detail in decision.skipped:
        record_event(
            connection,
            principal.instance.id,
            principal.actor,
            action,
            integration_id=candidate.integration.id,
            detail=detail,
        )


def _find_failed_checks(
    connection: Connection, candidate: Candidate, metadata: ArtifactMetadata
) -> list[FailedCheck]:
    # Read the integration again, because another upload may have set its project.
    latest = integration_records.find_integration(
        connection, candidate.integration.instance_id, candidate.integration.id
    )
    current_metadata = None
    if candidate.current is not None:
        current_metadata = candidate.current.metadata
    return find_failed_checks(
        latest or candidate.integration,
        current_metadata,
        metadata,
        candidate.verification.relations,
        utc_now(),
    )


def _record_verification(connection: Connection, candidate: Candidate, claim: UploadClaim) -> None:
    verification = candidate.verification
    changes = verification.changes
    model_counts = None
    changes_json = None
    if changes is not None:
        model_counts = ModelCounts(changes.added, changes.removed, changes.changed)
        changes_json = changes.to_json()
    upload_records.record_verification(
        connection,
        candidate.upload.id,
        metadata=verification.metadata or candidate.upload.metadata,
        provenance=claim.provenance.cleaned(),
        details=UploadDetails(verification.report, changes_json),
        model_counts=model_counts,
    )
