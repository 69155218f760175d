"""`datapilot auth status`: the credentials in use and their permissions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import connection_options
from datapilot_defer.cli.output import current_output, mask_token
from datapilot_defer.client.connection import Connection, ConnectionOptions
from datapilot_defer.client.token_expiry import describe_expiry
from datapilot_defer.config import Setting
from datapilot_defer.errors import AccessDenied, DatapilotError, Unavailable
from datapilot_defer.formatting import format_timestamp

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient


@click.command("status", cls=Command)
@connection_options
def status(connection: ConnectionOptions) -> None:
    """Show which credentials are in use and what they permit.

    Shows where the URL, instance name and token come from, and asks the instance whether it accepts
    them. The token is masked.

    \b
    Examples:
      datapilot auth status
      datapilot auth status --json
    """
    output = current_output()
    instance = Connection(connection, environ=os.environ, console=output)
    effective = instance.credentials
    parts = {
        "url": effective.url,
        "instance_name": effective.instance_name,
        "token": Setting(mask_token(effective.token.value), effective.token.origin),
    }
    access = _check_access(instance.open())
    data: dict[str, object] = {
        "ok": access.error is None,
        "exit_code": access.exit_code,
        "accepted": access.accepted,
        "problem": access.problem,
        "may_upload": access.may_upload,
        "token_expires_at": None,
    }
    lines = []
    for name, part in parts.items():
        data[name] = part.value
        data[f"{name}_origin"] = part.origin
        label = f"{name.replace('_', ' ')}:"
        lines.append(f"{label:15}{part.value}  ({part.origin})")
    lines.append(f"{'accepted:':15}{_format_access(access)}")
    if access.token_expires_at is not None:
        data["token_expires_at"] = access.token_expires_at.isoformat()
        lines.append(f"{'token expires:':15}{format_timestamp(access.token_expires_at)}")
    expiry_warning = describe_expiry(access.token_expires_at, effective.url.value)
    if expiry_warning is not None:
        output.warn(expiry_warning)
    if access.problem is not None:
        output.annotate_error(access.problem)
        output.summarize("failed", access.problem)
    output.print_result(data, "\n".join(lines))
    output.exit(access.exit_code)


@dataclass(frozen=True)
class _Access:
    """Access to an instance. An unknown permission is None.

    error: why the credentials are not accepted, or could not be checked. token_expires_at: None if
    it never expires or is unknown.
    """

    error: DatapilotError | None = None
    may_upload: bool | None = None
    token_expires_at: datetime | None = None

    @property
    def accepted(self) -> bool | None:
        """Return whether the instance accepts the credentials; None if that is unknown."""
        if isinstance(self.error, Unavailable):
            return None
        return self.error is None

    @property
    def problem(self) -> str | None:
        """Return the message of the error, or None."""
        if self.error is None:
            return None
        return str(self.error)

    @property
    def exit_code(self) -> int:
        """Return the exit code of the error, or 0."""
        return self.error.exit_code if self.error else 0


def _check_access(client: InstanceClient) -> _Access:
    """Ask the instance whether it accepts the credentials and whether they permit uploads."""
    try:
        expires_at = client.check_credentials()
    except DatapilotError as error:
        return _Access(error)
    may_upload: bool | None = True
    try:
        client.check_permissions()
    except AccessDenied:
        may_upload = False
    except DatapilotError:
        may_upload = None
    return _Access(may_upload=may_upload, token_expires_at=expires_at)


def _format_access(access: _Access) -> str:
    if access.problem is not None:
        return access.problem
    if access.may_upload is None:
        return "yes, but it is unknown whether the token may upload"
    if access.may_upload:
        return "yes, and the token may upload"
    return "yes, but the token may not upload"
