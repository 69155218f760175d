"""The instance and the integration that a command selects."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from datapilot_defer.cli.options import require_integration
from datapilot_defer.cli.output import current_output
from datapilot_defer.client.connection import Connection, ConnectionOptions

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient


def open_client(options: ConnectionOptions) -> InstanceClient:
    """Return a client for the selected instance."""
    return Connection(options, environ=os.environ, console=current_output()).open()


def open_integration(
    integration_id: int | None, integration_name: str | None, options: ConnectionOptions
) -> tuple[InstanceClient, int]:
    """Return a client for the selected instance, and the ID of the selected integration."""
    integration = require_integration(integration_id, integration_name)
    client = open_client(options)
    if isinstance(integration, str):
        return client, client.find_integration(integration).id
    return client, integration
