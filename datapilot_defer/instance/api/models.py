"""Request and response bodies of the API, and types of its parameters."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Path, Query
from pydantic import BaseModel, Field

from datapilot_defer.instance.services.overviews import EnvironmentOverview
from datapilot_defer.storage.integrations import Integration, UploadCheck
from datapilot_defer.storage.publications import Publication
from datapilot_defer.storage.tables import MAX_ID
from datapilot_defer.storage.uploads import Upload

Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Text = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]
QueryId = Annotated[int, Query(ge=1, le=MAX_ID)]
QueryText = Annotated[str, Query(max_length=2000)]
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]


class VerifyUploadRequest(BaseModel):
    """The request body of verify_upload. The public clients send only the id."""

    dbt_core_integration_file_id: Id
    sha256: Text | None = None
    size_bytes: int | None = None
    commit: Text | None = None
    branch: Text | None = None
    build_url: Text | None = None
    allow: list[UploadCheck] = Field(default=[], max_length=20)
    force: bool = False


class EnvironmentReference(BaseModel):
    """One environment of one integration."""

    dbt_core_integration_id: Id
    dbt_core_integration_environment_type: Text


class NewIntegration(BaseModel):
    """An integration to create, or an environment to add to the integration with this name."""

    name: Text
    environment: Text = "PROD"
    integration_type: Literal["dbt_core", "dbt_cloud"] = "dbt_core"


class NewName(BaseModel):
    """The new name of an integration."""

    name: Text


class DisabledChecks(BaseModel):
    """The checks that uploads to an environment skip."""

    disabled: list[UploadCheck] = Field(max_length=20)


class FileReference(BaseModel):
    """One uploaded file."""

    dbt_core_integration_file_id: Id


def integration_body(integration: Integration) -> dict[str, object]:
    """Return an integration as a response body."""
    environments = [
        {
            "id": environment.id,
            "environment_type": environment.name,
            "created_at": environment.created_at,
        }
        for environment in integration.environments
    ]
    return {
        "id": integration.id,
        "name": integration.name,
        "environments": environments,
        "created_at": integration.created_at,
        "last_modified_at": integration.last_modified_at,
        "last_file_upload_time": integration.last_file_upload_time,
        "is_deleted": integration.deleted_at is not None,
        "deleted_at": integration.deleted_at,
        "purge_at": integration.purge_at,
        "integration_type": integration.integration_type,
        "project_name": integration.project_name,
    }


def artifact_body(
    upload: Upload, token_name: str | None, is_current: bool | None
) -> dict[str, object]:
    """Return a verified or rejected upload as a response body."""
    metadata = upload.metadata
    status = "accepted"
    if upload.uploaded_at is None:
        status = "rejected"
    provenance = upload.provenance
    return {
        "dbt_core_integration_file_id": upload.id,
        "file_type": metadata.kind,
        "token_name": token_name,
        "current": is_current,
        "sha256": metadata.sha256,
        "size_bytes": metadata.size_bytes,
        "dbt_version": metadata.dbt_version,
        "schema_version": metadata.schema_version,
        "project_name": metadata.project_name,
        "node_count": metadata.node_count,
        "model_count": metadata.model_count,
        "generated_at": metadata.generated_at,
        "invocation_id": metadata.invocation_id,
        "created_at": upload.created_at,
        "uploaded_at": upload.uploaded_at,
        "commit": provenance.commit,
        "branch": provenance.branch,
        "build_url": provenance.build_url,
        "status": status,
        "rejection": upload.rejection,
        "refusal": upload.refusal,
    }


def sync_body(overview: EnvironmentOverview, upload: Upload, base_url: str) -> dict[str, object]:
    """Return an upload as an entry of `sync_history`, which the public clients read."""
    status = "Completed"
    if upload.uploaded_at is None:
        status = "Failed"
    environment = quote(overview.environment.name, safe="")
    path = f"settings/integrations/{overview.integration.id}/{environment}/uploads/{upload.id}"
    return {
        "type": status,
        "time": upload.uploaded_at or upload.created_at,
        "log_file": f"{base_url}/{path}",
    }


def publication_body(publication: Publication) -> dict[str, object]:
    """Return when, why and by which token an upload became current, as a response body."""
    return {
        "dbt_core_integration_file_id": publication.upload_id,
        "file_type": publication.kind,
        "since": publication.since,
        "reason": publication.reason,
        "token_name": publication.token_name,
    }
