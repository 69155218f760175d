"""An instance whose disk is full."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import access, create_integration, current_sha256, datapilot
from tests.support.instances import RunningInstance, running_instance

DISK_BYTES = 8 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 8 MB. Only root on Linux can mount one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a file system of a given size can only be mounted by root on Linux")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", directory], check=True
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> Path:
    """Write a file that fills the disk and return its path."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return path


@pytest.mark.usefixtures("no_retry_delay")
def test_full_disk_rejects_upload_and_keeps_current_manifest(
    small_disk: Path, artifacts: Path, tmp_path: Path
) -> None:
    before = (artifacts / "manifest.json").read_bytes()
    after = tmp_path / "manifest.json"
    after.write_bytes(before + b"\n" * 200_000)
    with running_instance(small_disk / "data") as instance:
        integration = create_integration(instance)
        assert onboard(instance, integration, artifacts / "manifest.json") == 0
        filler = fill(small_disk)
        assert onboard(instance, integration, after) == 5
        filler.unlink()
        assert (
            current_sha256(instance, integration, tmp_path / "state")
            == hashlib.sha256(before).hexdigest()
        )
        assert onboard(instance, integration, after) == 0
        assert (
            current_sha256(instance, integration, tmp_path / "state")
            == hashlib.sha256(after.read_bytes()).hexdigest()
        )


def onboard(instance: RunningInstance, integration: int, path: Path) -> int:
    """Onboard a manifest, check the output for secrets and tracebacks, and return the exit code."""
    done = datapilot(
        *("dbt", "onboard", "--integration-id", integration, "--manifest-path", path),
        env=access(instance),
    )
    assert "Traceback" not in done.output
    assert instance.token not in done.output
    return done.exit_code
