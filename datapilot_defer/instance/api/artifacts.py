"""Routes for stored artifacts: return a download URL, and restore an earlier artifact."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.api.auth import CurrentPrincipal
from datapilot_defer.instance.api.models import (
    FileReference,
    PathId,
    QueryId,
    QueryText,
    artifact_body,
)
from datapilot_defer.instance.dependencies import BaseUrl, CurrentSettings, CurrentStorage
from datapilot_defer.instance.services import artifacts
from datapilot_defer.instance.services.artifacts import ArtifactQuery
from datapilot_defer.instance.services.signed_urls import Purpose, create_signed_url

router = APIRouter(tags=["integrations"])


@router.get(
    "/dbt/v1/fetch_artifact_url",
    description=(
        "Return a download URL for the current artifact of an environment, for an earlier file, "
        "or for the artifact that was current at a given time."
    ),
)
def fetch_artifact_url(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    settings: CurrentSettings,
    base_url: BaseUrl,
    artifact_type: Kind,
    dbt_core_integration_id: QueryId,
    dbt_core_integration_environment_type: QueryText | None = None,
    dbt_core_integration_file_id: QueryId | None = None,
    at: datetime | None = None,
) -> dict[str, object]:
    """Return a signed URL for an artifact, and its metadata."""
    query = ArtifactQuery(
        integration_id=dbt_core_integration_id,
        kind=artifact_type,
        environment=dbt_core_integration_environment_type,
        upload_id=dbt_core_integration_file_id,
        at=at,
    )
    artifact = artifacts.find_artifact(storage, principal, query)
    url = create_signed_url(
        principal.instance,
        artifact.upload.id,
        Purpose.DOWNLOAD,
        base_url=base_url,
    )
    return {
        "url": url,
        **artifact_body(artifact.upload, None, None),
        "integration_name": artifact.integration_name,
        "environment": artifact.environment.name,
    }


@router.post("/dbt/v1/project_integrations/{integration_id}/{environment}/restore")
def restore_artifact(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    integration_id: PathId,
    environment: str,
    body: FileReference,
) -> dict[str, object]:
    """Make an earlier file of an environment current again."""
    upload = artifacts.restore_artifact(
        storage,
        principal,
        integration_id=integration_id,
        environment=environment,
        upload_id=body.dbt_core_integration_file_id,
    )
    return {
        "ok": True,
        "sha256": upload.metadata.sha256,
        "dbt_core_integration_file_id": upload.id,
    }
