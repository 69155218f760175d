"""Routes of the pages that list, create and revoke tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from datapilot_defer.errors import DatapilotError, NotFound, UsageError
from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.services import integrations, overviews, tokens
from datapilot_defer.instance.services.principal import SCOPES, require_scope
from datapilot_defer.instance.web.new_tokens import NewTokens
from datapilot_defer.instance.web.paths import TOKENS_PATH, Done, FormText, PathId
from datapilot_defer.instance.web.rendering import render_error, render_page
from datapilot_defer.instance.web.session import CsrfCheckedSession, CurrentSession, Session
from datapilot_defer.storage import Storage
from datapilot_defer.storage.database import utc_now
from datapilot_defer.storage.integrations import Integration, normalize_name
from datapilot_defer.storage.tables import MAX_ID
from datapilot_defer.storage.tokens import Token

router = APIRouter(include_in_schema=False)
_CREATE_PATH = TOKENS_PATH + "/create"
_REVOKE_PATH = TOKENS_PATH + "/{token_id}/revoke"
# With at most this many integrations, the form lists all of them. Otherwise, it has a text field
# with suggestions.
_MAX_LISTED = 200
_MAX_SUGGESTED = 20
_DAYS = ("30", "90", "365", "never")
# Maximum number of revoked and expired tokens that the page lists.
_MAX_INVALID = 100


@dataclass(frozen=True)
class TokenForm:
    """The contents of the form for creating a token.

    integration: the name of the only integration that the token gives access to, or "" for all.
    choices: the integrations that the form offers. has_all_choices: whether it offers all
    integrations.
    """

    name: str = ""
    scopes: Sequence[str] = ("read",)
    integration: str = ""
    days: str = "90"
    choices: Sequence[Integration] = field(default=(), repr=False)
    has_all_choices: bool = True


@router.get("/settings/api-keys")
def redirect_old_path() -> Response:
    """Redirect from the path that release 0.1.0 used."""
    return RedirectResponse(TOKENS_PATH, 308)


@router.get(TOKENS_PATH)
def list_tokens(
    request: Request,
    storage: CurrentStorage,
    session: CurrentSession,
    created: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    done: Done = "",
) -> Response:
    """List the tokens of the instance.

    created: the id of a token that this session has just created. The token is shown only once.
    """
    listed = overviews.list_token_rows(storage, session.principal)
    new_token = None
    if created is not None:
        new_token = _new_tokens(request).take(session.csrf, created)
    return render_page(
        "tokens.html",
        session,
        done=done,
        valid=[row for row in listed if row[0].is_valid],
        invalid=[row for row in listed if not row[0].is_valid][:_MAX_INVALID],
        created=created,
        new_token=new_token,
    )


@router.get(_CREATE_PATH)
def create_token_form(
    storage: CurrentStorage,
    session: CurrentSession,
    integration_id: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> Response:
    """Show the form for creating a token. integration_id: the selected integration."""
    require_scope(session.principal, "admin")
    name = ""
    if integration_id is not None:
        name = integrations.find_integration(storage, session.principal, integration_id).name
    form = _with_choices(storage, session, TokenForm(integration=name))
    return render_page("create_token.html", session, form=form, scopes=SCOPES, days=_DAYS)


@router.post(_CREATE_PATH)
def create_token(
    request: Request,
    storage: CurrentStorage,
    session: CsrfCheckedSession,
    name: FormText = "",
    scope: Annotated[list[str] | None, Form(max_length=10)] = None,
    integration: FormText = "",
    days: FormText = "90",
) -> Response:
    """Create a token and redirect to the list, which shows the token once."""
    form = TokenForm(name, scope or (), integration.strip(), days)
    try:
        record, token = _create_token(storage, session, form)
    except DatapilotError as error:
        form = _with_choices(storage, session, form)
        return render_error(
            "create_token.html", session, error, form=form, scopes=SCOPES, days=_DAYS
        )
    _new_tokens(request).add(session.csrf, record.id, token)
    return RedirectResponse(f"{TOKENS_PATH}?created={record.id}", 303)


@router.get(_REVOKE_PATH)
def confirm_revoke(storage: CurrentStorage, session: CurrentSession, token_id: PathId) -> Response:
    """Ask for confirmation before revoking a token."""
    listed = overviews.list_token_rows(storage, session.principal)
    valid = [token for token, _ in listed if token.is_valid]
    token = next((each for each in valid if each.id == token_id), None)
    if token is None:
        raise NotFound(f"token {token_id} does not exist or is no longer valid")
    other_admins = [each for each in valid if each.id != token_id and each.permits("admin")]
    return render_page(
        "confirm_revoke.html",
        session,
        token=token,
        is_own=token_id == session.principal.token.id,
        is_last_admin=token.permits("admin") and not other_admins,
    )


@router.post(_REVOKE_PATH)
def revoke_token(
    storage: CurrentStorage, session: CsrfCheckedSession, token_id: PathId
) -> Response:
    """Revoke a token of the session's instance."""
    tokens.revoke_own_token(storage, session.principal, token_id)
    if token_id == session.principal.token.id:
        return RedirectResponse("/sign-in", 303)
    return RedirectResponse(TOKENS_PATH + "?done=revoked", 303)


def _new_tokens(request: Request) -> NewTokens:
    new_tokens: NewTokens = request.app.state.new_tokens
    return new_tokens


def _create_token(storage: Storage, session: Session, form: TokenForm) -> tuple[Token, str]:
    """Create the token of a form. Raises AccessDenied, NotFound or UsageError."""
    require_scope(session.principal, "admin")
    if not form.scopes or set(form.scopes) - set(SCOPES):
        raise UsageError("no permission is selected. Select at least one.")
    integration_id = None
    if form.integration:
        integration_id = _find_integration_by_name(storage, session, form.integration).id
    return tokens.create_token(
        storage,
        session.principal.instance.name,
        name=form.name,
        scopes=frozenset(form.scopes),
        integration_id=integration_id,
        expires_at=_expiry_after(form.days),
        actor=session.principal.actor,
    )


def _find_integration_by_name(storage: Storage, session: Session, name: str) -> Integration:
    """Return the integration with this name, or the only one whose name contains the text.

    Case is ignored, but an exact match takes precedence. Raises NotFound.
    """
    matching = integrations.list_integrations(
        storage, session.principal, name_contains=name, limit=_MAX_SUGGESTED
    )
    wanted = normalize_name(name)
    same_name = [each for each in matching if normalize_name(each.name) == wanted]
    exact_name = [each for each in same_name if each.name == name]
    if same_name:
        return (exact_name or same_name)[0]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise NotFound(f"several integrations match {name!r}. Select one of the suggestions.")
    raise NotFound(f"integration {name!r} not found. Enter a part of its name.")


def _with_choices(storage: Storage, session: Session, form: TokenForm) -> TokenForm:
    """Return the form with the integrations to choose from."""
    listed = integrations.list_integrations(storage, session.principal, limit=_MAX_LISTED + 1)
    if len(listed) <= _MAX_LISTED:
        return replace(form, choices=listed, has_all_choices=True)
    suggested = integrations.list_integrations(
        storage, session.principal, name_contains=form.integration, limit=_MAX_SUGGESTED
    )
    return replace(form, choices=suggested, has_all_choices=False)


def _expiry_after(days: str) -> datetime | None:
    """Return when a token expires, or None if it never expires.

    Raises UsageError when the form does not offer this number of days.
    """
    if days not in _DAYS:
        raise UsageError(f"{days!r} is not a valid expiration. Choose one in the list.")
    if days == "never":
        return None
    return utc_now() + timedelta(days=int(days))
