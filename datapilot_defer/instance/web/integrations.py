"""Routes of the pages that list, create, change, delete and undelete integrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.errors import DatapilotError, UsageError
from datapilot_defer.instance.dependencies import CurrentSettings, CurrentStorage
from datapilot_defer.instance.services import integrations, overviews, quota
from datapilot_defer.instance.services.principal import require_scope
from datapilot_defer.instance.web.paths import (
    INTEGRATIONS_PATH,
    Done,
    FormText,
    PathId,
    environment_path,
    integration_path,
)
from datapilot_defer.instance.web.rendering import render_error, render_page
from datapilot_defer.instance.web.session import CsrfCheckedSession, CurrentSession, Session
from datapilot_defer.storage.integrations import Integration, normalize_name
from datapilot_defer.storage.tables import MAX_ID

router = APIRouter(include_in_schema=False)
_PAGE_SIZE = 50
_ADD_PATH = INTEGRATIONS_PATH + "/add"
# The id comes last in these paths, because an integration's id followed by a name is the path of an
# environment.
_RENAME_PATH = INTEGRATIONS_PATH + "/rename/{integration_id}"
_DELETE_PATH = INTEGRATIONS_PATH + "/delete/{integration_id}"
_UNDELETE_PATH = INTEGRATIONS_PATH + "/undelete/{integration_id}"
_ADD_ENVIRONMENT_PATH = INTEGRATIONS_PATH + "/add-environment/{integration_id}"
_TYPES = ("dbt_core", "dbt_cloud")


def _current_integration(
    storage: CurrentStorage, session: CurrentSession, integration_id: PathId
) -> Integration:
    """Return the integration whose id is in the path of a page."""
    return integrations.find_integration(storage, session.principal, integration_id)


CurrentIntegration = Annotated[Integration, Depends(_current_integration)]


@router.get(INTEGRATIONS_PATH)
def list_integrations(
    storage: CurrentStorage,
    settings: CurrentSettings,
    session: CurrentSession,
    q: Annotated[str, Query(max_length=200)] = "",
    page: Annotated[int, Query(ge=1, le=MAX_ID)] = 1,
    done: Done = "",
) -> Response:
    """List the integrations that match a search and, for an admin, those that can be undeleted."""
    listed = overviews.list_integration_rows(
        storage,
        session.principal,
        name_contains=q.strip(),
        offset=(page - 1) * _PAGE_SIZE,
        limit=_PAGE_SIZE,
    )
    deleted: Sequence[Integration] = ()
    if session.principal.token.permits("admin"):
        deleted = integrations.list_deleted_integrations(storage, session.principal)
    return render_page(
        "integrations.html",
        session,
        done=done,
        rows=listed.rows,
        total=listed.total,
        first=(page - 1) * _PAGE_SIZE + 1,
        page=page,
        pages=max(1, -(-listed.total // _PAGE_SIZE)),
        q=q.strip(),
        deleted=deleted,
        stored_bytes=quota.stored_bytes(storage, session.principal),
        max_stored_bytes=settings.max_stored_bytes,
        environment_path=environment_path,
    )


@router.get(_ADD_PATH)
def add_integration_form(session: CurrentSession) -> Response:
    """Show the form that creates an integration."""
    require_scope(session.principal, "admin")
    return render_page(
        "add_integration.html", session, name="", environment="PROD", integration_type="dbt_core"
    )


@router.post(_ADD_PATH)
def add_integration(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    name: FormText = "",
    environment: FormText = "",
    integration_type: FormText = "dbt_core",
) -> Response:
    """Create an integration or add an environment to an existing one.

    Redirect to the page of the environment, or show the form again with the error.
    """
    form = {"name": name, "environment": environment, "integration_type": integration_type}
    try:
        if integration_type not in _TYPES:
            raise UsageError(f"invalid integration type. Use {' or '.join(_TYPES)}.")
        integration = integrations.create_integration(storage, session.principal, **form)
    except DatapilotError as error:
        return render_error("add_integration.html", session, error, **form)
    return RedirectResponse(environment_path(integration, environment.strip()) + "?done=added", 303)


@router.get(INTEGRATIONS_PATH + "/{integration_id}")
def show_integration(
    session: CurrentSession, integration: CurrentIntegration, done: Done = ""
) -> Response:
    """Show an integration's environments and the forms for changing it."""
    return render_page(
        "integration.html",
        session,
        done=done,
        integration=integration,
        form={},
        environment_path=environment_path,
    )


@router.get(_RENAME_PATH)
@router.get(_DELETE_PATH)
@router.get(_ADD_ENVIRONMENT_PATH)
def show_forms(session: CurrentSession, integration_id: PathId) -> Response:
    """Redirect to the page with the form, for a browser that returns to this path after sign-in."""
    return RedirectResponse(integration_path(integration_id), 303)


@router.post(_RENAME_PATH)
def rename_integration(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    integration: CurrentIntegration,
    name: FormText = "",
) -> Response:
    """Rename an integration."""
    try:
        integrations.rename_integration(
            storage, session.principal, integration_id=integration.id, name=name
        )
    except DatapilotError as error:
        return _render_forms(session, integration, error, rename=name)
    return RedirectResponse(integration_path(integration.id) + "?done=renamed", 303)


@router.post(_ADD_ENVIRONMENT_PATH)
def add_environment(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    integration: CurrentIntegration,
    environment: FormText = "",
) -> Response:
    """Add an environment to an integration, and redirect to the environment's page."""
    try:
        integrations.create_integration(
            storage,
            session.principal,
            name=integration.name,
            environment=environment,
            integration_type=integration.integration_type,
        )
    except DatapilotError as error:
        return _render_forms(session, integration, error, environment=environment)
    path = environment_path(integration, environment.strip())
    return RedirectResponse(path + "?done=environment", 303)


@router.post(_DELETE_PATH)
def delete_integration(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    integration: CurrentIntegration,
    name: FormText = "",
) -> Response:
    """Delete an integration if its name was typed as confirmation."""
    try:
        if normalize_name(name.strip()) != normalize_name(integration.name):
            raise UsageError(
                "the integration was not deleted: the name does not match. "
                f"Type {integration.name!r} to confirm."
            )
        integrations.delete_integration(storage, session.principal, integration_id=integration.id)
    except DatapilotError as error:
        return _render_forms(session, integration, error, delete=name)
    return RedirectResponse(INTEGRATIONS_PATH + "?done=deleted", 303)


@router.get(_UNDELETE_PATH)
def confirm_undelete(
    storage: CurrentStorage, session: CurrentSession, integration_id: PathId
) -> Response:
    """Ask for confirmation before restoring a deleted integration."""
    deleted = integrations.list_deleted_integrations(storage, session.principal)
    integration = next((each for each in deleted if each.id == integration_id), None)
    if integration is None:
        return RedirectResponse(INTEGRATIONS_PATH, 303)
    return render_page("confirm_undelete.html", session, integration=integration)


@router.post(_UNDELETE_PATH)
def undelete_integration(
    storage: CurrentStorage, session: CsrfCheckedSession, integration_id: PathId
) -> Response:
    """Restore a deleted integration."""
    integrations.undelete_integration(storage, session.principal, integration_id=integration_id)
    return RedirectResponse(integration_path(integration_id) + "?done=undeleted", 303)


def _render_forms(
    session: Session, integration: Integration, error: DatapilotError, **form: str
) -> Response:
    """Return an integration's page with an error.

    form: the name and text of the submitted field.
    """
    return render_error(
        "integration.html",
        session,
        error,
        integration=integration,
        form=form,
        environment_path=environment_path,
    )
