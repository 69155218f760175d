"""Pipes, devices, links and huge files in place of files that users write."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from datapilot_defer import config, files
from datapilot_defer.defer.settings_file import user_settings_file
from tests.support.commands import datapilot

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX")


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 << 30)


# For each kind of file: the function that creates it, and the reason in the error.
KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
    "loop": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "directory": (Path.mkdir, "Is a directory"),
    "huge": (make_sparse, "it is larger than 2 MB"),
}


def project_file(workspace: Path) -> Path:
    return workspace / "shop" / "dbt_project.yml"


def workspace_settings(workspace: Path) -> Path:
    return workspace / ".vscode" / "settings.json"


def own_settings(workspace: Path) -> Path:
    return user_settings_file(workspace / "shop").path


def config_file(_: Path) -> Path:
    path = config.config_file_path(os.environ)
    assert path is not None
    return path


LOCATIONS = [project_file, workspace_settings, own_settings, config_file]


@pytest.mark.parametrize("locate", LOCATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", ["--integration-id 1", "--project-dir . --integration-id 1"])
def test_odd_file_is_reported_quickly(
    workspace: Path, kind: str, locate: Callable[[Path], Path], words: str
) -> None:
    create, reason = KINDS[kind]
    path = locate(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    create(path)
    start = time.monotonic()
    done = datapilot("dbt", "defer", "status", *words.split())
    assert time.monotonic() - start < 10
    assert done.exit_code == 2
    assert str(path) in done.output
    assert reason in done.output


@pytest.mark.parametrize("name", ["a" * 5_000, "a\0b", "\ud800"])
def test_impossible_file_name_is_os_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"File name too long|not a valid file name") as error:
        files.read_small_file(tmp_path / name)
    assert error.value.strerror


def test_file_is_read_up_to_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * files.MAX_SMALL_FILE_BYTES)
    assert len(files.read_small_file(path)) == files.MAX_SMALL_FILE_BYTES
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(OSError, match="larger than 2 MB"):
        files.read_small_file(path)


def test_file_without_size_in_proc_is_read() -> None:
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("needs /proc")
    assert b"Pid:" in files.read_small_file(path)
