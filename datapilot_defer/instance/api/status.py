"""Routes about the instance and the token: health, readiness, credentials, permissions."""

from __future__ import annotations

from fastapi import APIRouter, Request

from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.api.auth import CurrentPrincipal
from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.services.instances import list_instance_names
from datapilot_defer.instance.services.principal import require_scope

router = APIRouter(tags=["integrations", "status"])


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def health() -> dict[str, str]:
    """Report that the instance runs; needs no token."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    description=(
        "Report whether database, blob store and background work are available: 503 when not. "
        "Needs no token."
    ),
)
def ready(request: Request, storage: CurrentStorage) -> dict[str, str]:
    """Check database, blob store and background thread. Raises Unavailable."""
    list_instance_names(storage)
    storage.blobs.exists(0, "0" * 64)
    if not request.app.state.background.is_alive:
        raise Unavailable(
            "the background work of the instance has stopped: its log has the reason. Restart it."
        )
    return {"status": "ready"}


@router.post("/auth_health")
@router.get("/dbt/v3/validate-credentials")
def validate_credentials(principal: CurrentPrincipal) -> dict[str, object]:
    """Report that token and instance name are valid, and when the token expires."""
    return {"ok": True, "token_expires_at": principal.token.expires_at}


@router.get("/dbt/v1/validate-permissions")
def validate_permissions(principal: CurrentPrincipal) -> dict[str, object]:
    """Report that the token may upload; 403 when it may not."""
    require_scope(principal, "upload")
    return {"ok": True}


@router.post("/dbt/v1/defer_to_prod_event")
def defer_to_prod_event(principal: CurrentPrincipal) -> dict[str, object]:
    """Accept the report of a client that it defers; nothing is stored."""
    return {"ok": True}
