"""Blobs survive a power failure, and the storage library's runtime survives a flood."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datapilot_defer.errors import Unavailable
from datapilot_defer.storage.blobs import open_blobs
from tests.support.served_command import REPOSITORY

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@linux_only
@pytest.mark.parametrize("is_new", [True, False])
def test_every_directory_of_a_blob_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """Another upload may have created a directory and been killed before syncing it."""
    blobs = open_blobs(tmp_path / "blobs")
    if not is_new:
        with blobs.open_writer() as writer:
            writer.write(b"content")
            writer.commit(7)
    synced: list[str] = []
    fsync = os.fsync

    def record_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(path.relative_to(tmp_path).as_posix())
        fsync(descriptor)

    with blobs.open_writer() as writer:
        writer.write(b"content")
        monkeypatch.setattr(os, "fsync", record_fsync)
        blob = writer.commit(7)
    assert synced[0].startswith("blobs/incoming/")
    assert synced[1:] == [f"blobs/7/{blob.sha256[:2]}", "blobs/7", "blobs"]


_SETUP = """
import contextlib, os, resource, sys
from pathlib import Path
from datapilot_defer.errors import Unavailable
from datapilot_defer.storage.blobs import BlobStore, open_blobs
from obstore.store import LocalStore

def write(blobs):
    with blobs.open_writer() as writer:
        writer.write(b"content")
        return writer.commit(1)

@contextlib.contextmanager
def no_descriptors_left():
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)

def expect_unavailable(action):
    try:
        action()
    except Unavailable as error:
        return str(error)
    raise AssertionError("not unavailable")

directory = Path(sys.argv[1])
directory.mkdir(exist_ok=True)
"""


def run_python(script: str, directory: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _SETUP + script, directory],
        cwd=REPOSITORY,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@linux_only
def test_running_out_of_descriptors_after_the_start_does_not_break_the_runtime(
    tmp_path: Path,
) -> None:
    script = """
blobs = open_blobs(directory)
with no_descriptors_left():
    expect_unavailable(lambda: write(blobs))
assert not blobs.is_broken
blob = write(blobs)
assert blobs.read(1, blob.sha256) == b"content"
"""
    run_python(script, tmp_path / "blobs")


@linux_only
def test_a_panic_of_the_runtime_is_unavailable_and_marks_the_store_as_broken(
    tmp_path: Path,
) -> None:
    """This is a panic of the library itself, whose first operation runs without descriptors."""
    script = """
blobs = BlobStore(LocalStore(directory), directory)
with no_descriptors_left():
    message = expect_unavailable(lambda: write(blobs))
    assert "the storage library failed" in message, message
assert blobs.is_broken
for action in (lambda: write(blobs), lambda: blobs.exists(1, "0" * 64),
               lambda: list(blobs._list_objects()), lambda: blobs.delete(1, "0" * 64)):
    assert "the storage library failed" in expect_unavailable(action)
"""
    run_python(script, tmp_path / "blobs")


@linux_only
def test_a_panic_during_an_upload_is_unavailable(tmp_path: Path) -> None:
    script = """
class PanicException(BaseException):
    pass

class Panicking:
    def write(self, *content):
        raise PanicException("boom")
    close = write

blobs = open_blobs(directory)
def upload():
    with blobs.open_writer() as writer:
        writer._writer = Panicking()
        writer.write(b"content")
expect_unavailable(upload)
assert blobs.is_broken
try:
    with blobs.as_unavailable():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    pass
"""
    run_python(script, tmp_path / "blobs")


def test_a_store_that_is_a_file_is_unavailable_and_not_broken(tmp_path: Path) -> None:
    (tmp_path / "blobs").touch()
    with pytest.raises(Unavailable, match="blob store is unavailable"):
        open_blobs(tmp_path / "blobs")
