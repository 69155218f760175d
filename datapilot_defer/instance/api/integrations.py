"""Routes for listing, creating, showing, changing, deleting and undeleting integrations."""

from __future__ import annotations

from fastapi import APIRouter

from datapilot_defer.instance.api.auth import CurrentPrincipal
from datapilot_defer.instance.api.models import (
    DisabledChecks,
    NewIntegration,
    NewName,
    PathId,
    artifact_body,
    integration_body,
    publication_body,
    sync_body,
)
from datapilot_defer.instance.dependencies import BaseUrl, CurrentStorage
from datapilot_defer.instance.services import integrations, overviews

router = APIRouter(tags=["integrations"])


@router.get("/dbt/v1/project_integrations")
@router.get("/dbt/v1/project_integrations/", include_in_schema=False)
def list_integrations(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    include_deleted: bool = False,
) -> list[dict[str, object]]:
    """List the integrations that the token permits. An admin can include deleted ones."""
    listed = list(integrations.list_integrations(storage, principal))
    if include_deleted:
        listed += integrations.list_deleted_integrations(storage, principal)
    return [integration_body(integration) for integration in listed]


@router.post(
    "/dbt/v1/project_integration",
    description=(
        "Create an integration. If an integration with this name exists, add the environment to it."
    ),
)
def create_integration(
    storage: CurrentStorage, principal: CurrentPrincipal, body: NewIntegration
) -> dict[str, object]:
    """Create an integration, or add an environment to an existing one."""
    integration = integrations.create_integration(
        storage,
        principal,
        name=body.name,
        environment=body.environment,
        integration_type=body.integration_type,
    )
    return {
        "dbt_core_integration_id": integration.id,
        "integration_type": integration.integration_type,
    }


@router.get("/dbt/v1/project_integrations/{integration_id}/{environment}")
def show_environment(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    base_url: BaseUrl,
    integration_id: PathId,
    environment: str,
    include_rejected: bool = False,
) -> dict[str, object]:
    """Return an integration and the uploads of one of its environments, newest first."""
    overview = overviews.show_environment(
        storage,
        principal,
        integration_id=integration_id,
        environment=environment,
        include_rejected=include_rejected,
    )
    return {
        **integration_body(overview.integration),
        "environment": overview.environment.name,
        "disabled_checks": sorted(overview.environment.disabled_checks),
        "sync_history": [
            sync_body(overview, upload, base_url) for upload in overview.verifications
        ],
        "history": [
            artifact_body(upload, token_name, overview.is_current(upload))
            for upload, token_name in overview.history
        ],
        "publications": [publication_body(publication) for publication in overview.publications],
    }


@router.patch("/dbt/v1/project_integrations/{integration_id}")
def rename_integration(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    integration_id: PathId,
    body: NewName,
) -> dict[str, object]:
    """Rename an integration. Requires the scope admin."""
    integration = integrations.rename_integration(
        storage, principal, integration_id=integration_id, name=body.name
    )
    return integration_body(integration)


@router.delete("/dbt/v1/project_integrations/{integration_id}")
def delete_integration(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    integration_id: PathId,
) -> dict[str, object]:
    """Delete an integration. This can be undone until `purge_at`. Requires the scope admin."""
    integration = integrations.delete_integration(storage, principal, integration_id=integration_id)
    return {"ok": True, **integration_body(integration)}


@router.post("/dbt/v1/project_integrations/{integration_id}/undelete")
def undelete_integration(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    integration_id: PathId,
) -> dict[str, object]:
    """Undo the deletion of an integration. Requires the scope admin."""
    integration = integrations.undelete_integration(
        storage, principal, integration_id=integration_id
    )
    return integration_body(integration)


@router.post("/dbt/v1/project_integrations/{integration_id}/{environment}/checks")
def set_disabled_checks(
    storage: CurrentStorage,
    principal: CurrentPrincipal,
    integration_id: PathId,
    environment: str,
    body: DisabledChecks,
) -> dict[str, object]:
    """Set the checks that uploads to an environment skip. Requires the scope admin."""
    changed = integrations.set_disabled_checks(
        storage,
        principal,
        integration_id=integration_id,
        environment=environment,
        disabled=frozenset(body.disabled),
    )
    return {"ok": True, "disabled_checks": sorted(changed.disabled_checks)}
