"""`datapilot dbt integrations`: show what was uploaded; restore or accept an upload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.integrations.selection import (
    list_field,
    open_client,
    open_integration,
    text_field,
)
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
# The reasons of a publication that a person has decided.
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
    """Show an environment and its last uploads."""
    from datapilot_defer.client import integration_calls

    client, found_id = open_integration(integration_id, integration_name, connection)
    description = integration_calls.describe_environment(client, found_id, environment)
    status_url = client.status_url(found_id, environment)
    last_upload = strip_fraction(text_field(description, "last_file_upload_time"))
    lines = [
        f"Integration {found_id}, {description.get('name')!r}, environment {environment}",
        f"Last upload: {last_upload or 'nothing uploaded yet'}",
        f"Page: {status_url}",
    ]
    disabled_checks = description.get("disabled_checks")
    if isinstance(disabled_checks, list) and disabled_checks:
        lines.append(f"Disabled checks: {', '.join(map(str, disabled_checks))}")
    syncs = list_field(description, "sync_history")[:_MAX_SHOWN_UPLOADS]
    if syncs:
        lines.append(format_table(("time", "status", "page"), [_sync_row(sync) for sync in syncs]))
    current_output().print_result({**description, "status_url": status_url}, "\n".join(lines))


@click.command("history", cls=Command)
@integration_options
@environment_option()
@click.option("--rejected", is_flag=True, help="List rejected uploads too, with the reason.")
@connection_options
def history(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    rejected: bool,
    connection: ConnectionOptions,
) -> None:
    """List the uploads of an environment, newest first.

    `*` marks what is current. Restores and accepted uploads are listed below, with the token that
    was used.
    """
    from datapilot_defer.client import integration_calls

    client, found_id = open_integration(integration_id, integration_name, connection)
    description = integration_calls.describe_environment(
        client, found_id, environment, include_rejected=rejected
    )
    uploads = list_field(description, "history")
    publications = list_field(description, "publications")
    lines = _format_history(uploads, publications)
    data = {
        "integration_id": found_id,
        "environment": environment,
        "history": uploads,
        "publications": publications,
    }
    current_output().print_result(data, "\n".join(lines))


def _format_history(
    uploads: Sequence[Mapping[str, object]], publications: Sequence[Mapping[str, object]]
) -> list[str]:
    lines = ["No history: nothing was uploaded yet, or this instance keeps no history."]
    if uploads:
        lines = [format_table(_HISTORY_HEAD, [_history_row(upload) for upload in uploads])]
    lines += [_format_rejection(upload) for upload in uploads if upload.get("refusal")]
    lines += [
        _format_decision(publication)
        for publication in publications
        if publication.get("reason") in _DECISIONS
    ]
    return lines


@click.command("restore", cls=Command)
@integration_options
@environment_option()
@click.option("--file-id", type=IdType(), required=True, help="The file id that `history` shows.")
@connection_options
def restore(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    file_id: int,
    connection: ConnectionOptions,
) -> None:
    """Make an earlier artifact the current one again.

    All who defer to this environment get it with the next pull.
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
    """Make an upload current that a safety check rejected.

    FILE_ID is shown by `datapilot dbt integrations history --rejected`. Requires an admin token. An
    invalid artifact cannot be accepted.
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
    time = strip_fraction(text_field(sync, "time"))
    return (time, text_field(sync, "type"), text_field(sync, "log_file"))


def _history_row(upload: Mapping[str, object]) -> tuple[str, ...]:
    mark = "*" if upload.get("current") else ""
    status = text_field(upload, "status")
    if upload.get("rejection"):
        status += f" ({text_field(upload, 'rejection')})"
    return (
        mark,
        text_field(upload, "dbt_core_integration_file_id"),
        text_field(upload, "file_type"),
        # Instances without `created_at` keep no rejected uploads.
        strip_fraction(text_field(upload, "created_at") or text_field(upload, "uploaded_at")),
        status,
        text_field(upload, "dbt_version"),
        text_field(upload, "model_count"),
        text_field(upload, "size_bytes"),
        text_field(upload, "commit")[:8],
        text_field(upload, "sha256")[:12],
    )


def _format_rejection(upload: Mapping[str, object]) -> str:
    file_id = text_field(upload, "dbt_core_integration_file_id")
    return f"File {file_id} was rejected: {text_field(upload, 'refusal')}"


def _format_decision(publication: Mapping[str, object]) -> str:
    file_id = text_field(publication, "dbt_core_integration_file_id")
    file = f"file {file_id}" if file_id else "a file that retention has removed"
    decision = _DECISIONS[text_field(publication, "reason")]
    token_name = text_field(publication, "token_name") or "unknown"
    time = strip_fraction(text_field(publication, "since"))
    return f"{time}: {file} ({text_field(publication, 'file_type')}) {decision} by {token_name!r}"
