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
from datapilot_defer.storage.database import Database, has_database, open_database, sqlite_url


@dataclass(frozen=True)
class Storage:
    """The open database and the open blob store of an instance."""

    database: Database
    blobs: BlobStore


@contextmanager
def open_storage(directory: Path, *, create: bool = True) -> Iterator[Storage]:
    """Open the database and the blobs in a data directory.

    create: create a missing directory, for this user alone, and a missing database.
    Raises UsageError when the directory cannot be created, when there is no database and `create`
    is false, or when a newer program wrote it; Unavailable when the storage cannot be opened.
    """
    if not create and not has_database(directory):
        raise UsageError(
            f"{directory} holds no instance: is --data right? `datapilot instance init "
            f"--data {shlex.quote(str(directory))} --instance-name NAME` makes one"
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: can't be the data folder: {error.strerror}") from None
    database = open_database(sqlite_url(directory))
    try:
        yield Storage(database, open_blobs(directory / "blobs"))
    finally:
        database.close()
