"""Finding current and earlier artifacts, and restoring earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import NotFound, UsageError
from datapilot_defer.instance.services.conflicts import Conflict
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
from datapilot_defer.storage import Storage
from datapilot_defer.storage import instances as instance_records
from datapilot_defer.storage import integrations as integration_records
from datapilot_defer.storage import publications as publication_records
from datapilot_defer.storage import uploads as upload_records
from datapilot_defer.storage.audit import AuditAction, record_event
from datapilot_defer.storage.database import Connection, utc_now
from datapilot_defer.storage.integrations import Environment, Integration, normalize_name
from datapilot_defer.storage.publications import PublicationReason
from datapilot_defer.storage.uploads import Upload


@dataclass(frozen=True)
class ArtifactQuery:
    """A query for an artifact.

    environment: None tries PROD first, then the others from old to new. upload_id: selects this
    upload instead of the current one, regardless of `at`. at: selects the upload that was current
    at this time, which is in UTC unless it has a time zone.
    """

    integration_id: int
    kind: Kind
    environment: str | None = None
    upload_id: int | None = None
    at: datetime | None = None


class EnvironmentArtifact(NamedTuple):
    """An artifact, its environment and the name of its integration."""

    environment: Environment
    upload: Upload
    integration_name: str = ""


def find_artifact(
    storage: Storage, principal: Principal, query: ArtifactQuery
) -> EnvironmentArtifact:
    """Return the artifact that a query selects.

    Raises AccessDenied, NotFound, UsageError or Conflict.
    """
    require_scope(principal, "read", query.integration_id)
    integration = find_integration(storage, principal, query.integration_id)
    environments = _candidate_environments(integration, query.environment)
    if query.upload_id is not None:
        upload = find_verified_upload(storage, principal, integration, query.upload_id)
        artifact = _match_upload(environments, upload, query.kind)
    else:
        artifact = _find_current(storage, environments, query)
    if artifact is None:
        raise _no_artifact_error(integration, query)
    return artifact._replace(integration_name=integration.name)


def _no_artifact_error(integration: Integration, query: ArtifactQuery) -> NotFound:
    place = f"integration {integration.id}"
    if query.environment is not None:
        place += f", environment {query.environment},"
    if query.upload_id is not None:
        return NotFound(
            f"file {query.upload_id} is not a {query.kind.value} of {place.rstrip(',')}"
        )
    time = ""
    if query.at is not None:
        time = f" at {_format_time(query.at)}"
    return NotFound(f"{place} has no {query.kind.value}{time}")


def find_verified_upload(
    storage: Storage, principal: Principal, integration: Integration, upload_id: int
) -> Upload:
    """Return a verified upload of an integration.

    Raises Conflict when the upload was rejected and the token has the scope read. Otherwise, raises
    NotFound unless there is such an upload.
    """
    environment_ids = {environment.id for environment in integration.environments}
    with storage.database.read() as connection:
        upload = upload_records.find_upload(connection, upload_id)
    if upload is None or upload.environment_id not in environment_ids:
        raise _missing_file(f"integration {integration.id}", upload_id)
    if upload.uploaded_at is not None:
        return upload
    can_read = principal.token.permits("read", integration.id)
    if upload.refusal is None or not can_read:
        raise _missing_file(f"integration {integration.id}", upload_id)
    raise _rejected_file(upload)


def restore_artifact(
    storage: Storage, principal: Principal, *, integration_id: int, environment: str, upload_id: int
) -> Upload:
    """Make an earlier upload current again.

    Restoring the current upload changes nothing and is not recorded. Raises AccessDenied or
    NotFound. For a rejected upload, raises Conflict if the token has the scope read, otherwise
    NotFound.
    """
    integration = find_integration(storage, principal, integration_id)
    require_scope(principal, "upload", integration.id)
    selected = find_environment(integration, environment)
    find_verified_upload(storage, principal, integration, upload_id)
    with storage.database.write() as connection:
        instance_records.lock_instance(connection, principal.instance.id)
        require_valid_token(connection, principal)
        find_active_integration(connection, principal, integration.id)
        # Read the upload again, because retention may have removed it.
        upload = upload_records.find_upload(connection, upload_id)
        if upload is None or upload.environment_id != selected.id:
            raise _missing_file(f"{selected.name} of integration {integration.id}", upload_id)
        current = publication_records.find_current(connection, selected.id, upload.kind)
        if current is None or current.id != upload.id:
            _record_restore(connection, principal, integration, selected, upload)
    return upload


def _record_restore(
    connection: Connection,
    principal: Principal,
    integration: Integration,
    environment: Environment,
    upload: Upload,
) -> None:
    publication_records.make_current(
        connection,
        upload,
        since=utc_now(),
        reason=PublicationReason.RESTORE,
        token_id=principal.token.id,
    )
    record_event(
        connection,
        principal.instance.id,
        principal.actor,
        AuditAction.ARTIFACT_RESTORED,
        integration_id=integration.id,
        detail=f"{upload.kind.file_name} {upload.id} in {environment.name}",
    )
    project_name = None
    if upload.kind is Kind.MANIFEST:
        project_name = upload.metadata.project_name
    integration_records.record_publication(connection, integration.id, project_name=project_name)


def _missing_file(owner: str, upload_id: int) -> NotFound:
    return NotFound(
        f"{owner} has no file {upload_id}, or retention removed it. "
        "The history lists the files that are kept."
    )


def _rejected_file(upload: Upload) -> Conflict:
    message = f"file {upload.id} was rejected and was never current: {upload.refusal}"
    if upload.failed_checks:
        message += f" An admin can also accept it: `datapilot dbt integrations accept {upload.id}`."
    return Conflict(message)


def _candidate_environments(integration: Integration, name: str | None) -> Sequence[Environment]:
    """Return the environments to search.

    This is the environment with the given name. Without a name, it is PROD and then the others from
    old to new.
    """
    if name is not None:
        return [find_environment(integration, name)]
    return sorted(integration.environments, key=_is_not_production)


def _is_not_production(environment: Environment) -> bool:
    return normalize_name(environment.name) != "prod"


def _match_upload(
    environments: Sequence[Environment], upload: Upload, kind: Kind
) -> EnvironmentArtifact | None:
    for environment in environments:
        if environment.id == upload.environment_id and upload.kind is kind:
            return EnvironmentArtifact(environment, upload)
    return None


def _find_current(
    storage: Storage, environments: Sequence[Environment], query: ArtifactQuery
) -> EnvironmentArtifact | None:
    moment = None
    if query.at is not None:
        moment = _to_utc(query.at)
    with storage.database.read() as connection:
        for environment in environments:
            upload = publication_records.find_current(
                connection, environment.id, query.kind, at=moment
            )
            if upload is not None:
                return EnvironmentArtifact(environment, upload)
            if moment is not None:
                _check_removal(connection, environment, query.kind, moment)
    return None


def _check_removal(
    connection: Connection, environment: Environment, kind: Kind, moment: datetime
) -> None:
    """Raise NotFound when retention has removed the artifact that was current at a time."""
    if publication_records.is_removed(connection, environment.id, kind, at=moment):
        raise NotFound(
            f"retention removed the {kind.value} that was current in {environment.name} at "
            f"{_format_time(moment)}. The history lists the files that are kept."
        )


def _to_utc(moment: datetime) -> datetime:
    """Return a time in UTC. A time without a time zone is already in UTC.

    Raises UsageError when its year in UTC is out of range.
    """
    try:
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise UsageError("at: the time is not between the years 1 and 9999 in UTC") from None


def _format_time(moment: datetime) -> str:
    return _to_utc(moment).isoformat(timespec="seconds").replace("+00:00", "Z")
