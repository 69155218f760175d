"""`datapilot dbt integrations`: list, create and show integrations; restore an earlier artifact."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    connection_options,
    environment_option,
    integration_options,
    require_integration,
)
from datapilot_defer.cli.output import current_output, format_table
from datapilot_defer.client.connection import Connection, ConnectionOptions
from datapilot_defer.formatting import strip_fraction

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.client.responses import IntegrationSummary

_NO_UPLOAD = "nothing uploaded yet"


@click.command("list", cls=Command)
@connection_options
def list_(connection: ConnectionOptions) -> None:
    """List the integrations of an instance."""
    integrations = _open(connection).list_integrations()
    text = "No integrations yet: `datapilot dbt integrations create --name NAME` makes one."
    if integrations:
        rows = [_integration_row(integration) for integration in integrations]
        text = format_table(("id", "name", "environments", "last upload"), rows)
    data = [integration.to_json() for integration in integrations]
    current_output().print_result({"integrations": data}, text)


@click.command("create", cls=Command)
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    help="Name of the integration, such as the dbt project's.",
)
@environment_option()
@connection_options
def create(name: str, environment: str, connection: ConnectionOptions) -> None:
    """Make an integration, to receive one dbt project's artifacts."""
    name = name.strip()
    environment = environment.strip()
    integration_id = _open(connection).create_integration(name, environment)
    text = (
        f"Integration {integration_id}, {name!r}, has environment {environment}.\n"
        f"Onboard to it: datapilot dbt onboard --integration-id {integration_id}"
        f" --environment {shlex.quote(environment)}"
    )
    data = {"id": integration_id, "name": name, "environments": [environment]}
    current_output().print_result(data, text)


@click.command("show", cls=Command)
@integration_options
@environment_option()
@connection_options
def show(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    connection: ConnectionOptions,
) -> None:
    """Show an environment and how its last ingestions went."""
    client, found_id = _open_integration(integration_id, integration_name, connection)
    description = client.describe_environment(found_id, environment)
    status_url = client.status_url(found_id, environment)
    last_upload = strip_fraction(_cell(description, "last_file_upload_time"))
    lines = [
        f"Integration {found_id}, {description.get('name')!r}, environment {environment}",
        f"Last upload: {last_upload or _NO_UPLOAD}",
        f"Page: {status_url}",
    ]
    ingestions = [_ingestion_row(entry) for entry in _list_field(description, "sync_history")]
    if ingestions:
        lines.append(format_table(("time", "ingestion", "log"), ingestions))
    current_output().print_result({**description, "status_url": status_url}, "\n".join(lines))


@click.command("history", cls=Command)
@integration_options
@environment_option()
@connection_options
def history(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    connection: ConnectionOptions,
) -> None:
    """List what was onboarded, newest first.

    `*` marks what is current.
    """
    client, found_id = _open_integration(integration_id, integration_name, connection)
    description = client.describe_environment(found_id, environment)
    uploads = _list_field(description, "history")
    text = "No history: nothing was onboarded yet, or this instance keeps none."
    if uploads:
        head = ("", "file id", "kind", "uploaded", "dbt", "models", "bytes", "commit", "sha256")
        text = format_table(head, [_history_row(upload) for upload in uploads])
    data = {"integration_id": found_id, "environment": environment, "history": uploads}
    current_output().print_result(data, text)


@click.command("restore", cls=Command)
@integration_options
@environment_option()
@click.option(
    "--file-id", type=click.IntRange(min=1), required=True, help="The file id that `history` shows."
)
@connection_options
def restore(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    file_id: int,
    connection: ConnectionOptions,
) -> None:
    """Make an earlier artifact the current one again.

    Everybody who defers to this environment gets it with the next pull.
    """
    client, found_id = _open_integration(integration_id, integration_name, connection)
    receipt = client.restore(found_id, environment, file_id)
    data = {
        "ok": True,
        "integration_id": found_id,
        "environment": environment,
        "file_id": file_id,
        "sha256": receipt.sha256,
    }
    text = f"File {file_id} is current again in integration {found_id}, environment {environment}."
    current_output().print_result(data, text)


def _open(options: ConnectionOptions) -> InstanceClient:
    return Connection(options, environ=os.environ, console=current_output()).open()


def _open_integration(
    integration_id: int | None, integration_name: str | None, options: ConnectionOptions
) -> tuple[InstanceClient, int]:
    """Return the instance and the id of the selected integration."""
    integration = require_integration(integration_id, integration_name)
    client = _open(options)
    if isinstance(integration, str):
        return client, client.find_integration(integration).id
    return client, integration


def _integration_row(integration: IntegrationSummary) -> tuple[str, ...]:
    environments = ", ".join(integration.environments)
    last_upload = strip_fraction(integration.last_upload_at or _NO_UPLOAD)
    return (str(integration.id), integration.name, environments, last_upload)


def _ingestion_row(ingestion: Mapping[str, object]) -> tuple[str, ...]:
    time = strip_fraction(_cell(ingestion, "time"))
    return (time, _cell(ingestion, "type"), _cell(ingestion, "log_file"))


def _history_row(upload: Mapping[str, object]) -> tuple[str, ...]:
    mark = "*" if upload.get("current") else ""
    return (
        mark,
        _cell(upload, "dbt_core_integration_file_id"),
        _cell(upload, "file_type"),
        strip_fraction(_cell(upload, "uploaded_at")),
        _cell(upload, "dbt_version"),
        _cell(upload, "model_count"),
        _cell(upload, "size_bytes"),
        _cell(upload, "commit")[:8],
        _cell(upload, "sha256")[:12],
    )


def _cell(fields: Mapping[str, object], key: str) -> str:
    """Return one field of an answer as text; "" when it is missing or null."""
    value = fields.get(key)
    return "" if value is None else str(value)


def _list_field(fields: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    """Return the objects in one field of an answer; [] when it is not a list."""
    entries = fields.get(key)
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict)]
