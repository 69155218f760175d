"""Who calls, and what they may."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import integrations
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.blobs import BlobStore
from datapilot_defer.storage.database import Database
from datapilot_defer.storage.integrations import Environment, Integration

_AUTHENTICATION_FAILED = "wrong token or instance name: the token goes into `Authorization: Bearer …`, the instance name into `x-tenant`"


@dataclass(frozen=True)
class Principal:
    """Somebody whose token was accepted, at one instance, with what is needed to serve them."""

    owner: token_records.Instance
    token: token_records.Token
    records: Database
    blobs: BlobStore
    settings: InstanceSettings
    base_url: str

    def require_scope(self, scope: str, integration_id: int | None = None) -> None:
        """Go on only when the token admits to a scope. Raises 403."""
        if not self.token.permits(scope, integration_id):
            here, there = _SCOPE_DESCRIPTIONS[scope]
            what = here if integration_id is None else f"{there} integration {integration_id}"
            raise HTTPException(403, f"the token {self.token.name!r} may not {what}")

    def integration(self, integration_id: int) -> Integration:
        """Give an integration that the token opens. Raises 404."""
        with self.records.read() as connection:
            found = integrations.find_integration(connection, self.owner.id, integration_id)
        if found is None or self.token.integration_id not in (None, integration_id):
            raise HTTPException(
                404, f"instance {self.owner.name!r} has no integration {integration_id}"
            )
        return found

    def environment(self, integration: Integration, name: str) -> Environment:
        """Give an environment of an integration, found without regard to case. Raises 404."""
        found = integration.environment(name)
        if found is None:
            has = ", ".join(each.name for each in integration.environments) or "none"
            raise HTTPException(
                404, f"integration {integration.id} has no environment {name!r}; it has: {has}"
            )
        return found


# What a scope admits to, said of the whole instance and of an integration.
_SCOPE_DESCRIPTIONS = {
    "read": ("read here", "read"),
    "upload": ("upload here", "upload to"),
    "admin": ("administer this instance", "administer"),
}


def public_base_url(request: Request) -> str:
    """Give the URL under which the client reached this instance, without a trailing slash."""
    settings: InstanceSettings = request.app.state.settings
    if settings.public_url:
        return settings.public_url.rstrip("/")
    forwarded = request.headers.get("x-forwarded-host") if settings.behind_proxy else None
    if forwarded:
        return f"{request.url.scheme}://{forwarded.split(',')[0].strip()}"
    return str(request.base_url).rstrip("/")


def authenticate_token(request: Request, token: str) -> Principal | None:
    """Give the caller whose token this is, if it is valid."""
    if not tokens.is_well_formed(token):
        return None
    with request.app.state.records.read() as connection:
        found = token_records.find_token(connection, tokens.hash_token(token))
        owner = token_records.get_instance(connection, found.instance_id) if found else None
    if found is None or owner is None or not tokens.same(found.sha256, tokens.hash_token(token)):
        return None
    return _principal_for(request, owner, found)


def authenticate_session(
    request: Request, token_id: int, proves: Callable[[bytes], bool]
) -> Principal | None:
    """Give the caller whose token has this id, if it is still valid and `proves` says so of its instance's key."""
    with request.app.state.records.read() as connection:
        found = token_records.get_token(connection, token_id)
        owner = token_records.get_instance(connection, found.instance_id) if found else None
    if found is None or owner is None or not proves(owner.signing_key):
        return None
    return _principal_for(request, owner, found)


def _principal_for(
    request: Request, owner: token_records.Instance, token: token_records.Token
) -> Principal | None:
    if not token.is_valid:
        return None
    state = request.app.state
    if token_records.is_last_used_outdated(token):
        # A full disk must not keep anybody from reading.
        with suppress(Unavailable), state.records.write() as connection:
            token_records.update_last_used(connection, token.id)
    return Principal(
        owner, token, state.records, state.blobs, state.settings, public_base_url(request)
    )


def authenticate_request(request: Request) -> Principal:
    """Give who calls the API, from the headers. Raises 401."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = authenticate_token(request, token.strip()) if scheme.lower() == "bearer" else None
    if found is None or not tokens.same(request.headers.get("x-tenant", ""), found.owner.name):
        raise HTTPException(401, _AUTHENTICATION_FAILED, headers={"WWW-Authenticate": "Bearer"})
    return found


CurrentPrincipal = Annotated[Principal, Depends(authenticate_request)]
