"""Compatibility of clients and instances of the previous, this and a future release."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.dbt_project import PROJECT
from tests.support.fault_proxy import fault_proxy
from tests.support.future_answers import FUTURE_ANSWERS
from tests.support.releases import ReleaseClient, unpack_release
from tests.support.server_process import Checkout, serving

PREVIOUS = "0.1.0"
INTEGRATIONS = ("dbt", "integrations")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Return the previous release."""
    return unpack_release(PREVIOUS, tmp_path_factory.mktemp("release") / PREVIOUS)


@contextmanager
def client_of(client: Checkout, instance: Checkout, directory: Path) -> Iterator[ReleaseClient]:
    with serving(instance, directory / "data") as server:
        yield ReleaseClient(client, server.url, server.token, directory / "home")


@pytest.fixture
def this_with_previous(previous: Checkout, tmp_path: Path) -> Iterator[ReleaseClient]:
    """Yield a client of this release that uses an instance of the previous release."""
    with client_of(Checkout(), previous, tmp_path) as client:
        yield client


@pytest.fixture
def previous_with_this(previous: Checkout, tmp_path: Path) -> Iterator[ReleaseClient]:
    """Yield a client of the previous release that uses an instance of this release."""
    with client_of(previous, Checkout(), tmp_path) as client:
        yield client


@pytest.fixture
def this_with_future(tmp_path: Path) -> Iterator[ReleaseClient]:
    """Yield a client of this release that uses an instance of a future release."""
    with (
        serving(Checkout(), tmp_path / "data") as server,
        fault_proxy(server.url, FUTURE_ANSWERS) as proxy,
    ):
        yield ReleaseClient(Checkout(), proxy.url, server.token, tmp_path / "home")


def test_previous_client_is_previous_release(previous: Checkout, tmp_path: Path) -> None:
    client = ReleaseClient(previous, "http://127.0.0.1:1", "token", tmp_path)
    done = client.run("dbt", "integrations", "--help")
    assert "restore" in done.stdout
    assert "undelete" not in done.stdout


def test_this_client_works_with_previous_instance(
    this_with_previous: ReleaseClient, artifacts: Path, tmp_path: Path
) -> None:
    check_onboarding_to_deferral(this_with_previous, artifacts, tmp_path)


def test_previous_client_works_with_this_instance(
    previous_with_this: ReleaseClient, artifacts: Path, tmp_path: Path
) -> None:
    check_onboarding_to_deferral(previous_with_this, artifacts, tmp_path)


def test_this_client_works_with_future_instance(
    this_with_future: ReleaseClient, artifacts: Path, tmp_path: Path
) -> None:
    check_onboarding_to_deferral(this_with_future, artifacts, tmp_path)
    # The output shows that the responses were those of a future release.
    assert "of another type" in this_with_future.run(*INTEGRATIONS, "list").stdout
    history = this_with_future.run(*INTEGRATIONS, "history", "--integration-id", 1).stdout
    assert "column_lineage" in history


def test_clients_use_state_directory_of_each_other(
    this_with_previous: ReleaseClient, previous: Checkout, artifacts: Path, tmp_path: Path
) -> None:
    this = this_with_previous
    earlier = ReleaseClient(previous, this.url, this.token, tmp_path / "home")
    this.read(*INTEGRATIONS, "create", "--name", "shop")
    option = ("--integration-name", "shop")
    this.read("dbt", "onboard", *option, "--manifest-path", artifacts / "manifest.json")
    for writer, reader in ((this, earlier), (earlier, this)):
        pull = ("dbt", "pull", *option, "-o", tmp_path / f"by {writer.checkout.directory.name}")
        assert writer.read(*pull)["unchanged"] is False
        assert reader.read(*pull)["unchanged"] is True
        assert reader.read(*pull, "--offline")["offline"] is True


