"""Routes of an upload's page, and of the pages that restore and accept an upload."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.services import artifacts, overviews, uploads
from datapilot_defer.instance.services.conflicts import Conflict
from datapilot_defer.instance.services.overviews import UploadOverview
from datapilot_defer.instance.services.principal import require_scope
from datapilot_defer.instance.web.paths import (
    INTEGRATIONS_PATH,
    PathId,
    environment_path,
    upload_path,
)
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import CsrfCheckedSession, CurrentSession, Session
from datapilot_defer.storage import Storage

router = APIRouter(include_in_schema=False)
_UPLOAD_PATH = INTEGRATIONS_PATH + "/{integration_id}/{environment}/uploads/{upload_id}"


@router.get(_UPLOAD_PATH)
def show_upload(
    storage: CurrentStorage,
    session: CurrentSession,
    integration_id: PathId,
    environment: str,
    upload_id: PathId,
) -> Response:
    """Show the facts of an upload and what its verification found."""
    overview = _find_upload(storage, session, integration_id, environment, upload_id)
    return _render("upload.html", session, overview)


@router.get(_UPLOAD_PATH + "/restore")
def confirm_restore(
    storage: CurrentStorage,
    session: CurrentSession,
    integration_id: PathId,
    environment: str,
    upload_id: PathId,
) -> Response:
    """Ask for confirmation before an earlier upload becomes current again."""
    require_scope(session.principal, "upload", integration_id)
    overview = _find_upload(storage, session, integration_id, environment, upload_id)
    if overview.is_current:
        raise Conflict(f"upload {upload_id} is current already")
    if overview.upload.uploaded_at is None:
        raise Conflict(f"upload {upload_id} was rejected: it can only be accepted")
    return _render("confirm_restore.html", session, overview)


@router.post(_UPLOAD_PATH + "/restore")
def restore(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    integration_id: PathId,
    environment: str,
    upload_id: PathId,
) -> Response:
    """Make an earlier upload current again."""
    overview = _find_upload(storage, session, integration_id, environment, upload_id)
    artifacts.restore_artifact(
        storage,
        session.principal,
        integration_id=integration_id,
        environment=overview.environment.name,
        upload_id=upload_id,
    )
    return _redirect(overview, "restored")


@router.get(_UPLOAD_PATH + "/accept")
def confirm_accept(
    storage: CurrentStorage,
    session: CurrentSession,
    integration_id: PathId,
    environment: str,
    upload_id: PathId,
) -> Response:
    """Ask for confirmation before a rejected upload becomes current."""
    require_scope(session.principal, "admin")
    overview = _find_upload(storage, session, integration_id, environment, upload_id)
    if not overview.upload.failed_checks:
        raise Conflict(f"upload {upload_id} cannot be accepted: no upload check rejected it")
    return _render("confirm_accept.html", session, overview)


@router.post(_UPLOAD_PATH + "/accept")
def accept(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    integration_id: PathId,
    environment: str,
    upload_id: PathId,
) -> Response:
    """Make a rejected upload current."""
    overview = _find_upload(storage, session, integration_id, environment, upload_id)
    uploads.accept_upload(storage, session.principal, upload_id)
    return _redirect(overview, "accepted")


def _find_upload(
    storage: Storage, session: Session, integration_id: int, environment: str, upload_id: int
) -> UploadOverview:
    return overviews.show_upload(
        storage,
        session.principal,
        integration_id=integration_id,
        environment=environment,
        upload_id=upload_id,
    )


def _render(template: str, session: Session, overview: UploadOverview) -> Response:
    integration = overview.integration
    return render_page(
        template,
        session,
        overview=overview,
        upload=overview.upload,
        integration=integration,
        environment=overview.environment,
        back=environment_path(integration, overview.environment),
        path=upload_path(integration, overview.environment, overview.upload.id),
    )


def _redirect(overview: UploadOverview, done: str) -> Response:
    path = environment_path(overview.integration, overview.environment)
    return RedirectResponse(f"{path}?done={done}", 303)
