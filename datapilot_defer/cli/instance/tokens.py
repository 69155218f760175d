"""`datapilot instance token`: create, list and revoke tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command, Group
from datapilot_defer.cli.instance.options import (
    command_line_actor,
    data_option,
    instance_name_option,
    open_storage_or_explain,
)
from datapilot_defer.cli.options import IdType
from datapilot_defer.cli.output import current_output, format_table

if TYPE_CHECKING:
    from datapilot_defer.storage.tokens import Token

# A copy of services.principal.SCOPES, so that `--help` does not import the services.
_SCOPES = ["read", "upload", "admin"]
_COLUMNS = ("id", "instance", "name", "scopes", "integration", "state", "expires", "last used")


@click.group("token", cls=Group)
def token() -> None:
    """Create, list and revoke the tokens of an instance."""


@token.command("create", cls=Command)
@data_option
@instance_name_option("Instance to create the token for, if the data directory has several.")
@click.option("--name", required=True, help="Name of the token in the history and the audit log.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(_SCOPES),
    help="Permission: read to pull, upload to onboard, admin for everything. Repeatable.",
)
@click.option("--integration-id", type=IdType(), help="Restrict the token to this integration.")
@click.option(
    "--expires-days",
    default=90,
    show_default=True,
    type=click.IntRange(0, 36500),
    help="Expire the token after this many days. 0 disables expiration.",
)
def create(
    data: Path,
    instance_name: str | None,
    name: str,
    scopes: tuple[str, ...],
    integration_id: int | None,
    expires_days: int,
) -> None:
    """Create a token and print it once.

    Only its hash is stored.

    \b
    Examples:
      datapilot instance token create --data /srv/dp --name ann --scope read
      datapilot instance token create --data /srv/dp --name job --scope upload
    """
    expires_at = None
    if expires_days:
        expires_at = datetime.now(UTC) + timedelta(days=expires_days)
    with open_storage_or_explain(data, create=False) as storage:
        from datapilot_defer.instance.services import tokens

        record, secret = tokens.create_token(
            storage,
            instance_name,
            name=name,
            scopes=frozenset(scopes),
            integration_id=integration_id,
            expires_at=expires_at,
            actor=command_line_actor(),
        )
    result = {"ok": True, **_token_json(record), "token": secret}
    output = current_output()
    output.shows_tokens = True
    output.print_result(result, secret)


@token.command("list", cls=Command)
@data_option
@instance_name_option("Only tokens of this instance.")
def list_(data: Path, instance_name: str | None) -> None:
    """List tokens with their names, scopes and last use.

    The tokens themselves are not stored.

    \b
    Example:
      datapilot instance token list --data /srv/datapilot
    """
    with open_storage_or_explain(data, create=False) as storage:
        from datapilot_defer.instance.services import tokens

        listed = tokens.list_tokens(storage, instance_name)
    rows = [_token_row(name, record) for name, record in listed]
    text = "no tokens"
    if rows:
        text = format_table(_COLUMNS, rows)
    bodies = [{"instance_name": name, **_token_json(record)} for name, record in listed]
    current_output().print_result({"ok": True, "tokens": bodies}, text)


@token.command("revoke", cls=Command)
@data_option
@click.argument("token_id", type=IdType(), metavar="ID")
def revoke(data: Path, token_id: int) -> None:
    """Revoke a token by its ID, permanently, and end its sessions.

    \b
    Example:
      datapilot instance token revoke --data /srv/datapilot 12
    """
    with open_storage_or_explain(data, create=False) as storage:
        from datapilot_defer.instance.services import tokens

        tokens.revoke_token(storage, token_id, command_line_actor())
    result = {"ok": True, "id": token_id, "revoked": True}
    current_output().print_result(result, f"Token {token_id} is revoked.")


def _token_row(instance_name: str, record: Token) -> tuple[str, ...]:
    return (
        str(record.id),
        instance_name,
        record.name,
        ",".join(sorted(record.scopes)),
        str(record.integration_id or "all"),
        _token_state(record),
        _format_time(record.expires_at),
        _format_time(record.last_used_at),
    )


def _format_time(moment: datetime | None) -> str:
    if moment is None:
        return "never"
    return moment.isoformat(timespec="seconds")


def _token_state(record: Token) -> str:
    if record.revoked_at is not None:
        return "revoked"
    if record.is_valid:
        return "valid"
    return "expired"


def _token_json(record: Token) -> dict[str, object]:
    return {
        "id": record.id,
        "name": record.name,
        "scopes": sorted(record.scopes),
        "integration_id": record.integration_id,
        "expires_at": _iso_time(record.expires_at),
        "last_used_at": _iso_time(record.last_used_at),
        "state": _token_state(record),
    }


def _iso_time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.isoformat()
