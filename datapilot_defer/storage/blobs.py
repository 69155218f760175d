"""The bytes behind the records: named by their sha256, written once, never changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapilot_defer.errors import Unavailable
from datapilot_defer.storage.database import utc_now

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# What one upload holds in memory, and what one download reads at a time. Bytes.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Blob:
    """Bytes that arrived whole. sha256: 64 lowercase hex digits."""

    sha256: str
    size_bytes: int


class BlobWriter:
    """Bytes that are arriving; nobody sees them before `keep`."""

    def __init__(self, store: ObjectStore, folder: Path | None) -> None:
        import obstore

        self._store, self._folder = store, folder
        self._path = f"incoming/{uuid.uuid4().hex}"
        self._writer = obstore.open_writer(
            store, self._path, buffer_size=CHUNK_BYTES, max_concurrency=1
        )
        self._digest, self._size, self._open = hashlib.sha256(), 0, True

    @property
    def size_bytes(self) -> int:
        """How many bytes have arrived."""
        return self._size

    def write(self, content: bytes) -> None:
        """Take the next bytes. Raises Unavailable when they can't be stored, such as on a full disk."""
        with _as_unavailable():
            self._writer.write(content)
        self._digest.update(content)
        self._size += len(content)

    def commit(self, owner: int) -> Blob:
        """Make the bytes a blob of the instance with the id `owner`; equal bytes are one blob.

        Raises Unavailable when they can't be stored.
        """
        import obstore

        blob = Blob(self._digest.hexdigest(), self._size)
        with _as_unavailable():
            self._writer.close()
            self._sync_to_disk(self._path)
            # Over an equal one too: it becomes young again, so that no sweep takes it from under the new record.
            obstore.rename(self._store, self._path, _path(owner, blob.sha256))
            self._sync_to_disk(str(Path(_path(owner, blob.sha256)).parent))
        self._open = False
        return blob

    def discard(self) -> None:
        """Forget bytes that were not kept."""
        import obstore

        if self._open:
            with contextlib.suppress(OSError, obstore.exceptions.BaseError):
                self._writer.close()
            with contextlib.suppress(OSError, obstore.exceptions.BaseError):
                obstore.delete(self._store, self._path)

    def _sync_to_disk(self, path: str) -> None:
        """In a folder: wait until the disk has it, so that a record never outlives its blob in a power cut."""
        if self._folder is not None and os.name == "posix":
            descriptor = os.open(self._folder / path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


class BlobStore:
    """An open store of blobs, each known by its owner (an instance's id) and its sha256."""

    def __init__(self, store: ObjectStore, folder: Path | None) -> None:
        self._store, self._folder = store, folder

    @contextmanager
    def open_writer(self) -> Iterator[BlobWriter]:
        """Take bytes as they arrive; without `keep` nothing stays of them."""
        with _as_unavailable():
            incoming = BlobWriter(self._store, self._folder)
        try:
            yield incoming
        finally:
            incoming.discard()

    def read(self, owner: int, sha256: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Give a blob's bytes, all or a part. Raises Unavailable when it is not there or can't be read."""
        import obstore

        with _as_unavailable():
            if length is None:
                return bytes(obstore.get(self._store, _path(owner, sha256)).bytes())
            return bytes(
                obstore.get_range(self._store, _path(owner, sha256), start=start, length=length)
            )

    def exists(self, owner: int, sha256: str) -> bool:
        """Whether there is such a blob."""
        import obstore

        with _as_unavailable():
            try:
                obstore.head(self._store, _path(owner, sha256))
            except FileNotFoundError:
                return False
        return True

    def list_older_than(self, age: timedelta) -> Iterator[tuple[int, str]]:
        """Give owner and sha256 of every blob that was stored longer ago; what never arrived whole is deleted."""
        for path, stored_at in self._paths():
            if utc_now() - stored_at < age:
                continue
            owner, _, rest = path.partition("/")
            if owner.isdecimal():
                yield int(owner), rest.rpartition("/")[2]
            else:
                self._delete(path)
        self._delete_partial_files(age)

    def delete(self, owner: int, sha256: str) -> None:
        """Delete a blob that no record needs."""
        self._delete(_path(owner, sha256))

    def _delete(self, path: str) -> None:
        import obstore

        with _as_unavailable(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    def _delete_partial_files(self, age: timedelta) -> None:
        """In a folder: delete what a killed process left; the store does not list such parts."""
        if self._folder is not None:
            for part in (self._folder / "incoming").glob("*#*"):
                if part.stat().st_mtime < (utc_now() - age).timestamp():
                    part.unlink(missing_ok=True)

    def _paths(self) -> Iterator[tuple[str, datetime]]:
        import obstore

        with _as_unavailable():
            for page in obstore.list(self._store):
                for found in page:
                    yield found["path"], found["last_modified"]


def open_blobs(folder: Path) -> BlobStore:
    """Open the store of blobs in a folder, making it. Raises Unavailable when that fails."""
    from obstore.store import LocalStore

    with _as_unavailable():
        return BlobStore(LocalStore(folder.resolve(), mkdir=True), folder.resolve())


def _path(owner: int, sha256: str) -> str:
    return f"{owner}/{sha256[:2]}/{sha256}"


@contextmanager
def _as_unavailable() -> Iterator[None]:
    import obstore

    try:
        yield
    except (OSError, obstore.exceptions.BaseError) as error:
        raise Unavailable(
            f"the instance's blobs can't be used now: {_describe_cause(error)}; try again"
        ) from None


def _describe_cause(error: Any) -> str:
    """Say the cause without the store's paths and its debug output."""
    if "No space left" in str(error):
        return "the disk is full"
    return type(error).__name__ if not getattr(error, "strerror", None) else str(error.strerror)
