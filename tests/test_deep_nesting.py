"""Untrusted JSON that is nested too deeply for a decoder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datapilot_defer import ci, credential_store
from datapilot_defer.client.connection import InstanceAddress
from datapilot_defer.credential_store import StoredCredentials
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer.last_run import check_retry
from datapilot_defer.pull import integration_names
from datapilot_defer.pull.record import parse_record, parse_record_version
from datapilot_defer.pull.state_directory import instance_cache_directory
from tests.conftest import MemoryKeyring

DEEP = "[" * 200_000 + "]" * 200_000
URL = "https://i.example"


def test_deep_state_record_is_ignored() -> None:
    content = f'{{"version": 1, "more": {DEEP}}}'.encode()
    assert parse_record(content) is None
    assert parse_record_version(content) == 0


def test_deep_ci_event_is_ignored(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text(DEEP, encoding="utf-8")
    environ = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SHA": "merge",
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_EVENT_PATH": str(event),
    }
    run = ci.detect_ci(environ)
    assert run is not None
    assert run.commit == "merge"


def test_deep_keyring_entry_is_ignored(memory_keyring: MemoryKeyring) -> None:
    credential_store.save_to_keyring(StoredCredentials(URL, "acme", "s3cret-token"))
    for entry, content in memory_keyring.passwords.items():
        if "s3cret-token" in content:
            memory_keyring.passwords[entry] = f'{{"more": {DEEP}}}'
    assert credential_store.find_in_keyring(URL, "acme") is None


def test_deep_run_results_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "run_results.json").write_text(f'{{"args": {DEEP}}}', encoding="utf-8")
    check_retry(["retry"], DbtProject(tmp_path, "shop", tmp_path))


@pytest.mark.parametrize(
    "names", [DEEP, f'{{"shop": {DEEP}}}', f'{{"shop": {"9" * 5000}}}', '{"shop": -3}']
)
def test_corrupt_name_cache_is_ignored(names: str) -> None:
    address = InstanceAddress(URL, "acme")
    directory = instance_cache_directory(address)
    directory.mkdir(parents=True)
    (directory / "names.json").write_text(names, encoding="utf-8")
    assert integration_names._read_cached_id(address, "shop") is None


@pytest.mark.skipif(os.name == "nt", reason="pipes with a path")
def test_pipe_instead_of_name_cache_is_not_read() -> None:
    address = InstanceAddress(URL, "acme")
    directory = instance_cache_directory(address)
    directory.mkdir(parents=True)
    os.mkfifo(directory / "names.json")
    assert integration_names._read_cached_id(address, "shop") is None
