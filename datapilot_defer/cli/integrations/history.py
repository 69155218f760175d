"""`datapilot dbt integrations`: show uploads, and restore or accept one."""

from __future__ import annotations

from collections.abc import Mapping

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.integrations.description import (
    Description,
    format_value,
    parse_description,
)
from datapilot_defer.cli.integrations.selection import open_client, open_integration
from datapilot_defer.cli.options import (
    IdType,
    connection_options,
    environment_option,
    integration_options,
)
from datapilot_defer.cli.output import current_output, format_table
from datapilot_defer.client.connection import ConnectionOptions
from datapilot_defer.formatting import strip_fraction

_MAX_SHOWN_UPLOADS = 10
_HISTORY_HEAD = (
    *("", "file id", "kind", "received", "status"),
    *("dbt", "models", "bytes", "commit", "sha256"),
)
# Publications that result from a user's decision.
_DECISIONS = {"restore": "restored", "accept": "accepted"}


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
    """Show an environment and its latest uploads.

    \b
    Example:
      datapilot dbt integrations show --integration-id 7 --environment PROD
    """
    from datapilot_defer.client import integration_calls

    client, found_id = open_integration(integration_id, integration_name, connection)
    answer = integration_calls.describe_environment(client, found_id, environment)
    description = parse_description(answer, integration_id=found_id, environment=environment)
    status_url = client.status_url(found_id, environment)
    data = {"ok": True, **description.to_json(), "status_url": status_url}
    current_output().print_result(data, _format_description(description, status_url))


def _format_description(description: Description, status_url: str) -> str:
    integration = description.integration
    # `last_upload_at` of the integration is the last one to any environment.
    syncs = description.sync_history
    times = [format_value(sync, "time") for sync in syncs if sync["type"] != "Failed"]
    last_upload = strip_fraction(max(times, default=""))
    lines = [
        f"Integration {integration['id']}, {integration['name']!r}, "
        f"environment {integration['environment']}",
        f"Last upload: {last_upload or 'nothing uploaded yet'}",
        f"Page: {status_url}",
    ]
    if description.disabled_checks:
        lines.append(f"Disabled checks: {', '.join(description.disabled_checks)}")
    if syncs:
        rows = [_sync_row(sync) for sync in syncs[:_MAX_SHOWN_UPLOADS]]
        lines.append(format_table(("time", "status", "page"), rows))
    return "\n".join(lines)


@click.command("history", cls=Command)
@integration_options
@environment_option()
@click.option("--rejected", is_flag=True, help="Include rejected uploads, with the reason.")
@connection_options
def history(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    rejected: bool,
    connection: ConnectionOptions,
) -> None:
    """List the uploads of an environment, newest first.

    `*` marks the current ones. A second list shows which uploads were restored or accepted, and the
    name of the token that was used.

    \b
    Examples:
      datapilot dbt integrations history --integration-id 7
      datapilot dbt integrations history --integration-id 7 --rejected --json
    """
    from datapilot_defer.client import integration_calls

    client, found_id = open_integration(integration_id, integration_name, connection)
    answer = integration_calls.describe_environment(
        client, found_id, environment, include_rejected=rejected
    )
    description = parse_description(answer, integration_id=found_id, environment=environment)
    data = {
        "ok": True,
        "integration_id": found_id,
        "environment": description.integration["environment"],
        "history": description.history,
        "publications": description.publications,
    }
    current_output().print_result(data, _format_history(description))


def _format_history(description: Description) -> str:
    uploads = description.history
    lines = ["No uploads yet, or this instance does not record them."]
    if uploads:
        lines = [format_table(_HISTORY_HEAD, [_history_row(upload) for upload in uploads])]
    lines += [_format_rejection(upload) for upload in uploads if upload["refusal"]]
    lines += [
        _format_decision(publication)
        for publication in description.publications
        if publication["reason"] in _DECISIONS
    ]
    return "\n".join(lines)


@click.command("restore", cls=Command)
@integration_options
@environment_option()
@click.option(
    "--file-id",
    type=IdType(),
    required=True,
    help="ID of the upload, as listed by `datapilot dbt integrations history`.",
)
@connection_options
def restore(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    file_id: int,
    connection: ConnectionOptions,
) -> None:
    """Make an earlier artifact current again.

    Everyone who defers to this environment gets it on their next pull.

    \b
    Example:
      datapilot dbt integrations restore --integration-id 7 --file-id 1200
    """
    from datapilot_defer.client import integration_calls

    client, found_id = open_integration(integration_id, integration_name, connection)
    receipt = integration_calls.restore_artifact(client, found_id, environment, file_id)
    data = {
        "ok": True,
        "integration_id": found_id,
        "environment": environment,
        "file_id": file_id,
        "sha256": receipt.sha256,
    }
    text = f"File {file_id} is current again in integration {found_id}, environment {environment}."
    current_output().print_result(data, text)


@click.command("accept", cls=Command)
@click.argument("file_id", type=IdType())
@connection_options
def accept(file_id: int, connection: ConnectionOptions) -> None:
    """Publish an upload that a safety check rejected.

    `datapilot dbt integrations history --rejected` lists the file IDs. Requires an admin token. An
    invalid artifact cannot be accepted.

    \b
    Example:
      datapilot dbt integrations accept 1234
    """
    from datapilot_defer.client import integration_calls

    accepted = integration_calls.accept_upload(open_client(connection), file_id)
    data = {
        "ok": True,
        "integration_id": accepted.integration_id,
        "environment": accepted.environment,
        "file_id": file_id,
        "sha256": accepted.sha256,
    }
    text = (
        f"File {file_id} is current in integration {accepted.integration_id}, "
        f"environment {accepted.environment}."
    )
    current_output().print_result(data, text)


def _sync_row(sync: Mapping[str, object]) -> tuple[str, ...]:
    time = strip_fraction(format_value(sync, "time"))
    return (time, format_value(sync, "type"), format_value(sync, "log_file"))


def _history_row(upload: Mapping[str, object]) -> tuple[str, ...]:
    mark = "*" if upload["current"] else ""
    status = format_value(upload, "status")
    if upload["rejection"]:
        status += f" ({upload['rejection']})"
    return (
        mark,
        format_value(upload, "file_id"),
        format_value(upload, "kind"),
        # Instances without `created_at` store no rejected uploads.
        strip_fraction(format_value(upload, "created_at") or format_value(upload, "uploaded_at")),
        status,
        format_value(upload, "dbt_version"),
        format_value(upload, "model_count"),
        format_value(upload, "size_bytes"),
        format_value(upload, "commit")[:8],
        format_value(upload, "sha256")[:12],
    )


def _format_rejection(upload: Mapping[str, object]) -> str:
    return f"File {upload['file_id']} was rejected: {upload['refusal']}"


def _format_decision(publication: Mapping[str, object]) -> str:
    file_id = format_value(publication, "file_id")
    file = f"file {file_id}" if file_id else "a file that retention has removed"
    decision = _DECISIONS[format_value(publication, "reason")]
    token_name = format_value(publication, "token_name") or "unknown"
    time = strip_fraction(format_value(publication, "since"))
    return f"{time}: {file} ({publication['kind']}) {decision} by {token_name!r}"
