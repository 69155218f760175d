"""Several commands change one settings file at the same time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datapilot_defer.config import user_cache_directory
from datapilot_defer.defer import settings_lock
from datapilot_defer.defer.settings_file import SETTINGS_KEY
from tests.support.commands import datapilot
from tests.support.workspace import entry, local, settings_file

PROJECTS = [f"project{number}" for number in range(6)]


def enable(prod: Path, folder: Path) -> subprocess.Popen[str]:
    """Start `datapilot dbt defer enable` for the project in this folder."""
    words = ["dbt", "defer", "enable", "--manifest-path", str(prod)]
    return subprocess.Popen(
        [sys.executable, "-m", "datapilot_defer", *words],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )


def make_projects(workspace: Path) -> None:
    for name in PROJECTS:
        (workspace / name).mkdir()
        (workspace / name / "dbt_project.yml").write_text("name: shop\n", encoding="utf-8")


@contextmanager
def held_lock() -> Iterator[None]:
    """Hold every lock of settings files, as another process would."""
    fcntl = pytest.importorskip("fcntl", reason="POSIX")
    [path] = (user_cache_directory() / "locks").iterdir()
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_no_entry_of_six_projects_is_lost(workspace: Path, prod: Path) -> None:
    make_projects(workspace)
    # A large file takes long to parse: all six read it before the first one writes.
    words = json.dumps({"words": [[number] for number in range(40_000)]})
    settings_file(workspace).write_text(words, encoding="utf-8")
    processes = [enable(prod, workspace / name) for name in PROJECTS]
    outputs = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(PROJECTS), outputs
    stored = json.loads(settings_file(workspace).read_text("utf-8"))
    assert stored[SETTINGS_KEY] == dict.fromkeys(PROJECTS, local(prod))
    assert [path.name for path in (workspace / ".vscode").iterdir()] == ["settings.json"]


def test_a_lock_that_is_never_released_is_said(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    monkeypatch.setattr(settings_lock, "LOCK_TIMEOUT_S", 0.1)
    with held_lock():
        done = datapilot("dbt", "defer", "disable")
    assert done.exit_code == 5
    assert f"another process has been changing {settings_file(workspace)} for 0.1 s" in done.stderr
    assert entry(workspace) == local(prod)
    assert datapilot("dbt", "defer", "disable").exit_code == 0


def test_where_no_lock_can_be_kept_the_settings_change_all_the_same(
    workspace: Path, prod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert entry(workspace) == local(prod)


@pytest.mark.parametrize(
    "error", [NotImplementedError(), OSError(37, "No locks available"), PermissionError(13, "no")]
)
def test_a_file_system_without_locks_is_used_without(
    workspace: Path, prod: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", fail)
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert entry(workspace) == local(prod)


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_one_file_has_one_lock_whatever_link_leads_to_it(
    workspace: Path, prod: Path, tmp_path: Path
) -> None:
    dotfiles = tmp_path / "dotfiles.json"
    settings_file(workspace).symlink_to(dotfiles)
    with settings_lock.lock_settings(dotfiles):
        pass
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert len(list((user_cache_directory() / "locks").iterdir())) == 1
    assert settings_file(workspace).is_symlink()
