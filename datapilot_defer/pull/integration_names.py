"""The ids of integrations by name, cached for when the instance cannot be asked."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.errors import NotFound, Unavailable, UsageError
from datapilot_defer.files import write_atomically
from datapilot_defer.pull.state_directory import instance_cache_directory

if TYPE_CHECKING:
    from datapilot_defer.client.connection import Connection, InstanceAddress

LOOKUP_TIMEOUT_S = 10.0  # for a name whose id is cached
_CACHE_FILE = "names.json"


def resolve_integration_id(connection: Connection, integration: int | str, *, offline: bool) -> int:
    """Return the id of an integration, given by id or name.

    The instance resolves a name. When it is unavailable, the id that the name had before counts,
    and the connection is marked as unavailable. offline: use the cached id only.
    Raises NotFound for an unknown name, Unavailable.
    """
    if isinstance(integration, int):
        return integration
    cached_id = _read_cached_id(connection.address, integration)
    if offline:
        if cached_id is None:
            raise NotFound(
                f"integration {integration!r}: offline, a name that was never looked up can't be; "
                "give --integration-id"
            )
        return cached_id
    timeout_s = None
    if cached_id is not None:
        timeout_s = LOOKUP_TIMEOUT_S
    try:
        current_id = connection.open(timeout_s).find_integration(integration).id
    except Unavailable as error:
        if cached_id is None:
            raise
        connection.mark_unavailable(error)
        return cached_id
    if current_id != cached_id:
        _cache_id(connection.address, integration, current_id)
    return current_id


def find_cached_name(address: InstanceAddress, integration_id: int) -> str | None:
    """Return the name by which an integration was last looked up; None when it never was."""
    try:
        ids = _read_cache(_cache_path(address))
    except UsageError:  # no home directory: there is no cache
        return None
    return next((name for name in reversed(ids) if ids[name] == integration_id), None)


def _read_cached_id(address: InstanceAddress, name: str) -> int | None:
    """Return the id that a name had when it was last looked up."""
    try:
        return _read_cache(_cache_path(address)).get(name)
    except UsageError:  # no home directory: there is no cache
        return None


def _cache_id(address: InstanceAddress, name: str, integration_id: int) -> None:
    """Cache the id of a name. When the cache cannot be written, the name is looked up again.

    The last one of two concurrent writers wins. A lost name is looked up again.
    """
    with suppress(OSError, UsageError):
        path = _cache_path(address)
        ids = {**_read_cache(path), name: integration_id}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(ids, indent=2, ensure_ascii=False).encode())


def _cache_path(address: InstanceAddress) -> Path:
    return instance_cache_directory(address) / _CACHE_FILE


def _read_cache(path: Path) -> dict[str, int]:
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return {}
