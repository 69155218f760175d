"""The storage of an instance: records in a database and blobs in an object store.

Other packages do not depend on which database or object store is used. This package keeps no state
between calls except in the storage itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datapilot_defer.errors import UsageError
from datapilot_defer.storage.blobs import BlobStore, open_blobs
from datapilot_defer.storage.database import (
    Database,
    database_backups,
    database_files,
    has_database,
    open_database,
    sqlite_url,
)
from datapilot_defer.storage.permissions import (
    check_write_access,
    private_umask,
    restrict_permissions,
)


@dataclass(frozen=True)
class Storage:
    """An instance's open database and open blob store."""

    database: Database
    blobs: BlobStore


@contextmanager
def open_storage(directory: Path, *, create: bool = True) -> Iterator[Storage]:
    """Open the database and the blobs in a data directory, and restrict access to this user.

    create: create the directory and the database if they are missing.
    Raises UsageError when this user cannot use the directory, when other users can access the
    database and their access cannot be removed, when `create` is false and the database is missing,
    or when the database requires a newer version of this program. Raises Unavailable when the
    storage cannot be opened.
    """
    blobs_directory = directory / "blobs"
    try:
        _check_directory(directory, create=create)
        files = database_files(directory)
        check_write_access([directory, blobs_directory, *files])
        secret_files = [*files, *database_backups(directory)]
        restrict_permissions(directory, secret_files, [blobs_directory])
    except OSError as error:
        reason = error.strerror
        if isinstance(error, FileExistsError):
            reason = "not a directory"
        raise UsageError(f"cannot use {directory} as the data directory: {reason}") from None
    with private_umask():
        database = open_database(sqlite_url(directory))
    try:
        yield Storage(database, open_blobs(blobs_directory))
    finally:
        database.close()


def _check_directory(directory: Path, *, create: bool) -> None:
    """Create a missing data directory with private permissions, if `create` is true.

    Otherwise, raise UsageError if the directory has no database.
    """
    if create:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not has_database(directory):
        command = (
            f"datapilot instance init --data {shlex.quote(str(directory))} --instance-name NAME"
        )
        raise UsageError(
            f"{directory} does not contain an instance. Check --data, or create an instance with "
            f"`{command}`."
        )
