"""The calls about integrations: list, create, show, fetch what is current, restore what was."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydantic import BaseModel

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.api.uploads import Id, Text
from datapilot_defer.instance.services import signed_urls
from datapilot_defer.instance.services.principal import CurrentPrincipal, Principal
from datapilot_defer.storage import ingestions, integrations, tokens, uploads
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.ingestions import Ingestion
from datapilot_defer.storage.integrations import Environment, Integration
from datapilot_defer.storage.uploads import Upload

router = APIRouter(tags=["integrations"])
QueryId = Annotated[int, Query(ge=1, le=signed_urls.MAX_ID)]
PathId = Annotated[int, Path(ge=1, le=signed_urls.MAX_ID)]

# How much of the past one answer or page holds.
HISTORY_LIMIT = 100

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class NewIntegration(BaseModel):
    """An integration to make, or an environment to add to the one of this name."""

    name: Text
    environment: Text = "PROD"
    integration_type: Literal["dbt_core", "dbt_cloud"] = "dbt_core"


class RestoreRequest(BaseModel):
    """The file that shall be current again."""

    dbt_core_integration_file_id: Id


@router.get("/health", tags=["status"])
async def health() -> dict[str, str]:
    """Say that the instance runs; needs no token."""
    return {"status": "ok"}


@router.get("/ready", tags=["status"])
def ready(request: Request) -> dict[str, str]:
    """Say that records and blobs can be reached and ingestions are worked on, 503 when not; needs no token."""
    with request.app.state.records.read() as connection:
        tokens.list_instance_names(connection)
    request.app.state.blobs.exists(0, "0" * 64)
    if not request.app.state.worker.is_alive:
        raise Unavailable(
            "nothing works on ingestions any more: the instance's log says why; start it again"
        )
    return {"status": "ready"}


@router.post("/auth_health", tags=["status"])
@router.get("/dbt/v3/validate-credentials", tags=["status"])
def validate_credentials(caller: CurrentPrincipal) -> dict[str, object]:
    """Say that token and instance name are good."""
    return {"ok": True}


@router.get("/dbt/v1/validate-permissions", tags=["status"])
def validate_permissions(caller: CurrentPrincipal) -> dict[str, object]:
    """Say that the token may upload; 403 when it may not."""
    caller.require_scope("upload")
    return {"ok": True}


@router.post("/dbt/v1/defer_to_prod_event", tags=["status"])
def defer_to_prod_event(caller: CurrentPrincipal) -> dict[str, object]:
    """Take notice that somebody defers; nothing is kept of it."""
    return {"ok": True}


@router.get("/dbt/v1/project_integrations")
@router.get("/dbt/v1/project_integrations/", include_in_schema=False)
def list_integrations(caller: CurrentPrincipal) -> list[dict[str, object]]:
    """List the integrations that the token opens."""
    with caller.records.read() as connection:
        found = integrations.list_integrations(
            connection, caller.owner.id, only=caller.token.integration_id
        )
    return [integration_body(each) for each in found]


@router.post("/dbt/v1/project_integration")
def create_integration_route(caller: CurrentPrincipal, body: NewIntegration) -> dict[str, object]:
    """Make an integration; with the name of an existing one and a new environment: add the environment to it."""
    made = create_integration(caller, body)
    return {"dbt_core_integration_id": made.id, "integration_type": made.integration_type}


@router.get("/dbt/v1/project_integrations/{integration_id}/{environment}")
def show_environment(
    caller: CurrentPrincipal, integration_id: PathId, environment: str
) -> dict[str, object]:
    """Give one integration with an environment's history and ingestions, the newest first."""
    integration = caller.integration(integration_id)
    place = caller.environment(integration, environment)
    with caller.records.read() as connection:
        past = uploads.list_history(connection, place.id, limit=HISTORY_LIMIT)
        current = {each.id for each in uploads.list_current(connection, place.id)}
        ingested = ingestions.list_ingestions(connection, place.id, limit=HISTORY_LIMIT)
    return {
        **integration_body(integration),
        "environment": place.name,
        "sync_history": [ingestion_body(caller, integration, place, each) for each in ingested],
        "history": [artifact_body(file, name, file.id in current) for file, name in past],
    }


@router.get("/dbt/v1/fetch_artifact_url")
def fetch_artifact_url(
    caller: CurrentPrincipal,
    artifact_type: Kind,
    dbt_core_integration_id: QueryId,
    dbt_core_integration_environment_type: Annotated[str | None, Query(max_length=2000)] = None,
    dbt_core_integration_file_id: QueryId | None = None,
    at: datetime | None = None,
) -> dict[str, object]:
    """Give a URL of an environment's current artifact; or of an earlier file, or of the one current at a moment."""
    caller.require_scope("read", dbt_core_integration_id)
    integration = caller.integration(dbt_core_integration_id)
    places = _candidate_environments(caller, integration, dbt_core_integration_environment_type)
    with caller.records.read() as connection:
        if dbt_core_integration_file_id:
            found = find_verified_upload(caller, integration, dbt_core_integration_file_id)
            pairs = [
                (p, found)
                for p in places
                if p.id == found.environment_id and found.kind == artifact_type.value
            ]
        else:
            moment = _to_utc(at) if at else None
            pairs = [
                (p, f)
                for p in places
                if (f := uploads.find_current(connection, p.id, artifact_type.value, at=moment))
            ]
    if not pairs:
        raise HTTPException(
            404,
            f"integration {integration.id} has no such {artifact_type.value}: nothing was uploaded",
        )
    environment, file = pairs[0]
    described = artifact_body(file, None, None)
    return {
        "url": signed_urls.download_url(caller, file.id),
        **described,
        "environment": environment.name,
    }


