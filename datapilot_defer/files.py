"""Atomic writes, size-limited reads, and lock files."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from filelock import BaseFileLock

# Windows does not allow replacing or removing a file while another process reads it.
BUSY_TIMEOUT_S = 0.0
if os.name == "nt":
    BUSY_TIMEOUT_S = 2.0
_RETRY_INTERVAL_S = 0.02
_CHUNK_BYTES = 1 << 20
MAX_SMALL_FILE_BYTES = 2 << 20  # far larger than any settings file or dbt_project.yml
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
TEMPORARY_PREFIX = ".datapilot-"
TEMPORARY_SUFFIX = ".tmp"
# The mode of a new file, from which the umask of the process removes permissions.
_NEW_FILE_MODE = 0o666
_PRIVATE_MODE = 0o600
_OWNER_READ_WRITE = 0o600
# These flags prevent waiting for the writer of a pipe, and control by a terminal. They do not exist
# on Windows.
_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_atomically(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file by renaming a temporary one, so that readers see the old or the new content.

    mode: permission bits; None keeps those of an existing file, and uses the umask for a new one.

    Raises OSError, in which case the old file is unchanged.
    """
    target = path.resolve()  # keep a symbolic link, such as to a repository of dotfiles
    if mode is None:
        mode = _permissions_of(target)
    temporary = write_temporary(target.parent, content, mode=mode)
    try:
        retry_while_busy(partial(temporary.replace, target))
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_temporary(directory: Path, content: bytes, *, mode: int | None = None) -> Path:
    """Write a temporary file with an unpredictable name, flush it to disk, and return its path.

    mode: permission bits; None uses the umask. Raises OSError.
    """
    created_mode = _NEW_FILE_MODE
    if mode is not None:
        created_mode = (
            _PRIVATE_MODE  # no other user can read a secret before the file has its own mode
        )
    file, path = create_temporary(directory, mode=created_mode)
    try:
        with file:
            file.write(content)
            flush_to_disk(file)
        if mode is not None:
            path.chmod(mode)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    return path


def create_temporary(directory: Path, *, mode: int = _NEW_FILE_MODE) -> tuple[BinaryIO, Path]:
    """Create an empty temporary file. Return it open for reading and writing, and its path.

    mode: permission bits, from which the umask removes some. Files of the module tempfile would
    need a later chmod, for which the umask would have to be read. That is only possible by changing
    it for all threads. Raises OSError.
    """
    path = directory / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    return os.fdopen(os.open(path, _CREATE, mode), "w+b"), path


def flush_to_disk(file: BinaryIO) -> None:
    """Flush a file to disk, so that it survives a power failure."""
    file.flush()
    os.fsync(file.fileno())


def sync_to_disk(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk.

    Does nothing on Windows, which needs no flush. Raises OSError.
    """
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def retry_while_busy(action: Callable[[], object]) -> None:
    """Run an action, and retry it for BUSY_TIMEOUT_S while it raises PermissionError."""
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


def acquire_lock(path: Path, timeout_s: float) -> BaseFileLock | None:
    """Acquire a lock file and return the lock; None on a file system without locks.

    The caller releases it. The operating system releases the lock of a process that dies.

    Raises TimeoutError if another process holds it for too long, and other OSErrors for a file that
    cannot be written.
    """
    from filelock import FileLock

    # The file keeps its mode: some releases of filelock would set 0o644.
    lock = FileLock(path, timeout=timeout_s, mode=_ensure_file(path) | _OWNER_READ_WRITE)
    try:
        lock.acquire()
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return lock


def _ensure_file(path: Path) -> int:
    """Create an empty file if it does not exist. Return its permission bits. Raises OSError."""
    flags = os.O_RDONLY | os.O_CREAT | _WITHOUT_WAITING
    descriptor = os.open(path, flags, _NEW_FILE_MODE)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def read_small_file(path: Path) -> bytes:
    """Return the content of a small file, such as a settings file.

    Raises OSError, also for anything but a regular file of at most MAX_SMALL_FILE_BYTES.
    """
    return read_regular_file(path, MAX_SMALL_FILE_BYTES)


def read_regular_file(path: Path, limit_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises OSError if it cannot be read, is a pipe or a device, or is larger than `limit_bytes`.
    """
    with _open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > limit_bytes:
            raise OSError(errno.EFBIG, f"it is larger than {limit_bytes >> 20} MB", str(path))
        # A pseudo-file, such as one in /proc, has no size. `read` reserves as much memory as it may
        # return.
        return file.read(size_bytes or min(limit_bytes, MAX_SMALL_FILE_BYTES))


def has_content(path: Path, sha256: str, size_bytes: int) -> bool:
    """Return whether a file has this size and this hash of 64 lowercase hex digits.

    A file of another size is not read. Raises OSError, also for a pipe or a device.
    """
    digest = hashlib.sha256()
    with _open_regular(path) as file:
        if os.fstat(file.fileno()).st_size != size_bytes:
            return False
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == sha256


def _open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises OSError for any other file. A pipe fails immediately instead of waiting for a writer.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    except ValueError:  # a NUL character, or one that the file system cannot encode
        raise OSError(errno.EINVAL, "its name is not a valid file name") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | _WITHOUT_WAITING)


def _permissions_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        return None
