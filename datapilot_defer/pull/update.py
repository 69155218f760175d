"""Updates of a state directory from an environment.

All new artifacts are downloaded and validated before the first one appears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from datapilot_defer.artifact import read_artifact
from datapilot_defer.client.connection import BRIEF_TIMEOUT_S
from datapilot_defer.errors import NotFound, Unavailable, UsageError
from datapilot_defer.pull.download import (
    Download,
    PullContext,
    download_artifact,
    locate,
    validate_download,
)
from datapilot_defer.pull.record import PulledArtifact, StateRecord
from datapilot_defer.pull.request import PullOptions, PullResult, check_age, describe_age
from datapilot_defer.pull.state_directory import LOCK_TIMEOUT_S

if TYPE_CHECKING:
    from datapilot_defer.artifact import Kind
    from datapilot_defer.client.connection import Connection, InstanceAddress
    from datapilot_defer.client.responses import ArtifactLocation
    from datapilot_defer.console import Console
    from datapilot_defer.pull.state_directory import StateDirectory


def update_state_directory(
    request: PullOptions,
    connection: Connection,
    directory: StateDirectory,
    *,
    console: Console,
    force: bool = False,
    offline: bool = False,
    keep_content: bool = False,
) -> PullResult:
    """Update the state directory. If it is current, this takes one small request per artifact.

    force: download again, and overwrite files that were not pulled. offline: use the artifacts of
    an earlier pull, without a request or a token. keep_content: return the content of every
    requested artifact, so that the caller need not read the files again.

    Raises NotFound if there is no such artifact, ArtifactRefused for one that dbt cannot read and
    for a manifest that is too old or from the future, UsageError for a directory that cannot be
    used, and Unavailable if neither the instance nor an earlier pull is usable.
    """
    usable = None
    if not force:
        usable = _read_usable(request, connection.address, directory, keep_content=keep_content)
    if not offline:
        result = _update(request, connection, directory, usable, console=console, force=force)
    elif usable is not None:
        result = replace(usable, offline=True)
    else:
        raise Unavailable(
            f"{directory.path} contains no usable artifacts of {request.description} from "
            "an earlier pull. Run the command without --offline"
        )
    check_age(result.manifest, request.max_age_s)
    if keep_content:
        result = complete_contents(result, directory)
    return result


def _read_usable(
    request: PullOptions,
    address: InstanceAddress,
    directory: StateDirectory,
    *,
    keep_content: bool,
) -> PullResult | None:
    """Return the contents of the directory if they meet the request; None otherwise.

    The origin must match, and every artifact must be intact and readable by the requested dbt.
    """
    record = _same_origin(directory.read_record(), request.origin(address))
    if record is None:
        return None
    artifacts = []
    contents = {}
    for kind in request.kinds:
        artifact = record.find(kind)
        if artifact is None or not request.accepts(artifact):
            return None
        if keep_content:
            content = directory.read_intact(artifact)
            if content is None:
                return None
            contents[kind] = content
        elif not directory.is_intact(artifact):
            return None
        artifacts.append(artifact)
    return PullResult(
        directory.path,
        tuple(artifacts),
        record.environment,
        contents=contents,
        integration_name=record.integration_name,
    )


def complete_contents(result: PullResult, directory: StateDirectory) -> PullResult:
    """Return the result with the content of every artifact. Read only those that it lacks."""
    contents = dict(result.contents)
    for artifact in result.artifacts:
        if artifact.kind not in contents:
            path = directory.artifact_path(artifact.kind)
            contents[artifact.kind] = read_artifact(path, artifact.kind)
    return replace(result, contents=contents)


def _update(
    request: PullOptions,
    connection: Connection,
    directory: StateDirectory,
    usable: PullResult | None,
    *,
    console: Console,
    force: bool,
) -> PullResult:
    try:
        current = _confirm(usable, request, connection)
        if current is not None:
            return current
        origin = request.origin(connection.address)
        client = connection.open()
        lock_timeout_s = LOCK_TIMEOUT_S
        if usable is not None:
            client = connection.open_for_update()
            lock_timeout_s = BRIEF_TIMEOUT_S
        context = PullContext(request, client, directory, console, origin)
        lock_timeout_s = min(lock_timeout_s, client.deadline.remaining())
        return _download_changed(context, lock_timeout_s, force=force)
    except Unavailable as error:
        if usable is None:
            raise
        age = describe_age(usable.manifest)
        console.warn(f"{error}. Using the artifacts of an earlier pull ({age}).")
        return replace(usable, offline=True)


def _confirm(
    usable: PullResult | None, request: PullOptions, connection: Connection
) -> PullResult | None:
    """Return the usable contents, with current names, if they are up to date; None otherwise.

    Raises Unavailable at once if an earlier short request did not reach the instance.
    """
    if usable is None:
        return None
    if connection.unavailable is not None:
        raise connection.unavailable
    client = connection.open_briefly()
    for artifact in usable.artifacts:
        location = locate(client, artifact.kind, request)
        if not _is_same_artifact(artifact, location):
            return None
    return replace(
        usable,
        environment=location.environment or usable.environment,
        integration_name=location.integration_name or usable.integration_name,
    )


def _is_same_artifact(artifact: PulledArtifact, location: ArtifactLocation) -> bool:
    """Return whether the hashes match, or the file IDs if the instance reports no hash."""
    if location.sha256:
        return artifact.metadata.sha256 == location.sha256
    return artifact.file_id == location.file_id


def _download_changed(context: PullContext, lock_timeout_s: float, *, force: bool) -> PullResult:
    request = context.request
    directory = context.directory
    # If the artifact does not exist, the error is raised before the directory is created.
    locate(context.client, request.kinds[0], request)
    with directory.lock(lock_timeout_s):
        previous = None
        if not force:
            previous = directory.read_record()
            if directory.protect_foreign_files:
                _check_foreign_files(request, directory, previous)
        result, location = _replace_changed(context, previous)
    _warn_if_environment_unconfirmed(context, location)
    return result


def _replace_changed(
    context: PullContext, previous: StateRecord | None
) -> tuple[PullResult, ArtifactLocation]:
    """Download and replace changed artifacts. Also return the location of the first kind."""
    request = context.request
    known = _same_origin(previous, context.origin)
    # Locate them again: another process may have pulled a newer artifact since the first response.
    locations = _locate_all(context, known)
    unchanged = _find_unchanged(context, known, locations)
    downloads: dict[Kind, Download] = {}
    for kind in [kind for kind in locations if kind not in unchanged]:
        downloads[kind] = download_artifact(context, kind, locations[kind])
        locations[kind] = downloads[kind].location
    new = {kind: validate_download(download, request) for kind, download in downloads.items()}
    artifacts = {**unchanged, **new}
    first_location = locations[request.kinds[0]]
    environment = first_location.environment or request.environment
    context.directory.replace_artifacts(
        {kind: download.path for kind, download in downloads.items()},
        StateRecord(
            context.origin, environment, tuple(artifacts.values()), first_location.integration_name
        ),
        removed=_removed_kinds(previous, artifacts),
    )
    result = PullResult(
        context.directory.path,
        tuple(artifacts[kind] for kind in request.kinds),
        environment,
        unchanged=not downloads,
        contents={kind: download.artifact for kind, download in downloads.items()},
        integration_name=first_location.integration_name,
    )
    return result, first_location


def _same_origin(record: StateRecord | None, origin: str) -> StateRecord | None:
    if record is None or record.origin != origin:
        return None
    return record


def _locate_all(context: PullContext, known: StateRecord | None) -> dict[Kind, ArtifactLocation]:
    """Locate the requested artifacts and those of the earlier pull, so that all belong together.

    Those of the earlier pull are left out if they no longer exist, or if a file ID is requested.
    """
    request = context.request
    locations = {kind: locate(context.client, kind, request) for kind in request.kinds}
    if known is None or request.file_id is not None:
        return locations
    for artifact in known.artifacts:
        if artifact.kind in locations:
            continue
        try:
            locations[artifact.kind] = locate(context.client, artifact.kind, request)
        except NotFound:  # it no longer exists and is removed from the directory
            continue
    return locations


def _find_unchanged(
    context: PullContext, known: StateRecord | None, locations: Mapping[Kind, ArtifactLocation]
) -> dict[Kind, PulledArtifact]:
    unchanged: dict[Kind, PulledArtifact] = {}
    if known is None:
        return unchanged
    for kind, location in locations.items():
        artifact = known.find(kind)
        if (
            artifact is not None
            and _is_same_artifact(artifact, location)
            and context.request.accepts(artifact)
            and context.directory.is_intact(artifact)
        ):
            unchanged[kind] = artifact
    return unchanged


def _removed_kinds(
    previous: StateRecord | None, artifacts: Mapping[Kind, PulledArtifact]
) -> Sequence[Kind]:
    """Return the kinds of the earlier pull that are no longer among the artifacts."""
    if previous is None:
        return []
    return [artifact.kind for artifact in previous.artifacts if artifact.kind not in artifacts]


def _check_foreign_files(
    request: PullOptions, directory: StateDirectory, record: StateRecord | None
) -> None:
    foreign_files = directory.find_foreign_files(request.kinds, record)
    if foreign_files:
        raise UsageError(
            f"{foreign_files[0]} was not pulled. Use another directory, or overwrite it "
            "with --force"
        )


def _warn_if_environment_unconfirmed(context: PullContext, location: ArtifactLocation) -> None:
    """Warn if the instance does not confirm the requested environment."""
    environment = context.request.environment
    if environment and location.environment is None:
        context.console.warn(
            f"{context.client.url} does not report the environment of an artifact, so "
            f"this one may not be of {environment}"
        )
