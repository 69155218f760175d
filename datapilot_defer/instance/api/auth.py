"""Authentication of API requests by bearer token and instance name."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from datapilot_defer.instance.dependencies import CurrentStorage
from datapilot_defer.instance.forwarding import client_address
from datapilot_defer.instance.rate_limit import limit_token
from datapilot_defer.instance.services.principal import Principal
from datapilot_defer.instance.services.tokens import authenticate_token

_AUTHENTICATION_FAILED = (
    "invalid token or instance name. Send the token in the header `Authorization: Bearer …` and "
    "the instance name in `x-tenant`."
)


def authenticate_request(request: Request, storage: CurrentStorage) -> Principal:
    """Return the caller of the API, and record the use of its token.

    Raises HTTPException 401, or 429 after too many requests.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    principal = None
    if scheme.lower() == "bearer":
        principal = authenticate_token(storage, token.strip())
    instance_name = request.headers.get("x-tenant", "")
    if principal is None or not _is_equal(instance_name, principal.instance.name):
        limit_token(request, None)
        raise HTTPException(401, _AUTHENTICATION_FAILED, headers={"WWW-Authenticate": "Bearer"})
    limit_token(request, principal.token.id)
    request.app.state.last_used.record(principal.token.id)
    return replace(principal, address=client_address(request.scope))


def _is_equal(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())


CurrentPrincipal = Annotated[Principal, Depends(authenticate_request)]
