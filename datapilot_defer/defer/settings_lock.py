"""A lock that prevents concurrent changes of a settings file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.errors import Unavailable

if sys.platform == "win32":
    import hashlib

    from datapilot_defer.config import user_cache_directory
    from datapilot_defer.errors import UsageError
    from datapilot_defer.files import acquire_lock
else:
    import fcntl

if TYPE_CHECKING:
    from datapilot_defer.deadline import Deadline

LOCK_TIMEOUT_S = 30.0
_RETRY_INTERVAL_S = 0.02


@contextmanager
def lock_settings(path: Path, deadline: Deadline | None = None) -> Iterator[None]:
    """Prevent other commands from changing this settings file, whose directory must exist.

    deadline: that of the command. The wait for the lock ends there, or after LOCK_TIMEOUT_S if that
    is earlier. On a file system without locks, the change is made without one.

    Raises Unavailable if another process holds the lock for too long.
    """
    timeout_s = LOCK_TIMEOUT_S
    if deadline is not None:
        timeout_s = min(timeout_s, deadline.remaining())
    try:
        release = _acquire(Path(os.path.realpath(path)), timeout_s)
    except TimeoutError:
        raise Unavailable(
            f"another process has been changing {path} for {timeout_s:.3g} s. Try again"
        ) from None
    try:
        yield
    finally:
        release()


def _lock_nothing() -> None:
    """Release nothing, because no lock could be acquired."""


if sys.platform == "win32":

    def _acquire(target: Path, timeout_s: float) -> Callable[[], object]:
        """Lock a file in the user's cache. Return the function that releases the lock.

        A lock file beside the settings might be committed.
        """
        digest = hashlib.sha256(os.fsencode(os.path.normcase(target))).hexdigest()[:32]
        try:
            lock_file = user_cache_directory() / "locks" / f"{digest}.lock"
            lock_file.parent.mkdir(parents=True, exist_ok=True)
            lock = acquire_lock(lock_file, timeout_s)
        except TimeoutError:
            raise
        except (OSError, UsageError):
            return _lock_nothing
        if lock is None:
            return _lock_nothing
        return lock.release

else:

    def _acquire(target: Path, timeout_s: float) -> Callable[[], object]:
        """Lock the directory that contains the settings file. Return a function that releases it.

        The directory is locked because other users and containers share it. Without support for
        locks, nothing is locked. Raises TimeoutError.
        """
        try:
            descriptor = os.open(target.parent, os.O_RDONLY)
        except OSError:
            return _lock_nothing
        release = partial(os.close, descriptor)
        try:
            _wait_for_lock(descriptor, timeout_s)
        except BaseException:
            release()
            raise
        return release

    def _wait_for_lock(descriptor: int, timeout_s: float) -> None:
        """Lock an open file. Raises TimeoutError if another process holds the lock for too long."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise TimeoutError from None
                time.sleep(_RETRY_INTERVAL_S)
            except OSError:  # a file system without locks
                return
            else:
                return
