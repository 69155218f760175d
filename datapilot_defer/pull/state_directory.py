"""A state directory for `dbt --state`, with a record of the origin of its artifacts.

Several processes may use one directory at the same time. Writers hold its lock. Readers need no
lock, because each file is written under a temporary name and renamed when it is complete. All new
artifacts are checked before the first one is renamed, and the record is renamed last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from datapilot_defer.artifact import Artifact, Kind, parse_artifact
from datapilot_defer.config import user_cache_directory
from datapilot_defer.dbt_file import MAX_FILE_BYTES
from datapilot_defer.errors import Unavailable, UsageError
from datapilot_defer.files import (
    TEMPORARY_PREFIX,
    TEMPORARY_SUFFIX,
    acquire_lock,
    create_temporary,
    has_content,
    read_regular_file,
    retry_while_busy,
    write_temporary,
)
from datapilot_defer.pull.record import (
    RECORD_VERSION,
    PulledArtifact,
    StateRecord,
    parse_record,
    parse_record_version,
)

if TYPE_CHECKING:
    from datapilot_defer.client.connection import InstanceAddress

RECORD_FILE = "datapilot.json"
LOCK_TIMEOUT_S = 120.0
# A record has about 1 kB for each artifact.
_MAX_RECORD_BYTES = 1024 * 1024
_OWNER_READ_WRITE = 0o600  # filelock requires it
_LOCK_FILE = ".datapilot.lock"
_RESERVED_WINDOWS_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_MAX_COMPONENT_LENGTH = 80


class StateDirectory:
    """A state directory.

    protect_foreign_files: whether a pull without --force must not overwrite files that were not
    pulled.
    """

    def __init__(self, path: Path, *, protect_foreign_files: bool = False) -> None:
        self.path = path
        self.protect_foreign_files = protect_foreign_files
        self._temporary_files: list[Path] = []

    def artifact_path(self, kind: Kind) -> Path:
        """Return the path of the artifact of this kind."""
        return self.path / kind.file_name

    def read_record(self) -> StateRecord | None:
        """Return the record; None if there is none, or if it cannot be read.

        Raises UsageError for a record that a newer version of datapilot-defer wrote.
        """
        try:
            content = read_regular_file(self.path / RECORD_FILE, _MAX_RECORD_BYTES)
        except OSError:
            return None
        if parse_record_version(content) > RECORD_VERSION:
            raise UsageError(
                f"{self.path} was written by a newer datapilot-defer. Upgrade this one, "
                "or overwrite the directory with --force"
            )
        return parse_record(content)

    def is_intact(self, artifact: PulledArtifact) -> bool:
        """Return whether the file on disk is still the one that was pulled."""
        path = self.artifact_path(artifact.kind)
        try:
            return has_content(path, artifact.metadata.sha256, artifact.metadata.size_bytes)
        except OSError:
            return False

    def read_intact(self, artifact: PulledArtifact) -> Artifact | None:
        """Read an artifact; None if the file on disk is no longer the one that was pulled."""
        path = self.artifact_path(artifact.kind)
        try:
            content = read_regular_file(path, min(artifact.metadata.size_bytes, MAX_FILE_BYTES))
        except OSError:
            return None
        found = parse_artifact(content, path=str(path), kind=artifact.kind)
        if found.metadata.sha256 != artifact.metadata.sha256:
            return None
        return found

    def find_foreign_files(self, kinds: Sequence[Kind], record: StateRecord | None) -> list[Path]:
        """Return the files that were not pulled, and that a pull of these kinds would overwrite.

        These include files that were changed after they were pulled.
        """
        pulled: set[Kind] = set()
        if record is not None:
            pulled = {artifact.kind for artifact in record.artifacts if self.is_intact(artifact)}
        paths = [self.artifact_path(kind) for kind in kinds if kind not in pulled]
        return [path for path in paths if path.exists()]

    @contextmanager
    def lock(self, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Lock the directory against other processes. Create it if it does not exist.

        timeout_s: how long to wait for another process to release the lock. If a process dies, the
        operating system releases its lock. On a file system without locks, no lock is held.

        Raises UsageError if the directory is not writable, and Unavailable if another process holds
        the lock for too long.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = acquire_lock(self.path / _LOCK_FILE, timeout_s)
        except TimeoutError:
            raise Unavailable(
                f"another process has been writing to {self.path} for over {timeout_s:.0f} s"
            ) from None
        except OSError as error:
            raise self.not_writable_error(error) from None
        try:
            # On a file system without locks, a file still appears complete, because it is renamed.
            if lock is not None:
                self._remove_leftovers()
            yield
        finally:
            self._remove_temporary_files()
            if lock is not None:
                lock.release()

    def create_temporary(self) -> tuple[BinaryIO, Path]:
        """Create an empty temporary file, deleted when the lock is released. Raises OSError."""
        file, path = create_temporary(self.path)
        self._temporary_files.append(path)
        return file, path

    def replace_artifacts(
        self, new: Mapping[Kind, Path], record: StateRecord, *, removed: Sequence[Kind] = ()
    ) -> None:
        """Replace artifacts and the record of the directory. The caller must hold the lock.

        new: complete temporary files in this directory, by kind. removed: kinds whose files are
        deleted. The manifest is the last artifact to be renamed, because readers look for it first.
        The record follows it.

        Raises UsageError if the directory is not writable.
        """
        kinds = sorted(new, key=lambda kind: kind is Kind.MANIFEST)
        try:
            record_path = write_temporary(self.path, record.to_json())
            self._temporary_files.append(record_path)
            for kind in kinds:
                retry_while_busy(partial(new[kind].replace, self.artifact_path(kind)))
            retry_while_busy(partial(record_path.replace, self.path / RECORD_FILE))
            for kind in removed:
                retry_while_busy(partial(self.artifact_path(kind).unlink, missing_ok=True))
        except OSError as error:
            raise self.not_writable_error(error) from None
        finally:
            self._remove_temporary_files()

    def not_writable_error(self, error: OSError) -> UsageError:
        """Return the error for a directory that is not writable."""
        return UsageError(
            f"cannot write to {self.path}: {error.strerror or error}. Use another "
            "directory with `datapilot dbt pull --output DIR`"
        )

    def _remove_temporary_files(self) -> None:
        while self._temporary_files:
            _remove_temporary_file(self._temporary_files.pop())

    def _remove_leftovers(self) -> None:
        """Remove temporary files of killed processes. The caller must hold the lock."""
        with suppress(OSError):
            for path in self.path.iterdir():
                if path.name.startswith(TEMPORARY_PREFIX) and path.suffix == TEMPORARY_SUFFIX:
                    _remove_temporary_file(path)


def _remove_temporary_file(path: Path) -> None:
    """Remove a temporary file if possible. If not, the next process with the lock tries again."""
    with suppress(OSError):
        retry_while_busy(partial(path.unlink, missing_ok=True))


def default_state_directory(
    address: InstanceAddress, integration_id: int, environment: str | None, pin: str | None
) -> Path:
    """Return the directory in the user's cache for one environment of an integration.

    pin: identifies one earlier artifact, which has its own directory.

    Raises UsageError if there is no home directory.
    """
    name = environment or "default"
    if pin:
        name += f"@{pin}"
    directory = instance_cache_directory(address) / str(integration_id)
    return directory / _path_component(name.lower())


def instance_cache_directory(address: InstanceAddress) -> Path:
    """Return an instance's cache directory. Raises UsageError if there is no home directory."""
    host = urlsplit(address.url).netloc.lower().replace(":", "_")
    return user_cache_directory().joinpath(
        "state", _path_component(host), _path_component(address.instance_name)
    )


def _path_component(name: str) -> str:
    """Return a name as one lowercase component of a path, valid on every operating system.

    A changed or long name gets a hash as a suffix, so that different names, such as "Acme" and
    "acme", have different components.
    """
    component = re.sub(r"[^a-z0-9._@+-]", "_", name.lower())
    if component.startswith(".") or _RESERVED_WINDOWS_NAMES.fullmatch(component):
        component = f"_{component}"
    if component == name and len(component) <= _MAX_COMPONENT_LENGTH:
        return component
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{component[:60]}-{digest}"