@router.post("/dbt/v1/project_integrations/{integration_id}/{environment}/restore")
def restore_artifact_route(
    caller: CurrentPrincipal, integration_id: PathId, environment: str, body: RestoreRequest
) -> dict[str, object]:
    """Make an earlier file of an environment the current one again."""
    integration = caller.integration(integration_id)
    file = restore_artifact(caller, integration, environment, body.dbt_core_integration_file_id)
    return {"ok": True, "sha256": file.sha256, "dbt_core_integration_file_id": file.id}


def create_integration(caller: Principal, wanted: NewIntegration) -> Integration:
    """Make an integration, or add an environment to the one of this name. Raises 403, 409, 422."""
    caller.require_scope("admin")
    name, environment = (
        validate_name(wanted.name, "integration", 200),
        validate_name(wanted.environment, "environment", 64),
    )
    if "/" in environment or "\\" in environment or environment in (".", ".."):
        raise HTTPException(
            422, "an environment's name is a part of a path: no slash, no backslash, not only dots"
        )
    with caller.records.write() as connection:
        found = integrations.find_integration_by_name(connection, caller.owner.id, name)
        if found and found.environment(environment):
            raise HTTPException(
                409,
                f"integration {found.id} has this name, and an environment {environment}, already",
            )
        made = found or integrations.create_integration(
            connection, caller.owner.id, name=name, integration_type=wanted.integration_type
        )
        integrations.add_environment(connection, made.id, environment)
    return caller.integration(made.id)


def restore_artifact(
    caller: Principal, integration: Integration, environment: str, file_id: int
) -> Upload:
    """Make an earlier file the current one again. Raises 403, 404."""
    caller.require_scope("upload", integration.id)
    place, file = (
        caller.environment(integration, environment),
        find_verified_upload(caller, integration, file_id),
    )
    if file.environment_id != place.id:
        raise HTTPException(
            404, f"{place.name} of integration {integration.id} has no file {file_id}"
        )
    with caller.records.write() as connection:
        tokens.lock_instance(connection, caller.owner.id)
        uploads.make_current(connection, file, utc_now())
        project = file.project_name if file.kind == Kind.MANIFEST.value else None
        integrations.record_publication(connection, integration.id, project_name=project)
    return file


def find_verified_upload(caller: Principal, integration: Integration, file_id: int) -> Upload:
    """Give a verified file of an integration. Raises 404."""
    with caller.records.read() as connection:
        file = uploads.find_upload(connection, file_id)
    if (
        file is None
        or not file.uploaded_at
        or file.environment_id not in {e.id for e in integration.environments}
    ):
        raise HTTPException(
            404,
            f"integration {integration.id} has no file {file_id}; its history lists the ones it has",
        )
    return file


def validate_name(text: str, what: str, longest: int) -> str:
    """Give a name without spaces around it. Raises 422 when it is empty, too long or not printable."""
    name = text.strip()
    if not 1 <= len(name) <= longest or _UNPRINTABLE.search(name):
        raise HTTPException(422, f"the name of an {what} has 1 to {longest} printable characters")
    return name


def _to_utc(at: datetime) -> datetime:
    """Give a moment in UTC, which it is in when it names no zone. Raises 422 when UTC has no year for it."""
    try:
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise HTTPException(422, "at: no moment between the years 1 and 9999 in UTC") from None


def _candidate_environments(
    caller: Principal, integration: Integration, name: str | None
) -> list[Environment]:
    """Give the environment that is meant; when none is named PROD first, then the others as they were made."""
    if name is not None:
        return [caller.environment(integration, name)]
    return sorted(
        integration.environments, key=lambda each: integrations.normalize_name(each.name) != "prod"
    )


def integration_body(integration: Integration) -> dict[str, object]:
    return {
        "id": integration.id,
        "name": integration.name,
        "environments": [
            {"id": each.id, "environment_type": each.name, "created_at": each.created_at}
            for each in integration.environments
        ],
        "created_at": integration.created_at,
        "last_modified_at": integration.last_modified_at,
        "last_file_upload_time": integration.last_file_upload_time,
        "is_deleted": False,
        "integration_type": integration.integration_type,
        "project_name": integration.project_name,
    }


_ARTIFACT_FIELDS = (
    *(
        "sha256",
        "size_bytes",
        "dbt_version",
        "schema_version",
        "project_name",
        "node_count",
        "model_count",
    ),
    *("generated_at", "invocation_id", "uploaded_at", "commit", "branch", "build_url", "ingestion"),
)


def artifact_body(file: Upload, token_name: str | None, current: bool | None) -> dict[str, object]:
    about = {
        "dbt_core_integration_file_id": file.id,
        "file_type": file.kind,
        "token_name": token_name,
    }
    return {**about, "current": current, **{name: getattr(file, name) for name in _ARTIFACT_FIELDS}}


def ingestion_body(
    caller: Principal, integration: Integration, place: Environment, ingestion: Ingestion
) -> dict[str, object]:
    """The public clients know three words; one that waits is in progress to them."""
    from urllib.parse import quote

    shown = ingestions.IN_PROGRESS if ingestion.status == ingestions.QUEUED else ingestion.status
    page = f"{caller.base_url}/settings/integrations/{integration.id}/{quote(place.name)}"
    log = f"{page}/ingestions/{ingestion.id}" if ingestion.log else None
    return {"type": shown, "time": ingestion.finished_at or ingestion.created_at, "log_file": log}
