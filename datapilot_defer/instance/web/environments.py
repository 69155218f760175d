"""Routes of the environment page: current manifest, history, downloads and upload checks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import UsageError
from datapilot_defer.instance.dependencies import BaseUrl, CurrentStorage
from datapilot_defer.instance.services import artifacts, integrations, overviews
from datapilot_defer.instance.services.overviews import EnvironmentOverview
from datapilot_defer.instance.services.principal import require_scope
from datapilot_defer.instance.services.signed_urls import Purpose, create_signed_url
from datapilot_defer.instance.web.paths import (
    INTEGRATIONS_PATH,
    Done,
    PathId,
    environment_path,
)
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import CsrfCheckedSession, CurrentSession
from datapilot_defer.instance.web.snippets import Snippets
from datapilot_defer.storage.integrations import UploadCheck
from datapilot_defer.storage.publications import Publication, PublicationReason
from datapilot_defer.storage.uploads import Upload

router = APIRouter(include_in_schema=False)
_ENVIRONMENT_PATH = INTEGRATIONS_PATH + "/{integration_id}/{environment}"
_CHECK_DESCRIPTIONS = {
    UploadCheck.OLDER: "Reject a manifest that is older than the current one.",
    UploadCheck.SMALLER: "Reject a manifest with less than half as many models as the current one.",
    UploadCheck.PROJECT: "Reject a manifest of another dbt project.",
    UploadCheck.RELATIONS: "Reject a manifest in which most relations moved to another database "
    "or schema. Turn this off if each run uses a different schema.",
}


@dataclass(frozen=True)
class HistoryEntry:
    """A row of the history: an upload, or the restore of an earlier upload.

    accepted_by: the name of the token that accepted the upload after a check rejected it.
    """

    at: datetime
    upload: Upload | None = None
    token_name: str = ""
    accepted_by: str | None = None
    restore: Publication | None = None


@router.get(_ENVIRONMENT_PATH)
def show_environment(
    storage: CurrentStorage,
    session: CurrentSession,
    base_url: BaseUrl,
    integration_id: PathId,
    environment: str,
    kind: Kind | None = None,
    done: Done = "",
) -> Response:
    """Show an environment's current manifest and history, and how to upload and defer."""
    overview = overviews.show_environment(
        storage,
        session.principal,
        integration_id=integration_id,
        environment=environment,
        kind=kind,
        include_rejected=True,
    )
    integration = overview.integration
    name = overview.environment.name
    return render_page(
        "environment.html",
        session,
        done=done,
        overview=overview,
        integration=integration,
        environment=overview.environment,
        path=environment_path(integration, name),
        environment_path=environment_path,
        snippets=Snippets(session.principal.instance.name, base_url, integration.id, name),
        history=_history_entries(overview),
        history_limit=overviews.HISTORY_LIMIT,
        kinds=list(Kind),
        shown_kind=kind,
        checks=_CHECK_DESCRIPTIONS,
    )


@router.post(_ENVIRONMENT_PATH + "/checks")
def set_checks(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    integration_id: PathId,
    environment: str,
    enabled: Annotated[list[str] | None, Form(max_length=10)] = None,
) -> Response:
    """Enable the selected upload checks of an environment, and disable all others."""
    names = set(enabled or ())
    if names - set(UploadCheck):
        raise UsageError(f"unknown upload check. The upload checks are: {', '.join(UploadCheck)}.")
    disabled = frozenset(check for check in UploadCheck if check.value not in names)
    integrations.set_disabled_checks(
        storage,
        session.principal,
        integration_id=integration_id,
        environment=environment,
        disabled=disabled,
    )
    integration = integrations.find_integration(storage, session.principal, integration_id)
    return RedirectResponse(environment_path(integration, environment) + "?done=checks", 303)


@router.get(_ENVIRONMENT_PATH + "/checks")
def show_checks(session: CurrentSession, integration_id: PathId, environment: str) -> Response:
    """Redirect to the page with the form, for a browser that returns to this path after sign-in."""
    return RedirectResponse(f"{INTEGRATIONS_PATH}/{integration_id}/{quote(environment)}", 303)


@router.get(_ENVIRONMENT_PATH + "/files/{file_id}")
def download(
    storage: CurrentStorage,
    session: CurrentSession,
    base_url: BaseUrl,
    integration_id: PathId,
    environment: str,
    file_id: PathId,
) -> Response:
    """Redirect to a signed URL for downloading an artifact."""
    principal = session.principal
    integration = integrations.find_integration(storage, principal, integration_id)
    integrations.find_environment(integration, environment)
    require_scope(principal, "read", integration.id)
    upload = artifacts.find_verified_upload(storage, principal, integration, file_id)
    url = create_signed_url(
        principal.instance,
        upload.id,
        Purpose.DOWNLOAD,
        base_url=base_url,
    )
    return RedirectResponse(url, 303)


def _history_entries(overview: EnvironmentOverview) -> list[HistoryEntry]:
    """Return the uploads and restores of an overview, newest first."""
    accepted_by: dict[int, str] = {}
    restores: list[Publication] = []
    for publication in overview.publications:
        if publication.reason == PublicationReason.RESTORE:
            restores.append(publication)
        elif publication.reason == PublicationReason.ACCEPT and publication.upload_id is not None:
            accepted_by[publication.upload_id] = publication.token_name or "an unknown token"
    entries = [
        HistoryEntry(upload.created_at, upload, token_name, accepted_by.get(upload.id))
        for upload, token_name in overview.history
    ]
    is_cut = len(entries) >= overviews.HISTORY_LIMIT
    for restore in restores:
        # Restores before the oldest displayed upload belong to the part that is not displayed.
        if not is_cut or restore.since >= entries[-1].at:
            entries.append(HistoryEntry(restore.since, restore=restore))
    return sorted(entries, key=_entry_time, reverse=True)


def _entry_time(entry: HistoryEntry) -> datetime:
    return entry.at
