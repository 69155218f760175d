"""Read the files that dbt wrote, from a path that a user gave: bounded in size and in time.

The path may lead to a pipe, such as `<(gunzip -c manifest.json.gz)` of a shell or `/dev/stdin`.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from io import FileIO

    from datapilot_defer.deadline import Deadline

# Twice what an instance accepts by default.
MAX_FILE_BYTES = 1024 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_MANIFEST_FILE = "manifest.json"


def read_dbt_file(path: Path, file_name: str, deadline: Deadline) -> bytes:
    """Read a file or a pipe.

    file_name: the name that dbt gives to such a file, for messages.
    Raises UsageError when it does not exist, is neither a file nor a pipe, cannot be read or is too
    large; Unavailable when it cannot be read in time.
    """
    try:
        return deadline.run(partial(_read, path), f"reading {path}")
    except FileNotFoundError:
        raise UsageError(_not_found_message(path, file_name)) from None
    except IsADirectoryError:
        raise UsageError(_is_directory_message(path, file_name)) from None
    except MemoryError:
        raise UsageError(f"{path}: is too large for this machine's memory") from None
    except (OSError, ValueError) as error:
        # Windows denies permission to read a directory. Unlike Path.is_dir, os.path.isdir never
        # raises PermissionError itself.
        if os.path.isdir(path):  # noqa: PTH112
            raise UsageError(_is_directory_message(path, file_name)) from None
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: can't be read: {reason}") from None


def _read(path: Path) -> bytes:
    """Read a file or a pipe, which may block until another process writes to it."""
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
            raise UsageError(f"{path}: is a device; give the path of a file or a pipe")
        if status.st_size > MAX_FILE_BYTES:
            raise _too_large_error(path, f"{status.st_size:,} bytes")
        return _read_to_end(path, file)


def _read_to_end(path: Path, file: FileIO) -> bytes:
    # The size in the status does not bound what follows: a pipe has none, and a file may grow.
    content = BytesIO()
    while chunk := file.read(_CHUNK_BYTES):
        if content.tell() + len(chunk) > MAX_FILE_BYTES:
            raise _too_large_error(path, "more bytes")
        content.write(chunk)
    return content.getvalue()


def _too_large_error(path: Path, size: str) -> UsageError:
    return UsageError(
        f"{path}: is too large for a file of dbt: it has {size}, and the limit is "
        f"{MAX_FILE_BYTES:,} bytes; is it the right file?"
    )


def _not_found_message(path: Path, file_name: str) -> str:
    message = f"{path}: no such file"
    if not path.is_absolute():
        message += f" (looked in {Path.cwd()})"
    if file_name == _MANIFEST_FILE:
        message += "; dbt writes it: run `dbt parse`, or give the right path"
    return message


def _is_directory_message(path: Path, file_name: str) -> str:
    file = path / file_name
    advice = f"it holds no {file.name}; give the path of the file itself"
    if file.is_file():
        advice = f"give {file}"
    return f"{path}: is a folder; {advice}"
