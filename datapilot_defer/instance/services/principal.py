"""Who calls, and what they may."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.settings import Settings
from datapilot_defer.storage import integrations
from datapilot_defer.storage import tokens as token_records
from datapilot_defer.storage.blobs import Blobs
from datapilot_defer.storage.database import Records
from datapilot_defer.storage.integrations import Environment, Integration

_WRONG = "wrong token or instance name: the token goes into `Authorization: Bearer …`, the instance name into `x-tenant`"


@dataclass(frozen=True)
class Caller:
    """Somebody whose token was accepted, at one instance, with what is needed to serve them."""

    owner: token_records.Owner
    token: token_records.Token
    records: Records
    blobs: Blobs
    settings: Settings
    base_url: str

    def require(self, scope: str, integration_id: int | None = None) -> None:
        """Go on only when the token admits to a scope. Raises 403."""
        if not self.token.may(scope, integration_id):
            here, there = _ACTS[scope]
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
_ACTS = {
    "read": ("read here", "read"),
    "upload": ("upload here", "upload to"),
    "admin": ("administer this instance", "administer"),
}


def base_url(request: Request) -> str:
    """Give the URL under which the client reached this instance, without a trailing slash."""
    settings: Settings = request.app.state.settings
    if settings.public_url:
        return settings.public_url.rstrip("/")
    forwarded = request.headers.get("x-forwarded-host") if settings.behind_proxy else None
    if forwarded:
        return f"{request.url.scheme}://{forwarded.split(',')[0].strip()}"
    return str(request.base_url).rstrip("/")


def admitted(request: Request, token: str) -> Caller | None:
    """Give the caller whose token this is, if it is valid."""
    if not tokens.well_formed(token):
        return None
    with request.app.state.records.read() as connection:
        found = token_records.find_token(connection, tokens.hashed(token))
        owner = token_records.instance_of_id(connection, found.instance_id) if found else None
    if found is None or owner is None or not tokens.same(found.sha256, tokens.hashed(token)):
        return None
    return _caller(request, owner, found)


def admitted_again(
    request: Request, token_id: int, proves: Callable[[bytes], bool]
) -> Caller | None:
    """Give the caller whose token has this id, if it is still valid and `proves` says so of its instance's key."""
    with request.app.state.records.read() as connection:
        found = token_records.token_of_id(connection, token_id)
        owner = token_records.instance_of_id(connection, found.instance_id) if found else None
    if found is None or owner is None or not proves(owner.signing_key):
        return None
    return _caller(request, owner, found)


def _caller(
    request: Request, owner: token_records.Owner, token: token_records.Token
) -> Caller | None:
    if not token.valid:
        return None
    state = request.app.state
    if token_records.wants_last_used(token):
        # A full disk must not keep anybody from reading.
        with suppress(Unavailable), state.records.write() as connection:
            token_records.touch_token(connection, token.id)
    return Caller(owner, token, state.records, state.blobs, state.settings, base_url(request))


def caller(request: Request) -> Caller:
    """Give who calls the API, from the headers. Raises 401."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    found = admitted(request, token.strip()) if scheme.lower() == "bearer" else None
    if found is None or not tokens.same(request.headers.get("x-tenant", ""), found.owner.name):
        raise HTTPException(401, _WRONG, headers={"WWW-Authenticate": "Bearer"})
    return found


AnyCaller = Annotated[Caller, Depends(caller)]
