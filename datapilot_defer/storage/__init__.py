"""What an instance stores: records in a database, blobs in an object store.

Nothing outside this package knows which database or object store that is. No state is kept in
the process.
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
    """The open database and the open blob store of an instance."""

    database: Database
    blobs: BlobStore


@contextmanager
def open_storage(directory: Path, *, create: bool = True) -> Iterator[Storage]:
    """Open the database and the blobs in a data directory, and make them private to this user.

    create: create a missing directory and a missing database.
    Raises UsageError when this user cannot use the directory, when others can access the database
    and that cannot be changed, when there is no database and `create` is false, or when a newer
    program wrote it; Unavailable when the storage cannot be opened.
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
        raise UsageError(f"{directory} cannot be the data directory: {reason}") from None
    with private_umask():
        database = open_database(sqlite_url(directory))
    try:
        yield Storage(database, open_blobs(blobs_directory))
    finally:
        database.close()


def _check_directory(directory: Path, *, create: bool) -> None:
    """Create a data directory for this user alone, or raise UsageError if it has no database."""
    if create:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not has_database(directory):
        raise UsageError(
            f"{directory} holds no instance: is --data right? `datapilot instance init "
            f"--data {shlex.quote(str(directory))} --instance-name NAME` makes one"
        )
