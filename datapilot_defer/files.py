"""Files that appear complete or not at all, small files read with a limit, and lock files."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from filelock import BaseFileLock

# Windows does not let a file be replaced or removed while another process reads it.
BUSY_TIMEOUT_S = 0.0
if os.name == "nt":
    BUSY_TIMEOUT_S = 2.0
_RETRY_INTERVAL_S = 0.02
_CHUNK_BYTES = 1 << 20
MAX_SMALL_FILE_BYTES = 2 << 20  # far above any settings file or dbt_project.yml
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
TEMPORARY_PREFIX = ".datapilot-"
TEMPORARY_SUFFIX = ".tmp"


def write_atomically(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file by renaming a temporary one: a reader sees the old content or the new.

    mode: permission bits; None keeps those of an existing file and gives a new one 0o644.
    Raises OSError; the old file is unchanged then.
    """
    target = path.resolve()  # a link, for example into a repository of dotfiles, stays a link
    if mode is None:
        mode = _permissions_of(target)
    temporary = write_temporary(target.parent, content, mode=mode)
    try:
        retry_while_busy(partial(temporary.replace, target))
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_temporary(directory: Path, content: bytes, *, mode: int = 0o644) -> Path:
    """Write a temporary file, flushed to disk, under a name that no reader knows.

    Raises OSError.
    """
    file, path = create_temporary(directory)
    try:
        with file:
            file.write(content)
            flush_to_disk(file)
        path.chmod(mode)  # it was created for this user alone
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    return path


def create_temporary(directory: Path) -> tuple[BinaryIO, Path]:
    """Create an empty temporary file for this user alone, open for writing. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=TEMPORARY_SUFFIX, dir=directory)
    return os.fdopen(handle, "w+b"), Path(name)


def flush_to_disk(file: BinaryIO) -> None:
    """Write what was written to a file to the disk itself, so that it survives a power failure."""
    file.flush()
    os.fsync(file.fileno())


def sync_to_disk(path: Path) -> None:
    """Write a file, or the names in a directory, to the disk itself. Windows does so on its own.

    Raises OSError.
    """
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def retry_while_busy(action: Callable[[], object]) -> None:
    """Run an action, again for BUSY_TIMEOUT_S while the system denies it."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            action()
        except PermissionError:
            if time.monotonic() >= end:
                raise
            time.sleep(_RETRY_INTERVAL_S)
        else:
            return


def read_small_file(path: Path) -> bytes:
    """Return the content of a file that a person writes, such as a settings file.

    Raises OSError, also for anything but a regular file of at most MAX_SMALL_FILE_BYTES.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - closed below
    except ValueError:  # a NUL character, or one that the file system cannot encode
        raise OSError(errno.EINVAL, "its name is not a valid file name") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(MAX_SMALL_FILE_BYTES + 1)
    if len(content) > MAX_SMALL_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_SMALL_FILE_BYTES >> 20} MB")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a FIFO does not wait for its writer, and a terminal is not taken over."""
    if os.name == "posix":
        flags |= os.O_NONBLOCK | os.O_NOCTTY
    return os.open(path, flags)


def acquire_lock(path: Path, timeout_s: float) -> BaseFileLock | None:
    """Lock a lock file against other processes; None on a file system without locks.

    The caller releases it; the operating system releases the lock of a process that dies.
    Raises TimeoutError when another process holds it for too long, other OSErrors for a file that
    cannot be written.
    """
    from filelock import FileLock

    lock = FileLock(path, timeout=timeout_s)
    try:
        lock.acquire()
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return lock


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's content, 64 lowercase hex digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _permissions_of(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return 0o644
