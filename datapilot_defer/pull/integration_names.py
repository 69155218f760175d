"""The ids of integrations by their names, as an instance told them: for when it can't be asked."""

from __future__ import annotations

import json
from pathlib import Path

from datapilot_defer.errors import UsageError
from datapilot_defer.pull.state_directory import instance_cache_directory, write_temporary

_FILE = "names.json"


def _read_cached_id(url: str, instance_name: str, name: str) -> int | None:
    """The id that this integration had when its name was last looked up; None when it never was."""
    try:
        return _read_cache(instance_cache_directory(url, instance_name) / _FILE).get(name)
    except UsageError:  # no home: nothing is kept
        return None


def _cache_id(url: str, instance_name: str, name: str, integration_id: int) -> None:
    """Keep the id for later. A cache that can't be written to is no reason to fail: the name is then asked for again.

    Of two processes that write at once the last one wins, and a name that is lost is looked up anew.
    """
    made: Path | None = None
    try:
        folder = instance_cache_directory(url, instance_name)
        names = _read_cache(folder / _FILE)
        if names.get(name) == integration_id:
            return
        folder.mkdir(parents=True, exist_ok=True)
        made = write_temporary(
            folder,
            json.dumps({**names, name: integration_id}, indent=2, ensure_ascii=False).encode(),
        )
        made.replace(folder / _FILE)
    except (OSError, UsageError):
        if made is not None:
            made.unlink(missing_ok=True)


def _read_cache(file: Path) -> dict[str, int]:
    try:
        said = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return (
        {name: found for name, found in said.items() if type(found) is int}
        if isinstance(said, dict)
        else {}
    )
