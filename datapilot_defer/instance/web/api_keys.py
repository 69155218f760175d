"""Routes of the page that lists, creates and revokes API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Path
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.services.principal import Scope, require_scope
from datapilot_defer.instance.web.rendering import render_page
from datapilot_defer.instance.web.session import CsrfCheckedSession, CurrentSession, Session
from datapilot_defer.storage import Storage
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.tables import MAX_ID

router = APIRouter(include_in_schema=False)
API_KEYS_PATH = "/settings/api-keys"


@router.get(API_KEYS_PATH)
def list_keys(storage: CurrentStorage, session: CurrentSession) -> Response:
    """List the tokens, with forms to create and revoke them."""
    return _render_keys(storage, session)


@router.post(API_KEYS_PATH)
def create_key(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    name: Annotated[str, Form(max_length=2000)],
    scope: Annotated[list[Scope], Form()],
    integration_id: Annotated[str, Form(max_length=10)] = "",
    days: Annotated[str, Form(max_length=5)] = "",
) -> Response:
    """Create a token, and show it once."""
    require_scope(session.principal, "admin")
    only_id = None
    if integration_id.strip():
        only_id = _parse_positive_int(integration_id, "integration id")
    expires_at = None
    if days.strip():
        expires_at = utc_now() + timedelta(days=_parse_positive_int(days, "number of days"))
    _, token = tokens.create_token(
        storage,
        session.principal.instance.name,
        actor=session.principal.actor,
        name=name,
        scopes=frozenset(scope),
        integration_id=only_id,
        expires_at=expires_at,
    )
    return _render_keys(storage, session, new_token=token)


@router.post(API_KEYS_PATH + "/{token_id}/revoke")
def revoke_key(
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    token_id: Annotated[int, Path(ge=1, le=MAX_ID)],
) -> Response:
    """Revoke a token of the session's instance."""
    tokens.revoke_own_token(storage, session.principal, token_id)
    return RedirectResponse(API_KEYS_PATH, 303)


def _render_keys(storage: Storage, session: Session, new_token: str | None = None) -> Response:
    own_tokens = tokens.list_own_tokens(storage, session.principal)
    return render_page("api_keys.html", session, tokens=own_tokens, new_token=new_token)


def _parse_positive_int(text: str, description: str) -> int:
    digits = text.strip()
    is_number = digits.isascii() and digits.isdecimal()
    if not is_number or int(digits) < 1:
        raise HTTPException(422, f"{text!r} is no {description}")
    return int(digits)
