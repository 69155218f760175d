"""The web page: integrations with the command to upload to each, an environment's history, API keys."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment as Templates
from jinja2 import PackageLoader, StrictUndefined

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.api import integrations as api_integrations
from datapilot_defer.instance.services import instances, signed_urls
from datapilot_defer.instance.services.principal import Principal, authenticate_token
from datapilot_defer.instance.services.tokens import Scope
from datapilot_defer.instance.web import session
from datapilot_defer.instance.web.session import CsrfCheckedSession, CurrentSession, Session
from datapilot_defer.storage import ingestions, integrations, tokens, uploads
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.integrations import Environment, Integration

router = APIRouter(include_in_schema=False)
INTEGRATIONS_PATH = "/settings/integrations"
API_KEYS_PATH = "/settings/api-keys"
# Integrations on one page; the search field leads to the others.
_PAGE_SIZE = 100
FormText = Annotated[str, Form(max_length=2000)]


@router.get("/")
def home() -> Response:
    """Go to the integrations."""
    return RedirectResponse(INTEGRATIONS_PATH, 303)


@router.get("/sign-in")
def sign_in_form(to: str = INTEGRATIONS_PATH) -> Response:
    """Ask for a token."""
    return render_page("sign_in.html", None, to=to, wrong=False)


@router.post("/sign-in")
def sign_in(request: Request, token: FormText, to: FormText = INTEGRATIONS_PATH) -> Response:
    """Begin a session, if the token is valid."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "another site sent this form")
    caller = authenticate_token(request, token.strip())
    if caller is None:
        return render_page("sign_in.html", None, 401, to=to, wrong=True)
    response = RedirectResponse(to if to.startswith("/settings/") else INTEGRATIONS_PATH, 303)
    session.start_session(response, caller)
    return response


@router.post("/sign-out")
def sign_out(someone: CsrfCheckedSession) -> Response:
    """End the session."""
    return session.end_session()


