"""The blobs behind the records: named by their sha256, written once, never changed."""

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
from typing import TYPE_CHECKING

from datapilot_defer.errors import Unavailable
from datapilot_defer.storage.database import utc_now

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# Memory of one upload, and size of one read of a download.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A completely stored sequence of bytes. sha256: 64 lowercase hex digits."""

    sha256: str
    size_bytes: int


class BlobWriter:
    """Bytes of an upload in progress; nothing is visible before `commit`."""

    def __init__(self, store: ObjectStore, directory: Path | None) -> None:
        import obstore

        self._store = store
        self._directory = directory
        self._path = f"incoming/{uuid.uuid4().hex}"
        self._writer = obstore.open_writer(
            store, self._path, buffer_size=CHUNK_BYTES, max_concurrency=1
        )
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._is_open = True

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes written."""
        return self._size_bytes

    def write(self, content: bytes) -> None:
        """Append bytes. Raises Unavailable when they cannot be stored, such as on a full disk."""
        with _as_unavailable():
            self._writer.write(content)
        self._digest.update(content)
        self._size_bytes += len(content)

    def commit(self, instance_id: int) -> Blob:
        """Store the bytes as a blob of an instance; equal bytes are one blob.

        Raises Unavailable when they cannot be stored.
        """
        import obstore

        blob = Blob(self._digest.hexdigest(), self._size_bytes)
        target = _blob_path(instance_id, blob.sha256)
        with _as_unavailable():
            self._writer.close()
            self._sync_to_disk(self._path)
            # Replaces an equal blob too, to refresh its modification time: retention must not
            # delete it before the new record refers to it.
            obstore.rename(self._store, self._path, target)
            self._sync_to_disk(str(Path(target).parent))
        self._is_open = False
        return blob

    def discard(self) -> None:
        """Delete the bytes, unless they were committed."""
        import obstore

        if not self._is_open:
            return
        with contextlib.suppress(OSError, obstore.exceptions.BaseError):
            self._writer.close()
        with contextlib.suppress(OSError, obstore.exceptions.BaseError):
            obstore.delete(self._store, self._path)

    def _sync_to_disk(self, path: str) -> None:
        """Flush a file or directory, so that no record outlives its blob in a power failure."""
        if self._directory is None or os.name != "posix":
            return
        descriptor = os.open(self._directory / path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class BlobStore:
    """An open store of blobs, each identified by an instance's id and its sha256."""

    def __init__(self, store: ObjectStore, directory: Path | None) -> None:
        self._store = store
        self._directory = directory

    @contextmanager
    def open_writer(self) -> Iterator[BlobWriter]:
        """Open a writer, whose bytes are discarded at the end unless they were committed."""
        with _as_unavailable():
            writer = BlobWriter(self._store, self._directory)
        try:
            yield writer
        finally:
            writer.discard()

    def read(
        self, instance_id: int, sha256: str, *, start: int = 0, length: int | None = None
    ) -> bytes:
        """Return a blob or a part of it. Raises Unavailable when it is missing or unreadable."""
        import obstore

        path = _blob_path(instance_id, sha256)
        with _as_unavailable():
            if length is None:
                return bytes(obstore.get(self._store, path).bytes())
            return bytes(obstore.get_range(self._store, path, start=start, length=length))

    def read_chunks(self, instance_id: int, blob: Blob) -> Iterator[bytes]:
        """Yield a blob in chunks of CHUNK_BYTES, read one at a time."""
        for start in range(0, blob.size_bytes, CHUNK_BYTES):
            length = min(CHUNK_BYTES, blob.size_bytes - start)
            yield self.read(instance_id, blob.sha256, start=start, length=length)

    def exists(self, instance_id: int, sha256: str) -> bool:
        """Return whether a blob exists."""
        import obstore

        with _as_unavailable():
            try:
                obstore.head(self._store, _blob_path(instance_id, sha256))
            except FileNotFoundError:
                return False
        return True

    def list_older_than(self, age: timedelta) -> Iterator[tuple[int, str]]:
        """Yield instance id and sha256 of old blobs; delete old incomplete uploads."""
        for path, stored_at in self._list_objects():
            if utc_now() - stored_at < age:
                continue
            owner, _, rest = path.partition("/")
            if owner.isdecimal():
                yield int(owner), rest.rpartition("/")[2]
            else:
                self._delete(path)
        self._delete_partial_files(age)

    def delete(self, instance_id: int, sha256: str) -> None:
        """Delete a blob, if it exists."""
        self._delete(_blob_path(instance_id, sha256))

    def _delete(self, path: str) -> None:
        import obstore

        with _as_unavailable(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    def _delete_partial_files(self, age: timedelta) -> None:
        """Delete files of killed processes in a directory: the store does not list them."""
        if self._directory is None:
            return
        oldest = (utc_now() - age).timestamp()
        for file in (self._directory / "incoming").glob("*#*"):
            if file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)

    def _list_objects(self) -> Iterator[tuple[str, datetime]]:
        import obstore

        with _as_unavailable():
            for page in obstore.list(self._store):
                for item in page:
                    yield item["path"], item["last_modified"]


@dataclass(frozen=True)
class StoredContent:
    """The bytes of a blob, read in chunks as often as needed."""

    blobs: BlobStore
    instance_id: int
    blob: Blob

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes."""
        return self.blob.size_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in chunks. Raises Unavailable when they cannot be read."""
        return self.blobs.read_chunks(self.instance_id, self.blob)


def open_blobs(directory: Path) -> BlobStore:
    """Open the blob store in a directory, creating it. Raises Unavailable when that fails."""
    from obstore.store import LocalStore

    path = directory.resolve()
    with _as_unavailable():
        return BlobStore(LocalStore(path, mkdir=True), path)


def _blob_path(instance_id: int, sha256: str) -> str:
    return f"{instance_id}/{sha256[:2]}/{sha256}"


@contextmanager
def _as_unavailable() -> Iterator[None]:
    import obstore

    try:
        yield
    except (OSError, obstore.exceptions.BaseError) as error:
        cause = _describe_cause(error)
        raise Unavailable(f"the instance's blobs can't be used now: {cause}; try again") from None


def _describe_cause(error: Exception) -> str:
    """Return the cause without the store's paths and debug output."""
    if "No space left" in str(error):
        return "the disk is full"
    reason = getattr(error, "strerror", None)
    return str(reason or type(error).__name__)
