"""`datapilot instance audit`: the audit log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.instance.options import (
    data_option,
    instance_name_option,
    open_storage_or_explain,
)
from datapilot_defer.cli.options import parse_duration
from datapilot_defer.cli.output import current_output, format_table

if TYPE_CHECKING:
    from datapilot_defer.storage.audit import AuditEvent

_COLUMNS = ("time", "action", "actor", "address", "integration", "detail")


def _parse_since(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Return the time of an age such as 7d, of a date or of a timestamp, by default in UTC."""
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        moment = None
    try:
        if moment is not None:
            return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        seconds = parse_duration(value)
        if seconds is not None:
            return datetime.now(UTC) - timedelta(seconds=seconds)
    except OverflowError:
        pass
    raise click.BadParameter(
        f"{value!r} is not a time. Use an age such as 7d, a date such as 2026-11-01, or an ISO "
        "timestamp.",
        ctx,
        param,
    )


@click.command("audit", cls=Command)
@data_option
@instance_name_option("Instance, if the data directory contains several.")
@click.option(
    "--since",
    metavar="TIME",
    callback=_parse_since,
    help="Only entries since an age (7d), a date or an ISO timestamp (UTC).",
)
@click.option(
    "--limit",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Maximum number of entries.",
)
def audit(data: Path, instance_name: str | None, since: datetime | None, limit: int) -> None:
    """List who changed tokens, integrations and artifacts, newest first."""
    with open_storage_or_explain(data, create=False) as storage:
        from datapilot_defer.instance.services.audit import list_events_of_instance

        events = list_events_of_instance(storage, instance_name, limit=limit, since=since)
    text = "no entries"
    if events:
        text = format_table(_COLUMNS, [_event_row(event) for event in events])
    bodies = [_event_json(event) for event in events]
    current_output().print_result({"events": bodies}, text)


def _event_row(event: AuditEvent) -> tuple[str, ...]:
    return (
        event.at.isoformat(timespec="seconds"),
        str(event.action),
        event.actor,
        event.address or "",
        str(event.integration_id or ""),
        event.detail,
    )


def _event_json(event: AuditEvent) -> dict[str, object]:
    return {
        "id": event.id,
        "at": event.at.isoformat(),
        "action": str(event.action),
        "actor": event.actor,
        "token_id": event.token_id,
        "address": event.address,
        "integration_id": event.integration_id,
        "detail": event.detail,
    }
