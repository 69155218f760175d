"""Render pages, and the commands and settings on them that users copy."""

from __future__ import annotations

import json
import shlex
from functools import cache

from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from datapilot_defer.formatting import format_size, format_time_ago, format_timestamp
from datapilot_defer.instance.web.session import Session


def render_page(
    template: str, session: Session | None, status: int = 200, **values: object
) -> Response:
    """Return a page that no cache stores."""
    text = _templates().get_template(template).render(session=session, **values)
    return HTMLResponse(text, status, {"Cache-Control": "no-store"})


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("datapilot_defer.instance.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["timestamp"] = format_timestamp
    templates.filters["time_ago"] = format_time_ago
    templates.filters["size"] = format_size
    templates.filters["from_json"] = json.loads
    return templates


def upload_command(
    instance_name: str, base_url: str, *, integration_id: int, environment: str
) -> str:
    """Return the command that onboards to an environment, for a POSIX shell.

    The token stays in an environment variable.
    """
    return (
        f"datapilot dbt onboard --backend-url {shlex.quote(base_url)} "
        f'--token "$ALTIMATE_API_KEY" --instance-name {instance_name} '
        f"--dbt_core_integration_id {integration_id} "
        f"--dbt_core_integration_environment {shlex.quote(environment)} "
        "--manifest-path target/manifest.json"
    )


def defer_commands(
    instance_name: str, base_url: str, *, integration_id: int, environment: str
) -> str:
    """Return the commands that defer to an environment; the token is in its variable already.

    URL and instance name are exported with it: the three are used as one set.
    """
    return (
        f"export ALTIMATE_URL={shlex.quote(base_url)} ALTIMATE_INSTANCE_NAME={instance_name}\n"
        f"datapilot dbt defer enable --integration-id {integration_id} "
        f"--environment {shlex.quote(environment)}\n"
        "datapilot dbt defer run build --select my_model"
    )


def editor_settings(instance_name: str, base_url: str, *, integration_id: int) -> str:
    """Return the settings for the VS Code extension "Power User for dbt"."""
    project_settings = {
        "deferToProduction": True,
        "favorState": False,
        "manifestPathType": "remote",
        "dbtCoreIntegrationId": integration_id,
    }
    settings = {
        "dbt.altimateUrl": base_url,
        "dbt.altimateInstanceName": instance_name,
        "dbt.deferConfigPerProject": {"": project_settings},
    }
    return json.dumps(settings, indent=2)