def check_onboarding_to_deferral(client: ReleaseClient, artifacts: Path, directory: Path) -> None:
    """Run the commands of every release: onboard twice, pull, restore and defer."""
    integration_id = client.read(*INTEGRATIONS, "create", "--name", "shop")["id"]
    listed = client.read(*INTEGRATIONS, "list")["integrations"]
    assert (integration_id, "shop") in [(entry["id"], entry["name"]) for entry in listed]
    options = ("--integration-id", integration_id, "--environment", "PROD")
    first = artifacts / "manifest.json"
    second = directory / "manifest.json"
    second.write_bytes(first.read_bytes() + b"\n")
    for manifest in (first, second):
        paths = ("--manifest-path", manifest, "--catalog-path", artifacts / "catalog.json")
        assert client.read("dbt", "onboard", *options, *paths)["ok"] is True
    check_pull(client, second, directory / "second", *options)
    check_history(client, integration_id)
    client.read(*INTEGRATIONS, "restore", *options, "--file-id", first_file_id(client))
    check_pull(client, first, directory / "first", *options)
    check_deferral(client, directory, *options)


def check_pull(client: ReleaseClient, manifest: Path, directory: Path, *options: object) -> None:
    """Pull a manifest and a catalog twice; the second pull downloads nothing."""
    words = ("dbt", "pull", *options, "--kind", "manifest", "--kind", "catalog", "-o", directory)
    assert client.read(*words)["unchanged"] is False
    assert (directory / "manifest.json").read_bytes() == manifest.read_bytes()
    assert (directory / "catalog.json").is_file()
    assert client.read(*words)["unchanged"] is True
    assert client.read(*words, "--offline")["offline"] is True


def check_history(client: ReleaseClient, integration_id: int) -> None:
    for command in ("show", "history"):
        options = ("--integration-id", integration_id)
        assert client.read(*INTEGRATIONS, command, *options)
        assert client.run(*INTEGRATIONS, command, *options).returncode == 0


def first_file_id(client: ReleaseClient) -> int:
    """Return the id of the first manifest from the API, which is equal in all releases."""
    headers = {"Authorization": f"Bearer {client.token}", "x-tenant": "acme"}
    url = f"{client.url}/dbt/v1/project_integrations/1/PROD"
    history = requests.get(url, headers=headers, timeout=30).json()["history"]
    return min(
        int(entry["dbt_core_integration_file_id"])
        for entry in history
        if entry["file_type"] == "manifest"
    )


def check_deferral(client: ReleaseClient, directory: Path, *options: object) -> None:
    """Turn defer on in a copy of the project and check its status."""
    project = directory / "shop"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("target", "logs", "*.duckdb*"))
    client.read("dbt", "defer", "enable", *options, cwd=project)
    status = client.read("dbt", "defer", "status", cwd=project)
    assert (status["usable"], status["manifest"]["project_name"]) == (True, "shop")
    assert client.run("doctor", "--json", cwd=project).returncode == 0


def test_missing_calls_of_previous_instance_are_reported(
    this_with_previous: ReleaseClient, artifacts: Path
) -> None:
    client = this_with_previous
    client.read(*INTEGRATIONS, "create", "--name", "shop")
    option = ("--integration-name", "shop")
    for words in (
        ("rename", *option, "--to", "store"),
        ("delete", *option, "--yes"),
        ("checks", *option),
        ("checks", *option, "--disable", "older"),
    ):
        done = client.run(*INTEGRATIONS, *words)
        assert done.returncode == 2, (words, done.stderr)
        assert "older release" in done.stderr
    done = client.run(*INTEGRATIONS, "accept", 1)
    assert (done.returncode, "older releases cannot accept" in done.stderr) == (4, True)
    assert client.read(*INTEGRATIONS, "list", "--deleted")["integrations"] == []


def test_errors_of_future_instance_keep_exit_codes(
    this_with_future: ReleaseClient, artifacts: Path, tmp_path: Path
) -> None:
    client = this_with_future
    client.read(*INTEGRATIONS, "create", "--name", "shop")
    option = ("--integration-id", 1)
    assert client.run("dbt", "pull", *option, "-o", tmp_path / "state").returncode == 4
    assert client.run("dbt", "pull", "--integration-id", 77).returncode == 4
    upload = ("dbt", "onboard", *option, "--manifest-path", artifacts / "manifest.json")
    client.read(*upload)
    assert client.run(*INTEGRATIONS, "rename", *option, "--to", "store").returncode == 0
    assert client.run(*INTEGRATIONS, "checks", *option, "--disable", "older").returncode == 0
    assert client.run(*INTEGRATIONS, "delete", *option, "--yes").returncode == 0
    assert client.run(*upload).returncode == 4
    assert client.run(*INTEGRATIONS, "undelete", *option).returncode == 0
    assert client.run("dbt", "pull", *option, "-o", tmp_path / "state").returncode == 0
