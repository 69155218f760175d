"""Concurrent changes of one settings file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datapilot_defer.defer import settings_lock
from datapilot_defer.defer.settings_file import SETTINGS_KEY
from tests.support.commands import datapilot
from tests.support.workspace import entry, local, settings_file

PROJECTS = [f"project{number}" for number in range(6)]


def enable(prod: Path, directory: Path, cache: Path) -> subprocess.Popen[str]:
    """Start `datapilot dbt defer enable` for the project in this directory."""
    words = ["dbt", "defer", "enable", "--manifest-path", str(prod)]
    return subprocess.Popen(
        [sys.executable, "-m", "datapilot_defer", *words],
        cwd=directory,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
    )


def make_projects(workspace: Path) -> None:
    for name in PROJECTS:
        (workspace / name).mkdir()
        (workspace / name / "dbt_project.yml").write_text("name: shop\n", encoding="utf-8")


@pytest.mark.parametrize("shares_cache", [True, False])
def test_concurrent_enable_keeps_every_entry(
    workspace: Path, prod: Path, tmp_path: Path, shares_cache: bool
) -> None:
    if os.name == "nt" and not shares_cache:
        pytest.skip("the lock is in the user's cache")
    make_projects(workspace)
    # Parsing a large file takes so long that all six processes read it before the first one writes.
    words = json.dumps({"words": [[number] for number in range(40_000)]})
    settings_file(workspace).write_text(words, encoding="utf-8")
    caches = [tmp_path / "cache" / name for name in PROJECTS]
    if shares_cache:
        caches = [tmp_path / "cache"] * len(PROJECTS)
    processes = [
        enable(prod, workspace / name, cache) for name, cache in zip(PROJECTS, caches, strict=True)
    ]
    outputs = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(PROJECTS), outputs
    stored = json.loads(settings_file(workspace).read_text("utf-8"))
    assert stored[SETTINGS_KEY] == dict.fromkeys(PROJECTS, local(prod))
    assert [path.name for path in (workspace / ".vscode").iterdir()] == ["settings.json"]


def test_lock_that_is_never_released_is_reported(
    workspace: Path, prod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    monkeypatch.setattr(settings_lock, "LOCK_TIMEOUT_S", 0.1)
    with settings_lock.lock_settings(settings_file(workspace)):
        done = datapilot("dbt", "defer", "disable")
    assert done.exit_code == 5
    assert f"another process has been changing {settings_file(workspace)} for 0.1 s" in done.stderr
    assert entry(workspace) == local(prod)
    assert datapilot("dbt", "defer", "disable").exit_code == 0


def test_wait_for_lock_ends_with_command_timeout(workspace: Path, prod: Path) -> None:
    start = time.monotonic()
    with settings_lock.lock_settings(settings_file(workspace)):
        done = datapilot("dbt", "defer", "enable", "--manifest-path", prod, "--timeout", "1")
    assert done.exit_code == 5
    assert time.monotonic() - start < 10
    assert not settings_file(workspace).exists()


def test_settings_change_without_lock_directory(
    workspace: Path, prod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert entry(workspace) == local(prod)


@pytest.mark.skipif(os.name == "nt", reason="POSIX")
@pytest.mark.parametrize("error", [OSError(37, "No locks available"), PermissionError(13, "no")])
def test_settings_change_on_file_system_without_locks(
    workspace: Path, prod: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fcntl.flock", fail)
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert entry(workspace) == local(prod)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege")
def test_symlink_and_target_share_lock(
    workspace: Path, prod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dotfiles = tmp_path / "dotfiles.json"
    settings_file(workspace).symlink_to(dotfiles)
    monkeypatch.setattr(settings_lock, "LOCK_TIMEOUT_S", 0.1)
    words = ("dbt", "defer", "enable", "--manifest-path", prod)
    with settings_lock.lock_settings(dotfiles):
        assert datapilot(*words).exit_code == 5
    assert datapilot(*words).exit_code == 0
    assert settings_file(workspace).is_symlink()
