"""Functions that locate, download and validate one artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind, parse_artifact
from datapilot_defer.dbt_file import MAX_FILE_BYTES
from datapilot_defer.errors import AccessDenied, ArtifactRefused, NotFound, Unavailable
from datapilot_defer.files import flush_to_disk
from datapilot_defer.pull.record import PulledArtifact

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.client.responses import ArtifactLocation, IntegrationSummary
    from datapilot_defer.console import Console
    from datapilot_defer.pull.request import PullOptions
    from datapilot_defer.pull.state_directory import StateDirectory

_MAX_LISTED = 20


@dataclass(frozen=True)
class PullContext:
    """One pull: its request, client and state directory. origin: the origin to record."""

    request: PullOptions
    client: InstanceClient
    directory: StateDirectory
    console: Console
    origin: str


@dataclass(frozen=True)
class Download:
    """One downloaded artifact. location: its location on the instance. path: its temporary file."""

    location: ArtifactLocation
    artifact: Artifact
    path: Path

    @property
    def is_undamaged(self) -> bool:
        """Return whether the size and the hash match those that the instance reports, if any."""
        metadata = self.artifact.metadata
        has_stated_size = self.location.size_bytes in (None, 0, metadata.size_bytes)
        return has_stated_size and self.location.sha256 in (None, metadata.sha256)


def locate(client: InstanceClient, kind: Kind, request: PullOptions) -> ArtifactLocation:
    """Locate an artifact. Raises NotFound with a message that explains what is missing."""
    try:
        return client.locate_artifact(
            kind,
            request.integration_id,
            environment=request.environment,
            file_id=request.file_id,
            at=request.at,
        )
    except NotFound as error:
        raise _explain_not_found(client, kind, request, error) from None


def download_artifact(context: PullContext, kind: Kind, location: ArtifactLocation) -> Download:
    """Download an artifact. Try a new location once if access is denied or the bytes are damaged.

    A signed URL may expire, and bytes may be changed in transit.

    Raises Unavailable if the bytes are damaged again.
    """
    try:
        download = _download_once(context, kind, location)
    except AccessDenied:
        download = None
    if download is None or not download.is_undamaged:
        download = _download_once(context, kind, locate(context.client, kind, context.request))
    if not download.is_undamaged:
        raise _damaged_error(download, context.request)
    return download


def _damaged_error(download: Download, request: PullOptions) -> Unavailable:
    metadata = download.artifact.metadata
    location = download.location
    actual = f"sha256 {metadata.sha256[:12]}…"
    expected = f"{str(location.sha256)[:12]}…"
    if location.sha256 in (None, metadata.sha256):
        actual = f"{metadata.size_bytes:,} bytes"
        expected = f"{location.size_bytes:,}"
    return Unavailable(
        f"the {metadata.kind.value} of {request.description} was damaged on the way "
        f"({actual}, but the instance has {expected}). The files of an earlier pull are "
        "unchanged"
    )


def _check_stated_size(request: PullOptions, kind: Kind, location: ArtifactLocation) -> None:
    """Raise Unavailable if the reported size exceeds the maximum for a download."""
    size_bytes = location.size_bytes or 0
    if size_bytes > MAX_FILE_BYTES:
        raise Unavailable(
            f"the instance reports that the {kind.value} of {request.description} has "
            f"{size_bytes:,} bytes, more than the {MAX_FILE_BYTES:,} bytes that datapilot-defer "
            f"downloads. Onboard a smaller {kind.value}, or report this to the instance's operator"
        )


def _download_once(context: PullContext, kind: Kind, location: ArtifactLocation) -> Download:
    """Download an artifact into a temporary file in the state directory."""
    _check_stated_size(context.request, kind, location)
    directory = context.directory
    try:
        file, path = directory.create_temporary()
        with file:
            size_bytes = location.size_bytes or 0
            with context.console.progress(f"Pulling the {kind.value}", size_bytes) as progress:
                context.client.download(location, file, kind.value, progress)
            flush_to_disk(file)
            file.seek(0)
            content = file.read()
    except OSError as error:
        raise directory.not_writable_error(error) from None
    name = str(directory.artifact_path(kind))
    return Download(location, parse_artifact(content, path=name, kind=kind), path)


def validate_download(download: Download, request: PullOptions) -> PulledArtifact:
    """Validate an artifact. Return it for the record. Raises ArtifactRefused if it is invalid."""
    from datapilot_defer.validation import ValidationOptions, validate

    artifact = download.artifact
    readable_by = None
    if artifact.kind is Kind.MANIFEST:
        readable_by = request.readable_by
    validation = validate(artifact, ValidationOptions(readable_by=readable_by))
    if not validation.is_accepted:
        reader = ""
        if request.readable_by:
            reader = f" that dbt {request.readable_by} can read"
        problems = "\n".join(validation.format_problems())
        raise ArtifactRefused(
            f"{request.description} has no valid {artifact.kind.value}{reader}. Nothing "
            f"was changed:\n{problems}"
        )
    location = download.location
    return PulledArtifact(
        artifact.metadata,
        location.provenance,
        location.file_id,
        location.uploaded_at,
        validation.readable_by,
    )


def _explain_not_found(
    client: InstanceClient, kind: Kind, request: PullOptions, error: NotFound
) -> NotFound:
    """Return the error for an artifact that does not exist. error: the instance's own error."""
    integrations = client.list_integrations()
    for integration in integrations:
        if integration.id == request.integration_id:
            return _explain_within(integration, kind, request, error)
    listed = [f"{integration.id} ({integration.name})" for integration in integrations]
    names = ", ".join(listed[:_MAX_LISTED]) or "none yet"
    return NotFound(f"no integration {request.integration_id} on {client.url}. It has: {names}")


def _explain_within(
    integration: IntegrationSummary, kind: Kind, request: PullOptions, error: NotFound
) -> NotFound:
    environments = integration.environments
    if request.environment and not integration.may_have(request.environment):
        return NotFound(
            f"integration {integration.id} ({integration.name}) has no environment "
            f"{request.environment}. It has: {', '.join(environments)}"
        )
    environment = request.environment or next(iter(environments), "PROD")
    options = f"--integration-id {integration.id} --environment {environment}"
    if request.pin:
        return _earlier_artifact_not_found(kind, request, options, error)
    if kind is not Kind.MANIFEST:  # a manifest is onboarded without an option
        options += f" --{kind.value.replace('_', '-')}-path target/{kind.file_name}"
    return NotFound(
        f"integration {integration.id} ({integration.name}), environment {environment} "
        f"has no {kind.file_name} yet. The production job uploads it with `datapilot dbt "
        f"onboard {options}`"
    )


def _earlier_artifact_not_found(
    kind: Kind, request: PullOptions, options: str, error: NotFound
) -> NotFound:
    history = f"`datapilot dbt integrations history {options}`"
    if request.file_id is None:
        return NotFound(f"{str(error).rstrip('.')}. {history} lists the stored artifacts.")
    problem = f"file {request.file_id} of {request.description} is not a {kind.value}"
    return NotFound(f"{problem}. {history} lists them")
