"""Routes that check the instance and the token: health, readiness, credentials, permissions."""

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
    """Report that the instance is running. Requires no token."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    description=(
        "Report whether the database, the blob store and the background thread are available. "
        "The status is 503 if not. Requires no token."
    ),
)
def ready(request: Request, storage: CurrentStorage) -> dict[str, str]:
    """Raise Unavailable unless the database, blob store and background thread are available."""
    list_instance_names(storage)
    storage.blobs.exists(0, "0" * 64)
    if not request.app.state.background.is_alive:
        raise Unavailable(
            "the background thread of the instance has stopped. Its log contains the reason. "
            "Restart the instance."
        )
    return {"status": "ready"}


@router.post("/auth_health")
@router.get("/dbt/v3/validate-credentials")
def validate_credentials(principal: CurrentPrincipal) -> dict[str, object]:
    """Report that the token and the instance name are valid, and when the token expires."""
    return {"ok": True, "token_expires_at": principal.token.expires_at}


@router.get("/dbt/v1/validate-permissions")
def validate_permissions(principal: CurrentPrincipal) -> dict[str, object]:
    """Report that the token has the scope upload. The status is 403 if it does not."""
    require_scope(principal, "upload")
    return {"ok": True}


@router.post("/dbt/v1/defer_to_prod_event")
def defer_to_prod_event(principal: CurrentPrincipal) -> dict[str, object]:
    """Accept a client's report that it defers. Nothing is stored."""
    return {"ok": True}
