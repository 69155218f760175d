"""`datapilot instance audit`."""

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
from datapilot_defer.cli.output import current_output, format_table
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.storage.audit import AuditEvent

_COLUMNS = ("time", "action", "actor", "address", "integration", "detail")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@click.command("audit", cls=Command)
@data_option
@instance_name_option("Instance whose audit log is printed, if the data directory has several.")
@click.option(
    "--since",
    metavar="TIME",
    help="Only entries since this age (7d, 24h), date (2026-11-01) or timestamp.",
)
@click.option(
    "--limit",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Maximum number of entries.",
)
def audit(data: Path, instance_name: str | None, since: str | None, limit: int) -> None:
    """Print the audit log of an instance, newest entries first.

    It records changes to tokens and integrations, restored and accepted artifacts, skipped checks
    and failed sign-ins, each with the name of the token or user, and the IP address.

    \b
    Examples:
      datapilot instance audit --data /srv/datapilot
      datapilot instance audit --data /srv/datapilot --since 7d --json
    """
    moment = None
    if since is not None:
        moment = _parse_moment(since)
    with open_storage_or_explain(data, create=False) as storage:
        from datapilot_defer.instance.services import audit as audit_service

        events = audit_service.list_events_of_instance(
            storage, instance_name, limit=limit, since=moment
        )
    text = "no entries"
    if events:
        text = format_table(_COLUMNS, [_event_row(event) for event in events])
    result = {"ok": True, "events": [_event_json(event) for event in events]}
    current_output().print_result(result, text)


def _parse_moment(text: str) -> datetime:
    """Return a time in UTC. The text is an ISO timestamp or an age such as 7d."""
    try:
        if text[-1:] in _UNITS and text[:-1].isdecimal():
            return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since: {text!r} is not a valid time. Use an age such as 7d or 24h, a date "
            "such as 2026-11-01, or an ISO timestamp."
        ) from None


def _event_row(event: AuditEvent) -> tuple[str, ...]:
    return (
        event.at.isoformat(timespec="seconds"),
        event.action,
        event.actor,
        event.address or "",
        str(event.integration_id or ""),
        event.detail,
    )


def _event_json(event: AuditEvent) -> dict[str, object]:
    return {
        "id": event.id,
        "at": event.at.isoformat(),
        "action": event.action,
        "actor": event.actor,
        "token_id": event.token_id,
        "address": event.address,
        "integration_id": event.integration_id,
        "detail": event.detail,
    }
