"""The lock that keeps commands from overwriting each other's changes of a settings file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.config import user_cache_directory
from datapilot_defer.errors import Unavailable, UsageError
from datapilot_defer.files import acquire_lock

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_TIMEOUT_S = 30.0


@contextmanager
def lock_settings(path: Path) -> Iterator[None]:
    """Keep other commands from changing this settings file.

    The change is made without a lock where none can be taken, such as a read-only home directory.
    Raises Unavailable when another process holds the lock for too long.
    """
    lock = _acquire(path)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(path: Path) -> BaseFileLock | None:
    try:
        lock_file = _lock_file(path)
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        return acquire_lock(lock_file, LOCK_TIMEOUT_S)
    except TimeoutError:
        raise Unavailable(
            f"another process has been changing {path} for {LOCK_TIMEOUT_S:g} s; try again"
        ) from None
    except (OSError, UsageError):
        return None


def _lock_file(path: Path) -> Path:
    """Return a file in the user's cache: one beside the settings would be committed with them."""
    target = os.path.normcase(os.path.realpath(path))
    digest = hashlib.sha256(os.fsencode(target)).hexdigest()[:32]
    return user_cache_directory() / "locks" / f"{digest}.lock"
