"""Routes for onboarding: announce an upload, verify it, check the onboarding, accept an upload."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool

from datapilot_defer.artifact import Kind, Provenance
from datapilot_defer.instance.api.auth import CurrentPrincipal
from datapilot_defer.instance.api.models import (
    EnvironmentReference,
    FileReference,
    QueryId,
    QueryText,
    VerifyUploadRequest,
)
from datapilot_defer.instance.dependencies import BaseUrl, CurrentSettings, CurrentStorage
from datapilot_defer.instance.services import uploads
from datapilot_defer.instance.services.publishing import UploadClaim
from datapilot_defer.instance.services.signed_urls import Purpose, create_signed_url
from datapilot_defer.instance.services.uploads import VerifiedUpload
from datapilot_defer.storage.integrations import UploadCheck

router = APIRouter(tags=["onboarding"])


@router.get("/dbt/v1/signed_url")
def signed_url(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    settings: CurrentSettings,
    base_url: BaseUrl,
    dbt_core_integration_id: QueryId,
    dbt_core_integration_environment_type: QueryText,
    file_type: Kind,
) -> dict[str, object]:
    """Announce a file, and return the URL for uploading it with PUT."""
    upload_id = uploads.announce_upload(
        storage,
        principal,
        integration_id=dbt_core_integration_id,
        environment=dbt_core_integration_environment_type,
        kind=file_type,
        max_stored_bytes=settings.max_stored_bytes,
    )
    url = create_signed_url(
        principal.instance,
        upload_id,
        Purpose.UPLOAD,
        base_url=base_url,
    )
    return {"url": url, "dbt_core_integration_file_id": upload_id}


@router.post(
    "/dbt/v1/verify_upload",
    description=(
        "Make an uploaded file current if it is complete, valid and passes the checks. "
        "Repeating the call changes nothing."
    ),
)
async def verify_upload(
    request: Request,
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    body: VerifyUploadRequest,
) -> dict[str, object]:
    """Verify an upload in a thread. Requests that wait for their turn do not occupy a thread."""
    allow = frozenset(body.allow)
    if body.force:
        allow = frozenset(UploadCheck)
    claim = UploadClaim(
        upload_id=body.dbt_core_integration_file_id,
        sha256=body.sha256,
        size_bytes=body.size_bytes,
        provenance=Provenance(body.commit, body.branch, body.build_url),
        allow=allow,
    )
    state = request.app.state
    async with state.verifications.of_token(principal.token.id), state.verifying:
        if await request.is_disconnected():
            raise HTTPException(400, "the client closed the connection before the verification")
        verified = await run_in_threadpool(
            uploads.verify_upload, storage, state.verification, principal, claim
        )
    return _verified_body(verified)


@router.post(
    "/dbt/v1/start_dbt_ingestion",
    description=(
        "Report whether the token's last uploads to an environment became current. "
        "The status is 409, with the reason, if the last one was rejected."
    ),
)
def start_dbt_ingestion(
    storage: CurrentStorage, principal: CurrentPrincipal, body: EnvironmentReference
) -> dict[str, object]:
    """Check the uploads of an onboarding, which have already been verified."""
    uploads.check_onboarding(
        storage,
        principal,
        integration_id=body.dbt_core_integration_id,
        environment=body.dbt_core_integration_environment_type,
    )
    return {"ok": True}


@router.post("/dbt/v1/accept_upload")
def accept_upload(
    storage: CurrentStorage, principal: CurrentPrincipal, body: FileReference
) -> dict[str, object]:
    """Accept an upload that a check rejected, and make it current. Requires the scope admin."""
    upload, integration = uploads.accept_upload(
        storage, principal, body.dbt_core_integration_file_id
    )
    environments = {environment.id: environment.name for environment in integration.environments}
    return {
        "ok": True,
        "dbt_core_integration_file_id": upload.id,
        "sha256": upload.metadata.sha256,
        "dbt_core_integration_id": integration.id,
        "environment": environments[upload.environment_id],
    }


def _verified_body(verified: VerifiedUpload) -> dict[str, object]:
    upload = verified.upload
    return {
        "ok": True,
        "dbt_core_integration_file_id": upload.id,
        "sha256": upload.metadata.sha256,
        "size_bytes": upload.metadata.size_bytes,
        "unchanged": verified.unchanged,
    }
