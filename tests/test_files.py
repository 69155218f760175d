"""Atomic writes and bounded reads of files."""

import hashlib
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapilot_defer import files

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")


@pytest.fixture(params=[0o002, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set and return the umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_new_file_respects_umask(umask: int, tmp_path: Path) -> None:
    files.write_atomically(tmp_path / "new.json", b"content")
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o666 & ~umask


def test_existing_file_ignores_umask(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.touch()
    path.chmod(0o664)
    files.write_atomically(path, b"new")
    assert path.stat().st_mode & 0o777 == 0o664


def test_new_file_is_readable_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    files.write_atomically(tmp_path / "new.json", b"content")
    assert (tmp_path / "new.json").read_bytes() == b"content"
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["new.json"]


def test_existing_file_keeps_permissions(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(b"old")
    path.chmod(0o640)
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_secret_file_is_not_readable_by_others(tmp_path: Path) -> None:
    files.write_atomically(tmp_path / "secret.json", b"token", mode=0o600)
    assert (tmp_path / "secret.json").stat().st_mode & 0o777 == 0o600


def test_symlink_is_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_bytes(b"old")
    link.symlink_to(target)
    files.write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_failed_write_removes_temporary_file(tmp_path: Path) -> None:
    occupied = tmp_path / "occupied"
    (occupied / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="occupied"):
        files.write_atomically(occupied, b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["occupied"]


def test_full_disk_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush_to_disk", fail)
    with pytest.raises(OSError, match="No space left"):
        files.write_temporary(tmp_path, b"content")
    assert list(tmp_path.iterdir()) == []


def test_regular_file_is_read_up_to_limit(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b"12345")
    assert files.read_regular_file(path, 5) == b"12345"
    sha256 = hashlib.sha256(b"12345").hexdigest()
    assert files.has_content(path, sha256, 5)
    assert not files.has_content(path, "0" * 64, 5)
    with pytest.raises(OSError, match="it is larger than"):
        files.read_regular_file(path, 4)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipe_and_device_are_rejected(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is not a regular file"):
        files.read_regular_file(path, 5)
    with pytest.raises(OSError, match="is not a regular file"):
        files.has_content(path, "0" * 64, 5)


def test_reading_a_small_file_reserves_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b"12345")
    tracemalloc.start()
    try:
        assert files.read_regular_file(path, 1 << 30) == b"12345"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
