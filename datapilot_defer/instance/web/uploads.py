"""Routes of the upload page, and of the pages for restoring and accepting an upload."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
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

router = APIRouter(include_in_schema=False)
_UPLOAD_PATH = INTEGRATIONS_PATH + "/{integration_id}/{environment}/uploads/{upload_id}"


def _current_upload(
    storage: CurrentStorage,
    session: CurrentSession,
    integration_id: PathId,
    environment: str,
    upload_id: PathId,
) -> UploadOverview:
    """Return the upload whose id is in the path of a page."""
    return overviews.show_upload(
        storage,
        session.principal,
        integration_id=integration_id,
        environment=environment,
        upload_id=upload_id,
    )


CurrentUpload = Annotated[UploadOverview, Depends(_current_upload)]


@router.get(_UPLOAD_PATH)
def show_upload(session: CurrentSession, overview: CurrentUpload) -> Response:
    """Show the details of an upload and its verification report."""
    return _render("upload.html", session, overview)


@router.get(_UPLOAD_PATH + "/restore")
def confirm_restore(session: CurrentSession, overview: CurrentUpload) -> Response:
    """Ask for confirmation before making an earlier upload current again."""
    require_scope(session.principal, "upload", overview.integration.id)
    if overview.is_current:
        raise Conflict(f"upload {overview.upload.id} is already current")
    if overview.upload.uploaded_at is None:
        raise Conflict(f"upload {overview.upload.id} cannot be restored: it was rejected")
    return _render("confirm_restore.html", session, overview)


@router.post(_UPLOAD_PATH + "/restore")
def restore(
    storage: CurrentStorage, session: CsrfCheckedSession, overview: CurrentUpload
) -> Response:
    """Make an earlier upload current again."""
    artifacts.restore_artifact(
        storage,
        session.principal,
        integration_id=overview.integration.id,
        environment=overview.environment.name,
        upload_id=overview.upload.id,
    )
    return _redirect(overview, "restored")


@router.get(_UPLOAD_PATH + "/accept")
def confirm_accept(session: CurrentSession, overview: CurrentUpload) -> Response:
    """Ask for confirmation before making a rejected upload current."""
    require_scope(session.principal, "admin")
    if not overview.upload.failed_checks:
        raise Conflict(
            f"upload {overview.upload.id} cannot be accepted: no upload check rejected it"
        )
    return _render("confirm_accept.html", session, overview)


@router.post(_UPLOAD_PATH + "/accept")
def accept(
    storage: CurrentStorage, session: CsrfCheckedSession, overview: CurrentUpload
) -> Response:
    """Make a rejected upload current."""
    uploads.accept_upload(storage, session.principal, overview.upload.id)
    return _redirect(overview, "accepted")


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
