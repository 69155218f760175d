"""Number of times that commands open, hash and split a file."""

import shutil
from pathlib import Path

import pytest

from tests.support.commands import access, create_integration, datapilot
from tests.support.counted_command import count_command
from tests.support.dbt_project import PROJECT
from tests.support.instances import RunningInstance

MANIFEST = "manifest.json"


@pytest.fixture
def integration(instance: RunningInstance, artifacts: Path) -> int:
    """Return the id of an integration with a manifest."""
    integration_id = create_integration(instance)
    onboarded = datapilot(
        *("dbt", "onboard", "--integration-id", integration_id),
        *("--manifest-path", artifacts / MANIFEST),
        env=access(instance),
    )
    assert onboarded.exit_code == 0, onboarded.output
    return integration_id


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a dbt project in a VS Code workspace."""
    directory = tmp_path / "project"
    shutil.copytree(PROJECT, directory)
    (directory / ".vscode").mkdir()
    return directory


def test_onboard_reads_each_artifact_once(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    integration_id = create_integration(instance)
    counts = count_command(
        *(tmp_path / "counts.json", "dbt", "onboard", "--integration-id", integration_id),
        *("--manifest-path", artifacts / MANIFEST, "--catalog-path", artifacts / "catalog.json"),
        directory=tmp_path,
        env=access(instance),
    )
    names = (MANIFEST, "catalog.json", "run_results.json")  # The last one is not uploaded.
    assert [counts.opened[name] for name in names] == [1, 1, 1]
    assert (counts.hashed, counts.split) == (3, 3)


def test_onboard_reads_run_results_beside_manifest_once(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    integration_id = create_integration(instance)
    counts = count_command(
        *(tmp_path / "counts.json", "dbt", "onboard", "--integration-id", integration_id),
        *("--manifest-path", artifacts / MANIFEST),
        *("--run-results-path", artifacts / "run_results.json"),
        directory=tmp_path,
        env=access(instance),
    )
    assert (counts.opened["run_results.json"], counts.hashed, counts.split) == (1, 2, 2)


def test_validate_reads_each_artifact_once(artifacts: Path, tmp_path: Path) -> None:
    counts = count_command(
        *(tmp_path / "counts.json", "dbt", "validate", artifacts / MANIFEST),
        directory=tmp_path,
        env={},
    )
    assert (counts.opened[MANIFEST], counts.hashed, counts.split) == (1, 1, 1)


def test_pull_writes_hashes_and_splits_manifest_once(
    instance: RunningInstance, integration: int, tmp_path: Path
) -> None:
    pull = ("dbt", "pull", "--integration-id", integration, "--output", tmp_path / "state")
    first = count_command(tmp_path / "first.json", *pull, directory=tmp_path, env=access(instance))
    assert (first.hashed, first.split) == (1, 1)
    temporary = [name for name in first.written if name.startswith(".datapilot-")]
    assert len(temporary) == 2  # The manifest and the record.
    unchanged = count_command(
        tmp_path / "unchanged.json", *pull, directory=tmp_path, env=access(instance)
    )
    assert (unchanged.opened[MANIFEST], unchanged.hashed, unchanged.split) == (1, 1, 0)
    assert not [name for name in unchanged.written if name.startswith(".datapilot-")]


def test_defer_status_reads_local_manifest_and_settings_once(
    project: Path, artifacts: Path, tmp_path: Path
) -> None:
    enable = count_command(
        *(tmp_path / "enable.json", "dbt", "defer", "enable", "--manifest-path", artifacts),
        directory=project,
        env={},
    )
    assert (enable.opened[MANIFEST], enable.hashed, enable.split) == (1, 1, 1)
    # The file is read again before it is written, because an editor may have changed it.
    assert enable.opened["settings.json"] == 2
    status = count_command(
        *(tmp_path / "status.json", "dbt", "defer", "status"), directory=project, env={}
    )
    assert (status.opened[MANIFEST], status.hashed, status.split) == (1, 1, 1)
    assert status.opened["settings.json"] == 1


def test_defer_status_reads_pulled_manifest_once(
    instance: RunningInstance, integration: int, project: Path, tmp_path: Path
) -> None:
    enable = count_command(
        *(tmp_path / "enable.json", "dbt", "defer", "enable", "--integration-id", integration),
        directory=project,
        env=access(instance),
    )
    assert (enable.hashed, enable.split) == (1, 1)
    status = count_command(
        *(tmp_path / "status.json", "dbt", "defer", "status"),
        directory=project,
        env=access(instance),
    )
    assert (status.opened[MANIFEST], status.hashed, status.split) == (1, 1, 1)
