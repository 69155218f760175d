"""The calls of one onboarding: a signed URL, the check that the file arrived whole, the start of ingestion."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, Field

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import ArtifactRefused, Unavailable
from datapilot_defer.instance.services import signed_urls, upload_checks
from datapilot_defer.instance.services.principal import CurrentPrincipal, Principal
from datapilot_defer.storage import ingestions, integrations, tokens, uploads
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.integrations import Integration
from datapilot_defer.storage.uploads import Upload

router = APIRouter(tags=["onboarding"])
Id = Annotated[int, Field(ge=1, le=signed_urls.MAX_ID)]
Text = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]


class VerifyUploadRequest(BaseModel):
    """What verify_upload is told; the public clients send the id alone."""

    dbt_core_integration_file_id: Id
    sha256: Text | None = None
    size_bytes: int | None = None
    commit: Text | None = None
    branch: Text | None = None
    build_url: Text | None = None
    force: bool = False


class EnvironmentReference(BaseModel):
    """One environment of one integration."""

    dbt_core_integration_id: Id
    dbt_core_integration_environment_type: Text


@router.get("/dbt/v1/signed_url")
def signed_url(
    caller: CurrentPrincipal,
    dbt_core_integration_id: Annotated[int, Query(ge=1, le=signed_urls.MAX_ID)],
    dbt_core_integration_environment_type: Annotated[str, Query(max_length=2000)],
    file_type: Kind,
) -> dict[str, object]:
    """Announce a file; gives the URL to PUT its bytes to."""
    caller.require_scope("upload", dbt_core_integration_id)
    integration = caller.integration(dbt_core_integration_id)
    environment = caller.environment(integration, dbt_core_integration_environment_type)
    with caller.records.write() as connection:
        file_id = uploads.create_upload(
            connection,
            environment_id=environment.id,
            token_id=caller.token.id,
            kind=file_type.value,
        )
    return {"url": signed_urls.upload_url(caller, file_id), "dbt_core_integration_file_id": file_id}


@router.post("/dbt/v1/verify_upload")
async def verify_upload_route(
    request: Request, caller: CurrentPrincipal, body: VerifyUploadRequest
) -> dict[str, object]:
    """Make an uploaded file current, if it arrived whole and no guard refuses it. Repeating it changes nothing."""
    return await to_thread.run_sync(
        verify_upload, caller, body, limiter=request.app.state.verifying
    )


@router.post("/dbt/v1/start_dbt_ingestion")
def start_dbt_ingestion(caller: CurrentPrincipal, body: EnvironmentReference) -> dict[str, object]:
    """Have the instance look at an environment's current files more closely; what it finds is in sync_history."""
    caller.require_scope("upload", body.dbt_core_integration_id)
    integration = caller.integration(body.dbt_core_integration_id)
    environment = caller.environment(integration, body.dbt_core_integration_environment_type)
    with caller.records.write() as connection:
        refused = uploads.find_last_rejected(
            connection, environment.id, caller.token.id, kind=Kind.MANIFEST.value
        )
        if refused:
            # altimate-datapilot-cli ignores verify_upload's answer; this one it reports.
            raise HTTPException(409, f"the last {refused.kind} was refused: {refused.refusal}")
        if not uploads.list_current(connection, environment.id):
            raise HTTPException(
                404,
                f"nothing was uploaded to integration {integration.id}, {environment.name}, yet",
            )
        ingestions.enqueue(connection, environment.id)
    return {"ok": True}


def verify_upload(caller: Principal, body: VerifyUploadRequest) -> dict[str, object]:
    file, integration = _find_own_upload(caller, body)
    if file.uploaded_at is not None:
        return _verified_body(file, unchanged=False)
    try:
        facts = upload_checks.recognised(
            caller.blobs.read(caller.owner.id, str(file.sha256)), Kind(file.kind)
        )
        return _verified_body(file, unchanged=_make_current(caller, file, integration, facts, body))
    except (ArtifactRefused, upload_checks.UnsafeUpload) as error:
        with caller.records.write() as connection:
            uploads.update_upload(connection, file.id, refusal=str(error))
        raise


def _find_own_upload(caller: Principal, body: VerifyUploadRequest) -> tuple[Upload, Integration]:
    """Give the caller's own upload, if it is what the caller says it is. Raises 403, 404, 422."""
    file_id = body.dbt_core_integration_file_id
    with caller.records.read() as connection:
        place, file = (
            uploads.locate_upload(connection, file_id),
            uploads.find_upload(connection, file_id),
        )
    if place is None or file is None or place[0] != caller.owner.id:
        raise HTTPException(404, f"instance {caller.owner.name!r} has no file {file_id}")
    caller.require_scope("upload", place[1])
    if file.token_id != caller.token.id:
        raise HTTPException(403, f"file {file_id} was announced with another token")
    if file.sha256 is None:
        raise HTTPException(
            422, f"file {file_id} did not arrive: PUT its bytes to the signed URL first"
        )
    if body.sha256 not in (None, file.sha256) or body.size_bytes not in (None, file.size_bytes):
        arrived = f"{file.size_bytes} bytes with sha256 {file.sha256}"
        raise HTTPException(
            422,
            f"what arrived as file {file_id} is not what was sent, but {arrived}; upload it again",
        )
    return file, caller.integration(place[1])


def _make_current(
    caller: Principal,
    file: Upload,
    integration: Integration,
    facts: upload_checks.Facts,
    body: VerifyUploadRequest,
) -> bool:
    """Make a file current; gives whether the same bytes were current before. Raises Guarded."""
    with caller.records.write() as connection:
        tokens.lock_instance(connection, caller.owner.id)
        known = uploads.find_upload(connection, file.id)
        if known and known.uploaded_at and known.sha256 == file.sha256:
            return False  # the same call, repeated, was faster
        if known != file:
            raise HTTPException(
                409, f"file {file.id} was uploaded again meanwhile: ask for a new signed URL"
            )
        before = uploads.find_current(connection, file.environment_id, file.kind)
        unchanged = before is not None and before.sha256 == file.sha256
        manifest = file.kind == Kind.MANIFEST.value
        if manifest and not body.force and not unchanged:
            # Read again: another upload may have decided which project this is.
            latest = integrations.find_integration(connection, caller.owner.id, integration.id)
            upload_checks.check_upload(latest or integration, before, facts)
        _check_blob_exists(caller, file)
        origin, moment = body.model_dump(include={"commit", "branch", "build_url"}), utc_now()
        uploads.update_upload(
            connection, file.id, uploaded_at=moment, refusal=None, **asdict(facts), **origin
        )
        uploads.make_current(connection, file, moment)
        project = facts.project_name if manifest else None
        integrations.record_publication(
            connection, integration.id, project_name=project, uploaded_at=moment
        )
    return unchanged


def _check_blob_exists(caller: Principal, file: Upload) -> None:
    """A record never appears without its blob: until the transaction ends, no sweep can take it."""
    if not caller.blobs.exists(caller.owner.id, str(file.sha256)):
        raise Unavailable(f"the bytes of file {file.id} are gone; upload it again")


def _verified_body(file: Upload, *, unchanged: bool) -> dict[str, object]:
    return {
        "ok": True,
        "dbt_core_integration_file_id": file.id,
        "sha256": file.sha256,
        "size_bytes": file.size_bytes,
        "unchanged": unchanged,
    }
