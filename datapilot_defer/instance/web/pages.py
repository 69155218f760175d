"""Routes of the web pages: integrations, environments with their history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import BaseUrl, CurrentStorage
from datapilot_defer.instance.services import artifacts, integrations, overviews
from datapilot_defer.instance.services.principal import require_scope
from datapilot_defer.instance.services.signed_urls import Purpose, create_signed_url
from datapilot_defer.instance.web import rendering
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import (
    CsrfCheckedSession,
    CurrentSession,
    Session,
)
from datapilot_defer.storage.integrations import Integration
from datapilot_defer.storage.tables import MAX_ID

router = APIRouter(include_in_schema=False)
INTEGRATIONS_PATH = "/settings/integrations"
_ENVIRONMENT_PATH = INTEGRATIONS_PATH + "/{integration_id}/{environment}"
# Integrations on one page; users search for the others.
_PAGE_SIZE = 100
FormText = Annotated[str, Form(max_length=2000)]
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]


@dataclass(frozen=True)
class EnvironmentSummary:
    """An environment on a page. command: uploads to it."""

    name: str
    path: str
    command: str


@router.get("/")
def home() -> Response:
    """Redirect to the integrations."""
    return RedirectResponse(INTEGRATIONS_PATH, 303)


@router.get(INTEGRATIONS_PATH)
def list_integrations(
    storage: CurrentStorage,
    session: CurrentSession,
    base_url: BaseUrl,
    q: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """List the integrations, each with the commands that upload to it."""
    listed = integrations.list_integrations(
        storage, session.principal, name_contains=q, limit=_PAGE_SIZE + 1
    )
    shown = [
        (integration, _environment_summaries(session, integration, base_url))
        for integration in listed[:_PAGE_SIZE]
    ]
    has_more = len(listed) > _PAGE_SIZE
    return render_page("integrations.html", session, shown=shown, has_more=has_more, q=q)


@router.post(INTEGRATIONS_PATH)
def add_integration(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    name: FormText,
    environment: FormText,
    integration_type: Annotated[Literal["dbt_core", "dbt_cloud"], Form()],
) -> Response:
    """Create an integration or add an environment to one, and show it."""
    integration = integrations.create_integration(
        storage,
        session.principal,
        name=name,
        environment=environment,
        integration_type=integration_type,
    )
    return RedirectResponse(environment_path(integration, environment.strip()), 303)


@router.get(_ENVIRONMENT_PATH)
def show_environment(
    storage: CurrentStorage,
    session: CurrentSession,
    base_url: BaseUrl,
    integration_id: PathId,
    environment: str,
) -> Response:
    """Show the current manifest of an environment, how to upload and defer, and its history."""
    overview = overviews.show_environment(
        storage,
        session.principal,
        integration_id=integration_id,
        environment=environment,
        include_rejected=True,
    )
    name = overview.environment.name
    instance_name = session.principal.instance.name
    return render_page(
        "environment.html",
        session,
        overview=overview,
        integration=overview.integration,
        environment=_environment_summary(session, overview.integration, name, base_url),
        settings=rendering.editor_settings(
            instance_name, base_url, integration_id=overview.integration.id
        ),
        defer=rendering.defer_commands(
            instance_name, base_url, integration_id=overview.integration.id, environment=name
        ),
    )


@router.post(_ENVIRONMENT_PATH + "/restore")
def restore(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    integration_id: PathId,
    environment: str,
    file_id: Annotated[int, Form(ge=1)],
) -> Response:
    """Make an earlier artifact current again."""
    integration = integrations.find_integration(storage, session.principal, integration_id)
    name = integrations.find_environment(integration, environment).name
    artifacts.restore_artifact(
        storage,
        session.principal,
        integration_id=integration_id,
        environment=name,
        upload_id=min(file_id, MAX_ID),
    )
    return RedirectResponse(environment_path(integration, name), 303)


@router.get(_ENVIRONMENT_PATH + "/files/{file_id}")
def download(
    storage: CurrentStorage,
    session: CurrentSession,
    base_url: BaseUrl,
    integration_id: PathId,
    environment: str,
    file_id: PathId,
) -> Response:
    """Redirect to a signed URL of an artifact."""
    principal = session.principal
    integration = integrations.find_integration(storage, principal, integration_id)
    integrations.find_environment(integration, environment)
    require_scope(principal, "read", integration.id)
    upload = artifacts.find_verified_upload(storage, integration, file_id)
    url = create_signed_url(principal.instance, upload.id, Purpose.DOWNLOAD, base_url=base_url)
    return RedirectResponse(url, 303)


@router.get("/docs")
def docs(request: Request) -> Response:
    """Describe the API for users; /openapi.json describes it for programs."""
    return render_page("docs.html", None, api=request.app.openapi())


def environment_path(integration: Integration, environment: str) -> str:
    """Return the path of an environment's page."""
    return f"{INTEGRATIONS_PATH}/{integration.id}/{quote(environment, safe='')}"


def _environment_summaries(
    session: Session, integration: Integration, base_url: str
) -> list[EnvironmentSummary]:
    return [
        _environment_summary(session, integration, environment.name, base_url)
        for environment in integration.environments
    ]


def _environment_summary(
    session: Session, integration: Integration, environment: str, base_url: str
) -> EnvironmentSummary:
    command = rendering.upload_command(
        session.principal.instance.name,
        base_url,
        integration_id=integration.id,
        environment=environment,
    )
    return EnvironmentSummary(environment, environment_path(integration, environment), command)