@router.get(INTEGRATIONS_PATH)
def list_integrations(
    someone: CurrentSession, q: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """List the integrations, each with the command to upload to it."""
    caller = someone.caller
    with caller.records.read() as connection:
        found = integrations.list_integrations(
            connection,
            caller.owner.id,
            only=caller.token.integration_id,
            like=q,
            limit=_PAGE_SIZE + 1,
        )
    shown = [
        (each, [_environment_summary(caller, each, place) for place in each.environments])
        for each in found[:_PAGE_SIZE]
    ]
    return render_page("integrations.html", someone, shown=shown, more=len(found) > _PAGE_SIZE, q=q)


@router.post(INTEGRATIONS_PATH)
def add_integration(
    someone: CsrfCheckedSession,
    name: FormText,
    environment: FormText,
    integration_type: Annotated[Literal["dbt_core", "dbt_cloud"], Form()],
) -> Response:
    """Add an integration, and show it."""
    wanted = api_integrations.NewIntegration(
        name=name, environment=environment, integration_type=integration_type
    )
    made = api_integrations.create_integration(someone.caller, wanted)
    return RedirectResponse(environment_path(made, environment.strip()), 303)


@router.get(INTEGRATIONS_PATH + "/{integration_id}/{environment}")
def show_environment(
    someone: CurrentSession, integration_id: api_integrations.PathId, environment: str
) -> Response:
    """Show an environment: what is current, how to upload and to defer, what was before."""
    caller, integration, place = _find_environment(someone, integration_id, environment)
    with caller.records.read() as connection:
        past = uploads.list_history(
            connection, place.id, limit=api_integrations.HISTORY_LIMIT, refused=True
        )
        current = {each.kind: each for each in uploads.list_current(connection, place.id)}
        ingested = ingestions.list_ingestions(connection, place.id, limit=20)
    return render_page(
        "environment.html",
        someone,
        integration=integration,
        place=_environment_summary(caller, integration, place),
        past=[(file, name, json.loads(file.changes or "null")) for file, name in past],
        current=current,
        ingested=ingested,
        settings=editor_settings(caller, integration),
        defer=defer_commands(caller, integration, place),
    )


@router.post(INTEGRATIONS_PATH + "/{integration_id}/{environment}/restore")
def restore(
    someone: CsrfCheckedSession,
    integration_id: api_integrations.PathId,
    environment: str,
    file_id: Annotated[int, Form(ge=1)],
) -> Response:
    """Make an earlier file current again."""
    caller, integration, place = _find_environment(someone, integration_id, environment)
    api_integrations.restore_artifact(
        caller, integration, place.name, min(file_id, signed_urls.MAX_ID)
    )
    return RedirectResponse(environment_path(integration, place.name), 303)


@router.get(INTEGRATIONS_PATH + "/{integration_id}/{environment}/files/{file_id}")
def download(
    someone: CurrentSession,
    integration_id: api_integrations.PathId,
    environment: str,
    file_id: api_integrations.PathId,
) -> Response:
    """Go to a signed URL of a file."""
    caller, integration, _ = _find_environment(someone, integration_id, environment)
    caller.require_scope("read", integration.id)
    return RedirectResponse(
        signed_urls.download_url(
            caller, api_integrations.find_verified_upload(caller, integration, file_id).id
        ),
        303,
    )


@router.get(INTEGRATIONS_PATH + "/{integration_id}/{environment}/ingestions/{ingestion_id}")
def show_log(
    someone: CurrentSession,
    integration_id: api_integrations.PathId,
    environment: str,
    ingestion_id: api_integrations.PathId,
) -> Response:
    """Give the log of an ingestion."""
    caller, _, place = _find_environment(someone, integration_id, environment)
    with caller.records.read() as connection:
        found = ingestions.find_ingestion(connection, place.id, ingestion_id)
    if found is None:
        raise HTTPException(404, f"there is no ingestion {ingestion_id} of {place.name}")
    return PlainTextResponse(found.log)


@router.get(API_KEYS_PATH)
def list_keys(someone: CurrentSession) -> Response:
    """List the tokens; an admin also makes and revokes them here."""
    return _render_keys(someone)


@router.post(API_KEYS_PATH)
def create_key(
    someone: CsrfCheckedSession,
    name: FormText,
    scope: Annotated[list[Scope], Form()],
    integration_id: Annotated[str, Form(max_length=10)] = "",
    days: Annotated[str, Form(max_length=5)] = "",
) -> Response:
    """Make a token, and show it this once."""
    caller = someone.caller
    caller.require_scope("admin")
    only = _parse_positive_int(integration_id, "integration id") if integration_id.strip() else None
    ends = (
        utc_now() + timedelta(days=_parse_positive_int(days, "number of days"))
        if days.strip()
        else None
    )
    _, token = instances.create_token(
        caller.records,
        caller.owner.name,
        name=api_integrations.validate_name(name, "API key", 200),
        scopes=frozenset(scope),
        integration_id=only,
        expires_at=ends,
    )
    return _render_keys(someone, made=token)


@router.post(API_KEYS_PATH + "/{token_id}/revoke")
def revoke_key(someone: CsrfCheckedSession, token_id: api_integrations.PathId) -> Response:
    """Revoke a token."""
    someone.caller.require_scope("admin")
    with someone.caller.records.write() as connection:
        tokens.revoke_token(connection, someone.caller.owner.id, token_id)
    return RedirectResponse(API_KEYS_PATH, 303)


@router.get("/docs")
def docs(request: Request) -> Response:
    """Describe the API; the machine's form of it is at /openapi.json."""
    return render_page("docs.html", None, api=request.app.openapi())


def render_page(
    template: str, someone: Session | None, status: int = 200, **values: Any
) -> Response:
    """Give a page; nobody on the way may keep it."""
    text = _templates().get_template(template).render(someone=someone, now=utc_now(), **values)
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


def upload_command(caller: Principal, integration: Integration, environment: str) -> str:
    """Give the command that onboards to an environment, for a POSIX shell; the token stays in its variable."""
    return (
        f"datapilot dbt onboard --backend-url {shlex.quote(caller.base_url)} "
        f'--token "$ALTIMATE_API_KEY" --instance-name {caller.owner.name} '
        f"--dbt_core_integration_id {integration.id} "
        f"--dbt_core_integration_environment {shlex.quote(environment)} --manifest-path target/manifest.json"
    )


def _render_keys(someone: Session, made: str | None = None) -> Response:
    someone.caller.require_scope("admin")
    with someone.caller.records.read() as connection:
        found: Sequence[tokens.Token] = tokens.list_tokens(connection, someone.caller.owner.id)
    return render_page("keys.html", someone, tokens=found, made=made)


def _find_environment(
    someone: Session, integration_id: int, environment: str
) -> tuple[Principal, Integration, Environment]:
    integration = someone.caller.integration(integration_id)
    return someone.caller, integration, someone.caller.environment(integration, environment)


def _environment_summary(
    caller: Principal, integration: Integration, place: Environment
) -> dict[str, str]:
    command = upload_command(caller, integration, place.name)
    return {
        "name": place.name,
        "path": environment_path(integration, place.name),
        "command": command,
    }


def environment_path(integration: Integration, environment: str) -> str:
    return f"{INTEGRATIONS_PATH}/{integration.id}/{quote(environment, safe='')}"


def defer_commands(caller: Principal, integration: Integration, place: Environment) -> str:
    """Everything that belongs together as one set of credentials: the token is in its variable already."""
    return (
        f"export ALTIMATE_URL={shlex.quote(caller.base_url)} ALTIMATE_INSTANCE_NAME={caller.owner.name}\n"
        f"datapilot dbt defer enable --integration-id {integration.id} --environment {shlex.quote(place.name)}\n"
        "datapilot dbt defer run build --select my_model"
    )


def editor_settings(caller: Principal, integration: Integration) -> str:
    """What the extension "Power User for dbt" reads; the deferral belongs to the workspace, the rest to the user."""
    deferral = {"deferToProduction": True, "favorState": False, "manifestPathType": "remote"}
    settings = {
        "dbt.altimateUrl": caller.base_url,
        "dbt.altimateInstanceName": caller.owner.name,
        "dbt.deferConfigPerProject": {"": {**deferral, "dbtCoreIntegrationId": integration.id}},
    }
    return json.dumps(settings, indent=2)


def _parse_positive_int(text: str, what: str) -> int:
    if not text.strip().isascii() or not text.strip().isdecimal() or int(text) < 1:
        raise HTTPException(422, f"{text!r} is no {what}")
    return int(text)


@cache
def _templates() -> Templates:
    templates = Templates(
        loader=PackageLoader("datapilot_defer.instance.web"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    templates.trim_blocks = templates.lstrip_blocks = True
    templates.filters.update(
        moment=_moment, ago=_ago, size=_size, file_name=lambda kind: Kind(kind).file_name
    )
    return templates


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _ago(at: datetime) -> str:
    """Say how long ago something was, in its largest unit."""
    seconds = max(0, int((utc_now() - at).total_seconds()))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _size(size_bytes: int) -> str:
    """Say a size as people do, in decimal units."""
    for unit, length in (("MB", 1_000_000), ("kB", 1000)):
        if size_bytes >= length:
            return f"{size_bytes / length:,.1f} {unit}"
    return f"{size_bytes} B"
