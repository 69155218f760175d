"""Fixtures that several test modules share; tests/conftest.py loads them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dbt_project import PROJECT
from tests.support.fault_runner import World, make_world
from tests.support.instances import RunningInstance, running_instance
from tests.support.protocol_server import ProtocolServer, protocol_server


@pytest.fixture
def no_retry_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit retries to half a second with short pauses, for tests that do not measure time."""
    monkeypatch.setattr("datapilot_defer.client.retries.LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr("datapilot_defer.client.retries.UNATTENDED_RETRY_S", 0.5)
    monkeypatch.setattr("datapilot_defer.client.connection.BRIEF_TIMEOUT_S", 2.0)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[RunningInstance]:
    """Yield a new instance called acme, without integrations."""
    with running_instance(tmp_path / "instance") as running:
        yield running


@pytest.fixture
def hosted() -> Iterator[ProtocolServer]:
    """Yield a server that implements only the documented protocol of the hosted service."""
    with protocol_server() as server:
        yield server


@pytest.fixture
def world(instance: RunningInstance, artifacts: Path, tmp_path: Path) -> World:
    """Return an instance with two manifests and certificates, for fault injection."""
    return make_world(instance, artifacts / "manifest.json", tmp_path / "world")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workspace with the dbt project `shop`, the current directory. No dbt on PATH."""
    (tmp_path / "work" / ".git").mkdir(parents=True)
    (tmp_path / "work" / ".vscode").mkdir()
    shutil.copytree(PROJECT, tmp_path / "work" / "shop")
    monkeypatch.chdir(tmp_path / "work" / "shop")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "work"


@pytest.fixture
def prod(artifacts: Path, tmp_path: Path) -> Path:
    """Return a directory with production's manifest."""
    directory = tmp_path / "prod"
    directory.mkdir()
    shutil.copy(artifacts / "manifest.json", directory)
    return directory
