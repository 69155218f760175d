"""A data directory must be private, writable and local. Otherwise, a command fails immediately."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapilot_defer.errors import Unavailable
from datapilot_defer.storage import open_storage
from datapilot_defer.storage.database import open_database, sqlite_url
from tests.support.commands import Outcome, datapilot
from tests.support.other_user import USER_ID, needs_root, run_as_other_user

posix_only = pytest.mark.skipif(os.name != "posix", reason="Windows has no permission bits")
GROUP = 4242
LOG = "removed the access of other users to"


@pytest.fixture
def data() -> Iterator[Path]:
    """Yield a data directory with an instance, in a directory that every user can enter."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        path = Path(parent) / "data"
        assert init(path).exit_code == 0
        yield path
        path.chmod(0o700)


def init(path: Path, name: str = "acme") -> Outcome:
    return datapilot("instance", "init", "--data", path, "--instance-name", name)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(directory: Path) -> dict[str, int]:
    """Return the permission bits of a directory and everything in it."""
    paths = [directory, *directory.rglob("*")]
    return {str(path.relative_to(directory)): mode(path) for path in paths}


@posix_only
def test_an_existing_data_directory_becomes_private(data: Path) -> None:
    with open_storage(data) as storage, storage.database.read():
        data.chmod(0o755)
        (data / "blobs").chmod(0o775)
        for suffix in ("", "-wal", "-shm"):
            (data / f"records.sqlite3{suffix}").chmod(0o644)
        (data / "records.backup").touch(0o644)
        first = datapilot("instance", "token", "list", "--data", data)
        assert first.exit_code == 0
        assert modes(data) == {
            ".": 0o700,
            "blobs": 0o700,
            "records.backup": 0o600,
            "records.sqlite3": 0o600,
            "records.sqlite3-wal": 0o600,
            "records.sqlite3-shm": 0o600,
        }
    assert first.stderr.count(LOG) == 1
    assert f"{data}, " in first.stderr
    assert f"{data / 'records.sqlite3-wal'}, " in first.stderr
    assert LOG not in datapilot("instance", "token", "list", "--data", data).stderr


@posix_only
def test_new_files_are_private_with_any_umask(tmp_path: Path) -> None:
    existing = tmp_path / "existing"
    existing.mkdir(mode=0o755)
    for path in (existing, tmp_path / "new" / "data"):
        subprocess.run(
            [
                *(sys.executable, "-m", "datapilot_defer", "instance", "init"),
                *("--data", path, "--instance-name", "acme"),
            ],
            umask=0,
            check=True,
            capture_output=True,
        )
        assert {name for name, bits in modes(path).items() if bits & 0o077} == set()


