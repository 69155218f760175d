"""Onboarding: validate every artifact, upload every artifact, then verify every upload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind, Provenance, read_artifact
from datapilot_defer.client.token_expiry import describe_expiry
from datapilot_defer.errors import ArtifactRefused, DatapilotError, Unavailable
from datapilot_defer.run_results import check_run
from datapilot_defer.validation import find_inconsistencies, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.client.responses import UploadReceipt, UploadTarget
    from datapilot_defer.console import Console
    from datapilot_defer.deadline import Deadline
    from datapilot_defer.validation.result import ValidationOptions


@dataclass(frozen=True)
class OnboardRequest:
    """The destination and provenance of an onboarding, and the safety checks to skip.

    integration: ID or name. force: skip all safety checks of the instance. allow: the names of
    checks to skip.
    """

    integration: int | str
    environment: str
    provenance: Provenance = field(default_factory=Provenance)
    force: bool = False
    allow: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ValidatedArtifacts:
    """Valid artifacts, the manifest first.

    drift: differences from the published schema that a current dbt writes. They do not justify a
    warning.
    """

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...]
    drift: tuple[str, ...]


@dataclass(frozen=True)
class OnboardResult:
    """The confirmed uploads. warnings: those about the token."""

    integration_id: int
    environment: str
    files: tuple[tuple[Artifact, UploadReceipt], ...]
    status_url: str
    warnings: tuple[str, ...] = ()

    @property
    def unchanged(self) -> bool:
        """Return whether the instance already had every artifact."""
        return all(receipt.unchanged for _, receipt in self.files)


def validate_artifacts(
    paths: Mapping[Kind, str],
    options: ValidationOptions,
    *,
    max_problems: int | None,
    require_success: bool = False,
    deadline: Deadline | None = None,
) -> ValidatedArtifacts:
    """Read each file once and validate it, before anything is uploaded.

    max_problems: the maximum for each file; None for all. require_success: reject a manifest whose
    dbt run did not succeed, or has an unknown outcome; otherwise a failed run is a warning.
    deadline: for reading all files.

    Raises ArtifactRefused with the problems of all files, UsageError for a missing file, and
    Unavailable for one that cannot be read in time.
    """
    artifacts = [
        read_artifact(paths[kind], kind, deadline=deadline) for kind in Kind if kind in paths
    ]
    problems: list[str] = []
    warnings: list[str] = []
    drift: list[str] = []
    for artifact in artifacts:
        result = validate(artifact, options, max_problems=max_problems)
        if not result.is_accepted:
            problems += result.format_problems()
        warnings += [f"{artifact.path}: {warning}" for warning in result.warnings]
        drift += [f"{artifact.path}: {line}" for line in result.drift]
    if problems:
        raise ArtifactRefused("\n".join(["nothing was uploaded:", *problems]))
    warnings += find_inconsistencies(artifacts)
    warnings += check_run(artifacts, require_success=require_success)
    return ValidatedArtifacts(tuple(artifacts), tuple(warnings), tuple(drift))


def onboard(
    client: InstanceClient,
    artifacts: ValidatedArtifacts,
    request: OnboardRequest,
    *,
    console: Console,
) -> OnboardResult:
    """Upload every artifact, have each one verified, and report the end of the onboarding.

    All are uploaded before the first one is verified, and the manifest is verified first. If
    anything fails before the first verification, the instance stays unchanged.

    Raises AccessDenied, NotFound, UsageError, ArtifactRefused or Unavailable.
    """
    warnings = _check_token(client, console)
    integration_id = _find_integration_id(client, request.integration)
    destination = _Destination(client, integration_id, request.environment, console)
    targets = [_upload_with_retry(destination, artifact) for artifact in artifacts.artifacts]
    receipts = [
        _verify_upload(client, target, artifact, request)
        for artifact, target in zip(artifacts.artifacts, targets, strict=True)
    ]
    try:
        client.start_ingestion(integration_id, request.environment)
    except Unavailable as error:
        raise Unavailable(f"the uploaded artifacts are current, but {error}") from None
    return OnboardResult(
        integration_id,
        request.environment,
        tuple(zip(artifacts.artifacts, receipts, strict=True)),
        client.status_url(integration_id, request.environment),
        warnings,
    )


def _check_token(client: InstanceClient, console: Console) -> tuple[str, ...]:
    """Check that the token permits uploads. Print and return a warning if it expires soon."""
    expiry_warning = describe_expiry(client.check_credentials(), client.url)
    client.check_permissions()
    if expiry_warning is None:
        return ()
    console.warn(expiry_warning)
    return (expiry_warning,)


@dataclass(frozen=True)
class _Destination:
    """The destination of the uploads of one onboarding."""

    client: InstanceClient
    integration_id: int
    environment: str
    console: Console


def _find_integration_id(client: InstanceClient, integration: int | str) -> int:
    if isinstance(integration, int):
        return integration
    return client.find_integration(integration).id


def _upload_with_retry(destination: _Destination, artifact: Artifact) -> UploadTarget:
    """Upload one artifact. Retry once with a new signed URL, because a URL may expire."""
    target, error = _upload_once(destination, artifact)
    if error is not None:
        target, error = _upload_once(destination, artifact)
    if error is not None:
        raise error
    return target


def _upload_once(
    destination: _Destination, artifact: Artifact
) -> tuple[UploadTarget, DatapilotError | None]:
    client = destination.client
    target = client.request_upload_url(
        artifact.kind, destination.integration_id, destination.environment
    )
    label = f"Uploading {artifact.kind.value}"
    with destination.console.progress(label, artifact.metadata.size_bytes) as progress:
        return target, client.upload(target, artifact, progress)


def _verify_upload(
    client: InstanceClient, target: UploadTarget, artifact: Artifact, request: OnboardRequest
) -> UploadReceipt:
    receipt = client.verify_upload(
        target, artifact, request.provenance, force=request.force, allow=request.allow
    )
    sha256 = artifact.metadata.sha256
    if receipt.sha256 is not None and receipt.sha256 != sha256:
        raise Unavailable(
            f"the instance stored different bytes from {artifact.path}: its sha256 is "
            f"{receipt.sha256}, expected {sha256}. Onboard it again"
        )
    return receipt
