"""The blob store. A blob is identified by its instance and sha256, and its bytes never change."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from datapilot_defer.errors import Unavailable
from datapilot_defer.files import sync_to_disk
from datapilot_defer.storage.database import utc_now

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# The buffer size of an upload, and the size of one read of a download.
CHUNK_BYTES = 1 << 20
_INCOMING = "incoming"


@dataclass(frozen=True)
class Blob:
    """A complete, stored sequence of bytes. sha256: 64 lowercase hex digits."""

    sha256: str
    size_bytes: int


class BlobEntry(NamedTuple):
    """A stored blob of an instance. stored_at: the time of its last upload."""

    instance_id: int
    blob: Blob
    stored_at: datetime


class BlobWriter:
    """A writer for an upload in progress. Its bytes are invisible until `commit`."""

    def __init__(self, blobs: BlobStore) -> None:
        import obstore

        self._blobs = blobs
        self._path = f"{_INCOMING}/{uuid.uuid4().hex}"
        with blobs.as_unavailable():
            self._writer = obstore.open_writer(
                blobs.store, self._path, buffer_size=CHUNK_BYTES, max_concurrency=1
            )
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._is_open = True

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes written."""
        return self._size_bytes

    @property
    def blob(self) -> Blob:
        """Return the blob that `commit` would store now."""
        return Blob(self._digest.hexdigest(), self._size_bytes)

    def write(self, content: bytes) -> None:
        """Append bytes. Raises Unavailable when they cannot be stored, such as on a full disk."""
        with self._blobs.as_unavailable():
            self._writer.write(content)
        self._digest.update(content)
        self._size_bytes += len(content)

    def commit(self, instance_id: int) -> Blob:
        """Store the bytes as a blob of an instance. Identical bytes share one blob.

        Raises Unavailable when the bytes cannot be stored.
        """
        import obstore

        blob = self.blob
        target = _blob_path(instance_id, blob.sha256)
        with self._blobs.as_unavailable():
            self._writer.close()
            self._sync_to_disk(self._path)
            # This also replaces an identical blob, which refreshes its modification time. Otherwise
            # retention could delete that blob before the new record refers to it.
            obstore.rename(self._blobs.store, self._path, target)
            # Sync all parents, because another upload may have created a directory without syncing
            # it yet.
            for parent in PurePosixPath(target).parents:
                self._sync_to_disk(str(parent))
        self._is_open = False
        return blob

    def discard(self) -> None:
        """Delete the bytes unless they were committed."""
        import obstore

        if not self._is_open:
            return
        with contextlib.suppress(Unavailable), self._blobs.as_unavailable():
            self._writer.close()
        with contextlib.suppress(Unavailable), self._blobs.as_unavailable():
            obstore.delete(self._blobs.store, self._path)

    def _sync_to_disk(self, path: str) -> None:
        """Flush a file or directory, so that a record's blob survives a power failure."""
        if self._blobs.directory is not None:
            sync_to_disk(self._blobs.directory / path)