@posix_only
def test_the_umask_of_the_process_is_restored(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        init(tmp_path / "data")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


@posix_only
def test_a_directory_that_contains_other_files_keeps_its_permissions(data: Path) -> None:
    (data / "of another program").touch()
    data.chmod(0o1777)
    (data / "records.sqlite3").chmod(0o644)
    assert datapilot("instance", "token", "list", "--data", data).exit_code == 0
    assert mode(data) == 0o1777
    assert mode(data / "records.sqlite3") == 0o600
    data.chmod(0o777)
    unsafe = datapilot("instance", "token", "list", "--data", data)
    assert (
        unsafe.stderr
        == f"Warning: any user can replace the files in {data}. Use a subdirectory instead.\n"
    )


@posix_only
def test_the_target_of_a_link_keeps_its_permissions(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (data / "records.backup").symlink_to(target)
    target.touch()
    target.chmod(0o644)
    assert datapilot("instance", "token", "list", "--data", data).exit_code == 0
    assert mode(target) == 0o644


@needs_root
@pytest.mark.parametrize("nested", ["", "nested"])
def test_a_volume_that_kubernetes_gives_to_a_group_is_used(data: Path, nested: str) -> None:
    """At every start, the kubelet makes everything on a volume accessible to a group."""
    directory = data / nested
    if nested:
        directory.mkdir()
        (data / "blobs").rename(directory / "blobs")
        (data / "records.sqlite3").rename(directory / "records.sqlite3")
    os.chown(data, 0, GROUP)
    data.chmod(0o2775)
    for path in data.rglob("*"):
        os.chown(path, USER_ID, GROUP)
        path.chmod({True: 0o660, False: 0o2775}[path.is_file()])
    command = ("instance", "token", "list", "--data", directory)
    result = run_as_other_user(*command, groups=[GROUP])
    assert result.returncode == 0, result.stderr
    assert LOG in result.stderr
    assert mode(data) == 0o2775
    assert mode(directory / "records.sqlite3") == 0o600
    assert mode(directory / "blobs") & 0o077 == 0
    again = run_as_other_user(*command, groups=[GROUP])
    assert (again.returncode, again.stderr) == (0, "")


@needs_root
@pytest.mark.parametrize("bits", [0o660, 0o664])
def test_access_that_cannot_be_removed_is_rejected_with_the_command_that_removes_it(
    data: Path, bits: int
) -> None:
    """Root owns the database, and the other user has access as a member of a group."""
    for path in [data, *data.rglob("*")]:
        os.chown(path, 0, GROUP)
        path.chmod({True: bits, False: 0o775}[path.is_file()])
    before = modes(data)
    command = ("instance", "token", "list", "--data", data)
    for rejected in (("instance", "serve", "--data", data), command):
        result = run_as_other_user(*rejected, groups=[GROUP])
        assert result.returncode == 2
        assert "contains the signing key" in result.stderr
        assert modes(data) == before
    advice = result.stderr.partition("Run `")[2].partition("`")[0]
    subprocess.run(["sh", "-ec", advice.replace("sudo ", "")], check=True)
    again = run_as_other_user(*command, groups=[GROUP])
    assert again.returncode == 0, again.stderr


@needs_root
@pytest.mark.parametrize(
    ("command", "path"),
    [
        (("serve",), "."),
        (("serve",), "blobs"),
        (("serve",), "records.sqlite3"),
        (("init", "--instance-name", "b"), "."),
        (("token", "list"), "."),
    ],
)
def test_a_read_only_data_directory_is_reported_at_once(
    data: Path, command: tuple[str, ...], path: str
) -> None:
    for each in [data, *data.rglob("*")]:
        os.chown(each, USER_ID, USER_ID)
    (data / path).chmod(0o500)
    result = run_as_other_user("instance", *command, "--data", data)
    assert result.returncode == 2
    assert f"Error: cannot write to {data / path}. Check its owner" in result.stderr
    assert "Traceback" not in result.stderr


@needs_root
def test_a_read_only_file_system_is_reported_at_once(data: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", data, mounted], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mounted], check=True)
        result = datapilot("instance", "serve", "--data", mounted)
        missing = datapilot("instance", "serve", "--data", mounted / "new")
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert result.exit_code == 2
    assert f"cannot write to {mounted}. " in result.stderr
    assert missing.exit_code == 2
    assert "as the data directory: Read-only file system" in missing.stderr


@needs_root
@pytest.mark.parametrize("command", [("serve",), ("token", "list")])
def test_a_directory_without_access_is_reported(data: Path, command: tuple[str, ...]) -> None:
    for path in (data, data / "nested"):
        result = run_as_other_user("instance", *command, "--data", path)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr
        assert str(path) in result.stderr


@pytest.mark.parametrize("command", [("serve",), ("init", "--instance-name", "acme")])
def test_a_file_is_not_a_data_directory(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "file"
    path.touch()
    result = datapilot("instance", *command, "--data", path)
    assert result.exit_code == 2
    assert f"cannot use {path} as the data directory: not a directory" in result.stderr


@pytest.mark.parametrize(
    "url", ["s3://bucket", "S3://bucket/a", "file:///srv/a", "postgresql+x://h"]
)
@pytest.mark.parametrize(
    "command", [("serve",), ("init", "--instance-name", "a"), ("token", "list")]
)
def test_a_url_is_not_a_data_directory_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    as_option = datapilot("instance", *command, "--data", url)
    from_environment = datapilot("instance", *command, env={"DATAPILOT_INSTANCE_DATA": url})
    for result in (as_option, from_environment):
        assert result.exit_code == 2
        assert f"'{url}' is a URL. Use a local directory." in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_opening_an_invalid_database_is_not_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_seconds: float) -> None:
        raise AssertionError("waited to try again")

    monkeypatch.setattr(time, "sleep", fail)
    with pytest.raises(Unavailable, match="unable to open database file"):
        open_database(sqlite_url(tmp_path / "missing"))
