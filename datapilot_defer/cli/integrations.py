"""`datapilot dbt integrations`: what an instance holds, and the way back to an earlier manifest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import (
    connect,
    environment_option,
    integration_options,
    legacy_connection_options,
    require_integration,
)
from datapilot_defer.cli.output import Output, current_output

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.client.responses import IntegrationSummary


@click.command("list", cls=Command)
@legacy_connection_options
def list_(**access: Any) -> None:
    """List the integrations of an instance."""
    report = current_output()
    every = connect(report, **access).list_integrations()
    rows = [
        (
            str(each.id),
            each.name,
            ", ".join(each.environments),
            _moment(each.last_upload_at) or "nothing uploaded yet",
        )
        for each in every
    ]
    empty = "No integrations yet: `datapilot dbt integrations create --name NAME` makes one."
    text = format_table(("id", "name", "environments", "last upload"), rows) if rows else empty
    report.print_result({"integrations": [status_json(each) for each in every]}, text)


@click.command("create", cls=Command)
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    help="Name of the integration, such as the dbt project's.",
)
@environment_option()
@legacy_connection_options
def create(name: str, environment: str, **access: Any) -> None:
    """Make an integration, to receive one dbt project's artifacts."""
    report = current_output()
    name, environment = name.strip(), environment.strip()
    made = connect(report, **access).create_integration(name, environment)
    text = (
        f"Integration {made}, {name!r}, has environment {environment}.\n"
        f"Onboard to it: datapilot dbt onboard --integration-id {made} --environment {shlex.quote(environment)}"
    )
    report.print_result({"id": made, "name": name, "environments": [environment]}, text)


@click.command("show", cls=Command)
@integration_options
@environment_option()
@legacy_connection_options
def show(
    integration_id: int | None, integration_name: str | None, environment: str, **access: Any
) -> None:
    """Show an environment and how its last ingestions went."""
    report = current_output()
    instance, found = _open_integration(report, integration_id, integration_name, access)
    about = instance.describe_environment(found, environment)
    rows = [
        (_moment(entry.get("time")), str(entry.get("type") or ""), str(entry.get("log_file") or ""))
        for entry in _list_field(about, "sync_history")
    ]
    lines = [
        f"Integration {found}, {about.get('name')!r}, environment {environment}",
        f"Last upload: {_moment(about.get('last_file_upload_time')) or 'nothing uploaded yet'}",
        f"Page: {instance.status_url(found, environment)}",
    ]
    text = "\n".join(
        [*lines, *([format_table(("time", "ingestion", "log"), rows)] if rows else [])]
    )
    report.print_result({**about, "status_url": instance.status_url(found, environment)}, text)


@click.command("history", cls=Command)
@integration_options
@environment_option()
@legacy_connection_options
def history(
    integration_id: int | None, integration_name: str | None, environment: str, **access: Any
) -> None:
    """List what was onboarded, newest first.

    `*` marks what is current.
    """
    report = current_output()
    instance, found = _open_integration(report, integration_id, integration_name, access)
    uploads = _list_field(instance.describe_environment(found, environment), "history")
    head = ("", "file id", "kind", "uploaded", "dbt", "models", "bytes", "commit", "sha256")
    text = format_table(head, [_history_row(upload) for upload in uploads])
    if not uploads:
        text = "No history: nothing was onboarded yet, or this instance keeps none."
    report.print_result(
        {"integration_id": found, "environment": environment, "history": uploads}, text
    )


def _history_row(upload: Mapping[str, Any]) -> tuple[str, ...]:
    keys = (
        "dbt_core_integration_file_id",
        "file_type",
        "uploaded_at",
        "dbt_version",
        "model_count",
        "size_bytes",
    )
    facts = ["" if upload.get(key) is None else str(upload.get(key)) for key in keys]
    facts[2] = _moment(upload.get("uploaded_at"))
    commit, sha256 = str(upload.get("commit") or "")[:8], str(upload.get("sha256") or "")[:12]
    return ("*" if upload.get("current") else "", *facts, commit, sha256)


@click.command("restore", cls=Command)
@integration_options
@environment_option()
@click.option(
    "--file-id", type=click.IntRange(min=1), required=True, help="The file id that `history` shows."
)
@legacy_connection_options
def restore(
    integration_id: int | None,
    integration_name: str | None,
    environment: str,
    file_id: int,
    **access: Any,
) -> None:
    """Make an earlier artifact the current one again.

    Everybody who defers to this environment gets it with the next pull.
    """
    report = current_output()
    instance, found = _open_integration(report, integration_id, integration_name, access)
    stored = instance.restore(found, environment, file_id)
    data = {
        "ok": True,
        "integration_id": found,
        "environment": environment,
        "file_id": file_id,
        "sha256": stored.sha256,
    }
    report.print_result(
        data, f"File {file_id} is current again in integration {found}, environment {environment}."
    )


def _open_integration(
    report: Output,
    integration_id: int | None,
    integration_name: str | None,
    access: Mapping[str, Any],
) -> tuple[InstanceClient, int]:
    """The instance, and the id of the integration that was named."""
    integration = require_integration(integration_id, integration_name)
    instance = connect(report, **access)
    return instance, integration if isinstance(integration, int) else instance.find_integration(
        integration
    ).id


def _list_field(about: Mapping[str, object], key: str) -> list[Mapping[str, Any]]:
    entries = about.get(key)
    return (
        [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )


def status_json(integration: IntegrationSummary) -> dict[str, object]:
    return integration.to_json()


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in columns, each as wide as its widest cell; cells hold no control characters."""
    cells = [[_printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _moment(time: object) -> str:
    """A time as the instance gives it, without the parts of a second; "" when it gives none."""
    return re.sub(r"\.\d+", "", str(time)) if time else ""


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