class BlobStore:
    """An open blob store. A blob is identified by the id of its instance and its sha256.

    directory: the directory of a local store; None for others. is_broken: the store cannot be used
    again until the process is restarted.
    """

    def __init__(self, store: ObjectStore, directory: Path | None) -> None:
        self.store = store
        self.directory = directory
        self.is_broken = False

    @contextmanager
    def open_writer(self) -> Iterator[BlobWriter]:
        """Yield a writer, and discard its bytes at the end unless they were committed."""
        writer = BlobWriter(self)
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
        with self.as_unavailable():
            if length is None:
                return bytes(obstore.get(self.store, path).bytes())
            return bytes(obstore.get_range(self.store, path, start=start, length=length))

    def read_chunks(self, instance_id: int, blob: Blob) -> Iterator[bytes]:
        """Yield a blob in chunks of CHUNK_BYTES, read one at a time."""
        for start in range(0, blob.size_bytes, CHUNK_BYTES):
            length = min(CHUNK_BYTES, blob.size_bytes - start)
            yield self.read(instance_id, blob.sha256, start=start, length=length)

    def exists(self, instance_id: int, sha256: str) -> bool:
        """Return whether a blob exists."""
        import obstore

        with self.as_unavailable():
            try:
                obstore.head(self.store, _blob_path(instance_id, sha256))
            except FileNotFoundError:
                return False
        return True

    def list_blobs(self) -> Iterator[BlobEntry]:
        """Yield all blobs in no particular order."""
        for path, size_bytes, stored_at in self._list_objects():
            owner, _, rest = path.partition("/")
            if owner.isdecimal():
                blob = Blob(rest.rpartition("/")[2], size_bytes)
                yield BlobEntry(int(owner), blob, stored_at)

    def delete_incomplete(self, age: timedelta) -> None:
        """Delete uncommitted uploads and deleted blobs whose bytes are older than `age`."""
        oldest = utc_now() - age
        for path, _, stored_at in self._list_objects(f"{_INCOMING}/"):
            if stored_at < oldest:
                self._delete(path)
        self._delete_partial_files(oldest)

    def delete(self, instance_id: int, sha256: str) -> None:
        """Delete a blob, if it exists, by renaming it, which is fast for any size.

        `delete_incomplete` removes the bytes later. Renaming does not change their age.
        """
        import obstore

        path = _blob_path(instance_id, sha256)
        with self.as_unavailable(), contextlib.suppress(FileNotFoundError):
            obstore.rename(self.store, path, f"{_INCOMING}/{uuid.uuid4().hex}")

    @contextmanager
    def as_unavailable(self) -> Iterator[None]:
        """Convert errors of the store and of the file system to Unavailable.

        A failure of the storage library itself also sets `is_broken`.
        """
        import obstore

        try:
            yield
        except (OSError, obstore.exceptions.BaseError) as error:
            raise _unavailable(_describe_cause(error)) from None
        except BaseException as error:
            if not _is_panic(error):
                raise
            self.is_broken = True
            raise _unavailable("the storage library failed") from None

    def _delete(self, path: str) -> None:
        import obstore

        with self.as_unavailable(), contextlib.suppress(FileNotFoundError):
            obstore.delete(self.store, path)

    def _delete_partial_files(self, oldest: datetime) -> None:
        """Delete the files that killed processes left behind. The store does not list them."""
        if self.directory is None:
            return
        for file in (self.directory / _INCOMING).glob("*#*"):
            # A file disappears when its upload ends.
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_mtime < oldest.timestamp():
                    file.unlink()

    def _list_objects(self, prefix: str | None = None) -> Iterator[tuple[str, int, datetime]]:
        import obstore

        with self.as_unavailable():
            for page in obstore.list(self.store, prefix):
                for item in page:
                    yield item["path"], item["size"], item["last_modified"]


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
    """Open the blob store in a directory, which is created if missing.

    Raises Unavailable when the store cannot be opened.
    """
    import obstore

    path = directory.resolve()
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        sync_to_disk(path.parent)
        blobs = BlobStore(obstore.store.LocalStore(path), path)
    except (OSError, obstore.exceptions.BaseError) as error:
        raise _unavailable(_describe_cause(error)) from None
    # The first operation starts obstore's runtime. If that fails, for example because connections
    # have used up the file descriptors, all later operations fail too. Start the runtime now.
    blobs.exists(0, "0" * 64)
    return blobs


def _blob_path(instance_id: int, sha256: str) -> str:
    return f"{instance_id}/{sha256[:2]}/{sha256}"


def _is_panic(error: BaseException) -> bool:
    """Return whether the runtime of obstore panicked. Its exception class cannot be imported."""
    return type(error).__name__ == "PanicException"


def _unavailable(cause: str) -> Unavailable:
    return Unavailable(f"the instance's blob store is unavailable: {cause}. Try again.")


def _describe_cause(error: Exception) -> str:
    """Return the cause of an error without the store's paths and debug output."""
    if "No space left" in str(error):
        return "the disk is full"
    reason = getattr(error, "strerror", None)
    return str(reason or type(error).__name__)
