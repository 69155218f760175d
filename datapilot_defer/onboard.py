"""The act of onboarding: validate every artifact, then upload every artifact, then start the ingestion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind, read_artifact
from datapilot_defer.errors import ArtifactRefused, DatapilotError, Unavailable
from datapilot_defer.validation import find_inconsistencies, validate

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient, UploadReceipt, UploadTarget
    from datapilot_defer.console import Progress

ShowProgress = Callable[[str, int], "AbstractContextManager[Progress]"]


@dataclass(frozen=True)
class ValidatedArtifacts:
    """Artifacts that may be uploaded, the manifest first; what is worth a warning about them, and what is not."""

    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...]
    drift: tuple[str, ...]


@dataclass(frozen=True)
class OnboardResult:
    """What the instance has confirmed. unchanged: it held exactly these bytes before."""

    integration_id: int
    environment: str
    files: tuple[tuple[Artifact, UploadReceipt], ...]
    status_url: str

    @property
    def unchanged(self) -> bool:
        """Whether the instance says of every artifact that it is the one that it already held."""
        return all(stored.unchanged for _, stored in self.files)


def validate_artifacts(
    paths: Mapping[Kind, str], *, strict: bool, readable_by: str | None, verbose: bool
) -> ValidatedArtifacts:
    """Read each file once and validate it, before anything is sent.

    Raises ArtifactRefused with every problem of every file; UsageError for a file that is not there.
    """
    artifacts = [read_artifact(paths[kind], kind) for kind in Kind if kind in paths]
    refusals: list[str] = []
    warnings: list[str] = []
    drift: list[str] = []
    for artifact in artifacts:
        verdict = validate(
            artifact, strict=strict, readable_by=readable_by, limit=None if verbose else 10
        )
        refusals += [] if verdict.is_accepted else verdict.format_problems()
        warnings += [f"{artifact.path}: {warning}" for warning in verdict.warnings]
        drift += [f"{artifact.path}: {line}" for line in verdict.drift]
    if refusals:
        raise ArtifactRefused("\n".join(["nothing was uploaded:", *refusals]))
    return ValidatedArtifacts(
        tuple(artifacts), (*warnings, *find_inconsistencies(artifacts)), tuple(drift)
    )


def onboard(
    instance: InstanceClient,
    checked: ValidatedArtifacts,
    *,
    integration: int | str,
    environment: str,
    facts: Mapping[str, object],
    progress: ShowProgress,
) -> OnboardResult:
    """Send every artifact, have each confirmed, and start the ingestion.

    integration: its id, or its name. facts: what goes along with each artifact (commit, branch, build_url, force).
    All are transferred before the first is confirmed, and the manifest is confirmed first: when anything fails
    until then, what was current on the instance is still current.
    Raises AccessDenied, NotFound, ArtifactRefused or Unavailable.
    """
    instance.check_credentials()
    instance.check_permissions()
    integration_id = (
        integration if isinstance(integration, int) else instance.find_integration(integration).id
    )
    places = [
        _upload_with_retry(instance, artifact, integration_id, environment, progress)
        for artifact in checked.artifacts
    ]
    files = [
        (artifact, _verify_upload(instance, place, artifact, facts))
        for artifact, place in zip(checked.artifacts, places, strict=True)
    ]
    try:
        instance.start_ingestion(integration_id, environment)
    except Unavailable as error:
        raise Unavailable(f"what was sent is current, but {error}") from None
    return OnboardResult(
        integration_id, environment, tuple(files), instance.status_url(integration_id, environment)
    )


def _upload_with_retry(
    instance: InstanceClient,
    artifact: Artifact,
    integration_id: int,
    environment: str,
    progress: ShowProgress,
) -> UploadTarget:
    """Put one artifact where the instance says. Another place is asked for once: a signed URL may expire in a wait."""
    place, fault = _upload_once(instance, artifact, integration_id, environment, progress)
    if fault is not None:
        place, fault = _upload_once(instance, artifact, integration_id, environment, progress)
    if fault is not None:
        raise fault
    return place


def _upload_once(
    instance: InstanceClient,
    artifact: Artifact,
    integration_id: int,
    environment: str,
    progress: ShowProgress,
) -> tuple[UploadTarget, DatapilotError | None]:
    place = instance.request_upload_url(artifact.kind, integration_id, environment)
    with progress(f"Uploading {artifact.kind.value}", artifact.metadata.size_bytes) as bar:
        return place, instance.upload(place, artifact, bar)


def _verify_upload(
    instance: InstanceClient, place: UploadTarget, artifact: Artifact, facts: Mapping[str, object]
) -> UploadReceipt:
    own = {"sha256": artifact.metadata.sha256, "size_bytes": artifact.metadata.size_bytes}
    stored = instance.verify_upload(place, artifact.kind.value, {**own, **facts})
    if stored.sha256 is not None and stored.sha256 != artifact.metadata.sha256:
        raise Unavailable(
            f"the instance holds other bytes than {artifact.path}: sha256 {stored.sha256}, not {artifact.metadata.sha256}; "
            "onboard it again"
        )
    return stored
