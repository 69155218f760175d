"""A state directory: the folder handed to `dbt --state`, with a record of where its artifacts came from.

Several processes may use one at once. Writers hold its lock; readers need none, for a file appears whole by
renaming. A set of files is checked whole before the first of them appears, and the record appears last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from datapilot_defer.artifact import Artifact, Kind
from datapilot_defer.config import user_cache_directory
from datapilot_defer.errors import Unavailable, UsageError

RECORD_FILE = "datapilot.json"
RECORD_VERSION = 1  # of the record; a newer one was written by a newer datapilot-defer
LOCK_TIMEOUT_S = 120.0
BUSY_TIMEOUT_S = (
    2.0 if os.name == "nt" else 0.0
)  # Windows lets nobody replace or remove a file while somebody reads it
_LOCK_FILE = ".datapilot.lock"
_TEMPORARY_NAME = re.compile(r"\.datapilot-.*\.tmp")
_RESERVED_WINDOWS_NAMES = re.compile(
    r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE
)  # names that Windows keeps for itself


@dataclass(frozen=True)
class PulledArtifact:
    """One pulled artifact, as the record has it. Times are ISO, in UTC; readable_by: versions of dbt that read it."""

    kind: str
    sha256: str
    size_bytes: int
    file_id: int | None = None
    schema_version: int | None = None
    dbt_version: str | None = None
    project_name: str | None = None
    generated_at: str | None = None
    uploaded_at: str | None = None
    commit: str | None = None
    branch: str | None = None
    build_url: str | None = None
    readable_by: tuple[str, ...] = ()

    @property
    def age_s(self) -> float | None:
        """Seconds since dbt wrote it; None when it does not say when."""
        if self.generated_at is None:
            return None
        return max(
            0.0, (datetime.now(UTC) - datetime.fromisoformat(self.generated_at)).total_seconds()
        )


def describe(artifact: Artifact, readable_by: tuple[str, ...]) -> PulledArtifact:
    """What a record says of an artifact, as far as the artifact itself tells."""
    return PulledArtifact(
        kind=artifact.kind.value,
        sha256=artifact.metadata.sha256,
        size_bytes=artifact.metadata.size_bytes,
        schema_version=artifact.metadata.schema_version,
        dbt_version=artifact.metadata.dbt_version,
        project_name=artifact.metadata.project_name,
        generated_at=artifact.metadata.generated_at.isoformat()
        if artifact.metadata.generated_at
        else None,
        readable_by=readable_by,
    )


@dataclass(frozen=True)
class StateRecord:
    """What a state directory holds. origin: the instance, its name, integration and environment, in one line."""

    origin: str
    environment: str | None
    entries: tuple[PulledArtifact, ...] = ()
    version: int = field(default=RECORD_VERSION)

    def entry(self, kind: Kind) -> PulledArtifact | None:
        """What it says of this kind."""
        return next((entry for entry in self.entries if entry.kind == kind.value), None)


def default_state_directory(
    url: str, instance_name: str, integration_id: int, environment: str | None, pin: str | None
) -> Path:
    """The folder that persists for one environment of an integration, in the user's cache folder.

    pin: names one earlier artifact; it gets a folder of its own.
    """
    last = (environment or "default") + (f"@{pin}" if pin else "")
    return instance_cache_directory(url, instance_name).joinpath(
        str(integration_id), _path_component(last.lower())
    )


def instance_cache_directory(url: str, instance_name: str) -> Path:
    """Where everything that was pulled from one instance is kept. Raises UsageError where there is no home."""
    host = urlsplit(url).netloc.lower().replace(":", "_")
    return user_cache_directory().joinpath(
        "state", _path_component(host), _path_component(instance_name)
    )


def _path_component(name: str) -> str:
    """A name as one part of a path, on every system: in lower case, with a hash where that would not tell it from
    another name, such as "Acme" from "acme"."""
    part = re.sub(r"[^a-z0-9._@+-]", "_", name.lower())
    part = f"_{part}" if part.startswith(".") or _RESERVED_WINDOWS_NAMES.fullmatch(part) else part
    same = part == name and len(part) <= 80
    return part if same else f"{part[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def read_record(folder: Path) -> StateRecord | None:
    """What the folder says it holds; None when it says nothing that can be read. Raises UsageError when a newer
    datapilot-defer wrote it."""
    try:
        said = json.loads((folder / RECORD_FILE).read_bytes())
        if said["version"] > RECORD_VERSION:
            raise UsageError(
                f"{folder} was written by a newer datapilot-defer: upgrade this one, or write over it with --force"
            )
        entries = tuple(
            PulledArtifact(**{**entry, "readable_by": tuple(entry["readable_by"])})
            for entry in said["entries"]
        )
        record = StateRecord(str(said["origin"]), said["environment"], entries)
        for entry in entries:
            _ = Kind(entry.kind), entry.age_s
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def is_intact(folder: Path, entry: PulledArtifact) -> bool:
    """Whether the file on disk is still what was pulled."""
    try:
        with (folder / Kind(entry.kind).file_name).open("rb") as file:
            return sha256_of_file(file) == entry.sha256
    except OSError:
        return False


def find_foreign_files(folder: Path, kinds: list[Kind], record: StateRecord | None) -> list[Path]:
    """The files in the way that no pull has put there, or that somebody changed since."""
    paths = {kind: folder / kind.file_name for kind in kinds}
    mine = {
        kind
        for kind in kinds
        if record and (entry := record.entry(kind)) and is_intact(folder, entry)
    }
    return [path for kind, path in paths.items() if kind not in mine and path.exists()]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes; the folder is made when it is not there.

    The operating system drops the lock of a process that dies. Raises UsageError when the folder can't be written
    to, Unavailable when another process holds it for too long.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK_FILE, timeout=LOCK_TIMEOUT_S)
        lock.acquire()
    except Timeout:
        raise Unavailable(
            f"another process has been writing to {folder} for {LOCK_TIMEOUT_S:g} s"
        ) from None
    except (
        NotImplementedError
    ):  # a file system without locks: renaming alone still never shows half a file
        yield
        return
    except OSError as error:
        raise not_writable_error(folder, error) from None
    try:
        _remove_temporary_files(folder)
        yield
    finally:
        lock.release()


def replace_artifacts(
    folder: Path,
    artifacts: Mapping[Kind, Artifact],
    record: StateRecord,
    *,
    gone: Sequence[Kind] = (),
) -> None:
    """Make these the folder's artifacts, all or none; call it under the lock. Raises UsageError when that fails.

    gone: kinds that leave the folder. The manifest appears last, for it is what a reader looks for first.
    """
    kinds = sorted(artifacts, key=lambda kind: kind is Kind.MANIFEST)
    files = {kind.file_name: artifacts[kind].content for kind in kinds}
    files[RECORD_FILE] = json.dumps(asdict(record), indent=2, ensure_ascii=False).encode()
    staged: dict[str, Path] = {}
    try:
        for name, content in files.items():
            staged[name] = write_temporary(folder, content)
        for name, path in staged.items():
            retry_while_busy(partial(path.replace, folder / name))
        for kind in gone:
            retry_while_busy(partial((folder / kind.file_name).unlink, missing_ok=True))
    except OSError as error:
        raise not_writable_error(folder, error) from None
    finally:
        _remove_temporary_files(folder)


def write_temporary(folder: Path, content: bytes) -> Path:
    """A file on disk beside the others, under a name that no reader knows."""
    handle, path = tempfile.mkstemp(prefix=".datapilot-", suffix=".tmp", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(path).chmod(0o644)  # mkstemp's 0600 would keep a colleague or a container from reading it
    return Path(path)


def not_writable_error(folder: Path, error: OSError) -> UsageError:
    """The error for a folder that can't be written to."""
    return UsageError(
        f"can't write to {folder}: {error.strerror or error}; pull to another folder with "
        "`datapilot dbt pull --output DIR`"
    )


def _remove_temporary_files(folder: Path) -> None:
    """Remove what a process that was killed left half written; nobody else writes, for we hold the lock.

    What can't be removed now harms nobody, and the next one tries again.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            if _TEMPORARY_NAME.fullmatch(path.name):
                retry_while_busy(partial(path.unlink, missing_ok=True))


def retry_while_busy(act: Callable[[], object]) -> None:
    """Do it, for BUSY_S again and again while the system does not permit it."""
    until = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            act()
        except PermissionError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)
        else:
            return


def sha256_of_file(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
