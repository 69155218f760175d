"""Paths of the web pages."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Form, Path, Query

from datapilot_defer.storage.integrations import Environment, Integration
from datapilot_defer.storage.tables import MAX_ID

INTEGRATIONS_PATH = "/settings/integrations"
TOKENS_PATH = "/settings/tokens"
AUDIT_PATH = "/settings/audit"

FormText = Annotated[str, Form(max_length=2000)]
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]
# The key of the form that was submitted before this page was requested. See `render_page`.
Done = Annotated[str, Query(max_length=40)]


def integration_path(integration_id: int) -> str:
    """Return the path of an integration's page."""
    return f"{INTEGRATIONS_PATH}/{integration_id}"


def environment_path(integration: Integration, environment: Environment | str) -> str:
    """Return the path of an environment's page."""
    name = environment
    if isinstance(environment, Environment):
        name = environment.name
    return f"{INTEGRATIONS_PATH}/{integration.id}/{quote(str(name), safe='')}"


def upload_path(integration: Integration, environment: Environment, upload_id: int) -> str:
    """Return the path of an upload's page."""
    return f"{environment_path(integration, environment)}/uploads/{upload_id}"
