"""A cache of integration IDs by name, for use when the instance is not available."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from datapilot_defer.errors import NotFound, Unavailable, UsageError
from datapilot_defer.files import read_regular_file, write_atomically
from datapilot_defer.pull.state_directory import instance_cache_directory

if TYPE_CHECKING:
    from datapilot_defer.client.connection import Connection, InstanceAddress

_CACHE_FILE = "names.json"
_MAX_CACHE_BYTES = 16 * 1024 * 1024


def resolve_integration_id(connection: Connection, integration: int | str, *, offline: bool) -> int:
    """Return the ID of an integration, given by ID or name.

    The instance resolves a name. If it is unavailable, the cached ID is used, and
    `connection.unavailable` keeps the error. offline: use the cached ID only.

    Raises NotFound for an unknown name, UsageError if several integrations have it, and Unavailable
    if the instance is unavailable and no ID is cached.
    """
    if isinstance(integration, int):
        return integration
    cached_id = _read_cached_id(connection.address, integration)
    if offline:
        if cached_id is None:
            raise NotFound(
                f"integration {integration!r} was never looked up before, and cannot be "
                "looked up offline. Use --integration-id"
            )
        return cached_id
    try:
        current_id = _look_up_id(connection, integration, is_cached=cached_id is not None)
    except Unavailable as error:
        if cached_id is None:
            raise
        connection.unavailable = error
        return cached_id
    if current_id != cached_id:
        _cache_id(connection.address, integration, current_id)
    return current_id


def _look_up_id(connection: Connection, name: str, *, is_cached: bool) -> int:
    client = connection.open()
    if is_cached:
        client = connection.open_briefly()
    return client.find_integration(name).id


def find_cached_name(address: InstanceAddress, integration_id: int) -> str | None:
    """Return the name that was last cached for the ID of an integration, or None."""
    try:
        ids = _read_cache(_cache_path(address))
    except UsageError:  # without a home directory there is no cache
        return None
    return next((name for name in reversed(ids) if ids[name] == integration_id), None)


def _read_cached_id(address: InstanceAddress, name: str) -> int | None:
    """Return the ID that a name had when it was last looked up; None if it is not cached."""
    try:
        return _read_cache(_cache_path(address)).get(name)
    except UsageError:  # without a home directory there is no cache
        return None


def _cache_id(address: InstanceAddress, name: str, integration_id: int) -> None:
    """Cache the ID of a name. An error is ignored, because the name can be looked up again.

    If two processes write at the same time, the last one wins, and the other name is looked up
    again.
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

    positive = Annotated[int, msgspec.Meta(ge=1)]
    try:
        content = read_regular_file(path, _MAX_CACHE_BYTES)
        return msgspec.json.decode(content, type=dict[str, positive])
    except (OSError, msgspec.MsgspecError):
        return {}
