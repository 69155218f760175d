"""The route of the page with the audit log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.services import audit
from datapilot_defer.instance.web.paths import AUDIT_PATH, integration_path
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import CurrentSession
from datapilot_defer.storage.tables import MAX_ID

router = APIRouter(include_in_schema=False)
_PAGE_SIZE = 50


@router.get(AUDIT_PATH)
def list_events(
    storage: CurrentStorage,
    session: CurrentSession,
    before: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> Response:
    """List the entries of the audit log, newest first."""
    events = audit.list_events(storage, session.principal, limit=_PAGE_SIZE + 1, before_id=before)
    shown = events[:_PAGE_SIZE]
    older_path = None
    if len(events) > _PAGE_SIZE:
        older_path = f"{AUDIT_PATH}?before={shown[-1].id}"
    return render_page(
        "audit.html",
        session,
        events=shown,
        is_first=before is None,
        older_path=older_path,
        integration_path=integration_path,
    )
