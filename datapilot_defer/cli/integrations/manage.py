"""`datapilot dbt integrations`: list, create, rename, delete and undelete integrations."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.integrations.selection import open_client
from datapilot_defer.cli.options import (
    connection_options,
    environment_option,
    integration_options,
    require_integration,
)
from datapilot_defer.cli.output import Output, current_output, format_table
from datapilot_defer.client.connection import ConnectionOptions
from datapilot_defer.errors import UsageError
from datapilot_defer.formatting import strip_fraction, utc_timestamp

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.client.responses import IntegrationSummary

_NO_UPLOAD = "nothing uploaded yet"


@click.command("list", cls=Command)
@click.option("--deleted", is_flag=True, help="List deleted integrations instead.")
@connection_options
def list_(deleted: bool, connection: ConnectionOptions) -> None:
    """List the integrations of an instance.

    \b
    Examples:
      datapilot dbt integrations list
      datapilot dbt integrations list --deleted --json
    """
    client = open_client(connection)
    if deleted:
        _list_deleted(client)
        return
    integrations = client.list_integrations()
    text = "No integrations yet. Create one with `datapilot dbt integrations create`."
    if integrations:
        rows = [_integration_row(integration) for integration in integrations]
        text = format_table(("id", "name", "environments", "last upload"), rows)
    data = [integration.to_json() for integration in integrations]
    current_output().print_result({"ok": True, "integrations": data}, text)


def _list_deleted(client: InstanceClient) -> None:
    from datapilot_defer.client import integration_calls

    integrations = integration_calls.list_deleted_integrations(client)
    text = "No deleted integrations, or this instance does not store them."
    if integrations:
        rows = [
            (*_integration_row(integration), strip_fraction(integration.purge_at or ""))
            for integration in integrations
        ]
        text = format_table(("id", "name", "environments", "last upload", "kept until"), rows)
    data = [
        {**integration.to_json(), "purge_at": utc_timestamp(integration.purge_at)}
        for integration in integrations
    ]
    current_output().print_result({"ok": True, "integrations": data}, text)


@click.command("create", cls=Command)
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    help="Name of the integration, for example the dbt project's name.",
)
@environment_option()
@connection_options
def create(name: str, environment: str, connection: ConnectionOptions) -> None:
    """Create an integration for one dbt project.

    If the integration already exists, adds the environment to it.

    \b
    Examples:
      datapilot dbt integrations create --name shop
      datapilot dbt integrations create --name shop --environment CI
    """
    from datapilot_defer.client import integration_calls

    name = name.strip()
    environment = environment.strip()
    client = open_client(connection)
    integration_id = integration_calls.create_integration(client, name, environment)
    text = (
        f"Integration {integration_id}, {name!r}, has environment {environment}.\n"
        f"Onboard to it: datapilot dbt onboard --integration-id {integration_id}"
        f" --environment {shlex.quote(environment)}"
    )
    data = {"ok": True, "id": integration_id, "name": name, "environments": [environment]}
    current_output().print_result(data, text)


@click.command("rename", cls=Command)
@integration_options
@click.option("--to", "new_name", required=True, metavar="NAME", help="New name.")
@connection_options
def rename(
    integration_id: int | None,
    integration_name: str | None,
    new_name: str,
    connection: ConnectionOptions,
) -> None:
    """Rename an integration.

    From then on, --integration-name must be given the new name. The ID stays the same.

    \b
    Example:
      datapilot dbt integrations rename --integration-name shop --to store
    """
    from datapilot_defer.client import integration_calls

    selected = require_integration(integration_id, integration_name)
    client = open_client(connection)
    integration = integration_calls.get_integration(client, selected)
    new_name = new_name.strip()
    integration_calls.rename_integration(client, integration.id, new_name)
    data = {"ok": True, "id": integration.id, "name": new_name, "previous_name": integration.name}
    text = f"Renamed integration {integration.id} from {integration.name!r} to {new_name!r}."
    current_output().print_result(data, text)


@click.command("delete", cls=Command)
@integration_options
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@connection_options
def delete(
    integration_id: int | None,
    integration_name: str | None,
    yes: bool,
    connection: ConnectionOptions,
) -> None:
    """Delete an integration with all its environments.

    Onboarding to it and pulling from it fail from then on. It can be undeleted for 30 days, and its
    name stays reserved during this time. After that, it and its artifacts are permanently removed.

    \b
    Example:
      datapilot dbt integrations delete --integration-name store
    """
    from datapilot_defer.client import integration_calls

    selected = require_integration(integration_id, integration_name)
    output = current_output()
    if not yes and not output.interactive:
        raise UsageError(
            "deleting an integration must be confirmed on a terminal, outside CI and without "
            "--json. Add --yes to delete it without confirmation."
        )
    client = open_client(connection)
    integration = integration_calls.get_integration(client, selected)
    if not yes:
        _confirm_deletion(output, integration)
    deleted = integration_calls.delete_integration(client, integration.id)
    data = {
        "ok": True,
        "id": integration.id,
        "name": integration.name,
        "deleted_at": utc_timestamp(deleted.deleted_at),
        "purge_at": utc_timestamp(deleted.purge_at),
    }
    lines = [f"Deleted integration {integration.id}, {integration.name!r}."]
    if deleted.purge_at:
        lines.append(
            f"Until {strip_fraction(deleted.purge_at)}, this command restores it: "
            f"datapilot dbt integrations undelete --integration-id {integration.id}"
        )
    output.print_result(data, "\n".join(lines))


def _confirm_deletion(output: Output, integration: IntegrationSummary) -> None:
    """Ask the user to type the name of the integration.

    Raises UsageError if another name is typed.
    """
    environments = ", ".join(integration.environments) or "none"
    output.warn(
        f"this deletes integration {integration.id}, {integration.name!r}, "
        f"with all its environments: {environments}"
    )
    typed = output.ask("name of the integration, to confirm")
    if typed.strip() != integration.name.strip():
        raise UsageError(
            f"nothing was deleted: {typed!r} is not the name of integration {integration.id}, "
            f"{integration.name!r}"
        )


@click.command("undelete", cls=Command)
@integration_options
@connection_options
def undelete(
    integration_id: int | None, integration_name: str | None, connection: ConnectionOptions
) -> None:
    """Undelete an integration.

    Brings back its environments and artifacts unchanged.

    \b
    Example:
      datapilot dbt integrations undelete --integration-name store
    """
    from datapilot_defer.client import integration_calls

    selected = require_integration(integration_id, integration_name)
    client = open_client(connection)
    integration = integration_calls.get_deleted_integration(client, selected)
    integration_calls.undelete_integration(client, integration.id)
    environments = list(integration.environments)
    data = {
        "ok": True,
        "id": integration.id,
        "name": integration.name,
        "environments": environments,
    }
    text = f"Undeleted integration {integration.id}, {integration.name!r}."
    current_output().print_result(data, text)


def _integration_row(integration: IntegrationSummary) -> tuple[str, ...]:
    environments = ", ".join(integration.environments)
    last_upload = strip_fraction(integration.last_upload_at or _NO_UPLOAD)
    return (str(integration.id), integration.name, environments, last_upload)
