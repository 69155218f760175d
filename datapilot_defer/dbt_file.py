"""Reader for dbt's files, with limits on size and time.

The path may be that of a pipe, such as `<(gunzip -c manifest.json.gz)` in a shell or `/dev/stdin`.
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

    file_name: dbt's name for this kind of file, for messages.

    Raises UsageError if it does not exist, is neither a file nor a pipe, cannot be read or is too
    large, and Unavailable if it cannot be read in time.
    """
    try:
        return deadline.run(partial(_read, path), f"reading {path}")
    except FileNotFoundError:
        raise UsageError(_not_found_message(path, file_name)) from None
    except IsADirectoryError:
        raise UsageError(_is_directory_message(path, file_name)) from None
    except MemoryError:
        raise UsageError(f"{path}: too large to fit in memory") from None
    except (OSError, ValueError) as error:
        # Windows denies permission to read a directory. Unlike Path.is_dir, os.path.isdir never
        # raises PermissionError itself.
        if os.path.isdir(path):  # noqa: PTH112
            raise UsageError(_is_directory_message(path, file_name)) from None
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read: {reason}") from None


def _read(path: Path) -> bytes:
    """Read a file or a pipe, which may block until another process writes to it."""
    with path.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISFIFO(status.st_mode):
            raise UsageError(f"{path}: not a file or a pipe, but a device")
        if status.st_size > MAX_FILE_BYTES:
            raise _too_large_error(path, f"{status.st_size:,} bytes")
        return _read_to_end(path, file)


def _read_to_end(path: Path, file: FileIO) -> bytes:
    # The size in the status is not a limit: a pipe has none, and a file may grow.
    content = BytesIO()
    while chunk := file.read(_CHUNK_BYTES):
        if content.tell() + len(chunk) > MAX_FILE_BYTES:
            raise _too_large_error(path, "more bytes")
        content.write(chunk)
    return content.getvalue()


def _too_large_error(path: Path, size: str) -> UsageError:
    return UsageError(
        f"{path}: is too large for a file of dbt: it has {size}, and the limit is "
        f"{MAX_FILE_BYTES:,} bytes. Check that it is the right file"
    )


def _not_found_message(path: Path, file_name: str) -> str:
    message = f"{path}: no such file"
    if not path.is_absolute():
        message += f" (looked in {Path.cwd()})"
    if file_name == _MANIFEST_FILE:
        message += ". Run `dbt parse` to create it, or use another path"
    return message


def _is_directory_message(path: Path, file_name: str) -> str:
    file = path / file_name
    advice = f"It contains no {file.name}. Use the path of the file"
    if file.is_file():
        advice = f"Use {file}"
    return f"{path}: a directory, not a file. {advice}"
