"""State directories of two instances, records, unusual times and busy files."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from datapilot_defer import files
from datapilot_defer.artifact import ArtifactMetadata, Kind, Provenance, read_artifact
from datapilot_defer.client.connection import InstanceAddress
from datapilot_defer.pull import update
from datapilot_defer.pull.record import PulledArtifact, StateRecord, parse_record
from datapilot_defer.pull.request import PullOptions, PullResult, describe_age
from datapilot_defer.pull.state_directory import StateDirectory, default_state_directory
from tests.support.commands import Outcome, access, datapilot
from tests.support.instances import RunningInstance


def pull(instance: RunningInstance, name: str, *words: object) -> Outcome:
    environ = {**access(instance), "ALTIMATE_INSTANCE_NAME": name, "PATH": ""}
    return datapilot("dbt", "pull", "--integration-id", 1, "--json", *words, env=environ)


def test_manifest_of_one_instance_is_not_used_for_another(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    words: tuple[str, ...] = (
        "dbt",
        "integrations",
        "create",
        "--name",
        "shop",
        "--environment",
        "PROD",
    )
    assert datapilot(*words, env=access(instance)).exit_code == 0
    manifest = artifacts / "manifest.json"
    words = ("dbt", "onboard", "--integration-id", "1", "--manifest-path", str(manifest))
    assert datapilot(*words, env=access(instance)).exit_code == 0
    output = ("--output", tmp_path / "state")
    assert pull(instance, instance.instance_name, *output).exit_code == 0
    assert pull(instance, instance.instance_name, *output, "--offline").exit_code == 0
    done = pull(instance, "other", *output, "--offline")
    assert done.exit_code == 5
    assert "no usable artifacts" in done.stderr


def test_instance_names_that_differ_only_in_case_have_different_directories() -> None:
    directories = {
        str(
            default_state_directory(InstanceAddress("https://i.example", name), 1, None, None)
        ).lower()
        for name in ("acme", "Acme", "ACME", "a cme", "a_cme")
    }
    assert len(directories) == 5
    assert default_state_directory(
        InstanceAddress("https://i.example", "acme"), 1, "prod", None
    ) == default_state_directory(InstanceAddress("https://I.example", "acme"), 1, "PROD", None)


@pytest.mark.parametrize(
    ("readable_by", "usable"),
    [("1.11", True), ("1.11.16", True), ("1.13", True), ("v1.12.0rc1", True), ("1.10", False)],
)
def test_pulled_manifest_is_checked_for_any_version_format(readable_by: str, usable: bool) -> None:
    entry = PulledArtifact(
        ArtifactMetadata(Kind.MANIFEST, "", 0), readable_by=("1.11", "1.12", "2")
    )
    assert PullOptions(1, readable_by=readable_by).accepts(entry) is usable


RECORD_OF_0_1_0 = """\
{
  "origin": "https://i.example instance 'acme' integration 1 environment prod",
  "environment": "PROD",
  "entries": [
    {
      "kind": "manifest",
      "sha256": "aaaa",
      "size_bytes": 5,
      "file_id": 7,
      "schema_version": 12,
      "dbt_version": "1.11.16",
      "project_name": "café",
      "generated_at": "2026-11-22T10:00:00.120000+00:00",
      "uploaded_at": "2026-11-22T10:01:00Z",
      "commit": "c0ffee",
      "branch": null,
      "build_url": null,
      "readable_by": [
        "1.11",
        "2"
      ]
    },
    {
      "kind": "run_results",
      "sha256": "bbbb",
      "size_bytes": 6,
      "file_id": 8,
      "schema_version": null,
      "dbt_version": null,
      "project_name": null,
      "generated_at": null,
      "uploaded_at": null,
      "commit": null,
      "branch": null,
      "build_url": null,
      "readable_by": []
    }
  ],
  "version": 1
}"""


def test_record_of_0_1_0_is_read_and_written_unchanged() -> None:
    content = RECORD_OF_0_1_0.encode()
    record = parse_record(content)
    assert record is not None
    manifest = record.find(Kind.MANIFEST)
    assert manifest is not None
    assert manifest.metadata.generated_at == datetime(2026, 11, 22, 10, 0, 0, 120000, tzinfo=UTC)
    assert (manifest.file_id, manifest.provenance.commit) == (7, "c0ffee")
    assert manifest.readable_by == ("1.11", "2")
    assert record.to_json() == content


def test_record_has_fields_that_0_1_0_reads(artifacts: Path) -> None:
    artifact = read_artifact(artifacts / "manifest.json")
    content = StateRecord("x", "PROD", (PulledArtifact(artifact.metadata),)).to_json()
    known = json.loads(RECORD_OF_0_1_0)
    written = json.loads(content)
    assert written.keys() == known.keys()
    assert list(written["entries"][0]) == list(known["entries"][0])
    assert written["entries"][0]["generated_at"].endswith("+00:00")
    assert parse_record(content) is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "other"},
        {"generated_at": "yesterday"},
        {"generated_at": "2026-11-22T10:00:00"},
        {"readable_by": None},
    ],
)
def test_record_with_invalid_values_is_ignored(fields: dict[str, object]) -> None:
    record = json.loads(RECORD_OF_0_1_0)
    record["entries"][0] |= fields
    assert parse_record(json.dumps(record).encode()) is None


@pytest.mark.parametrize("at", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-12:00"])
def test_time_outside_utc_range_is_reported(at: str, instance: RunningInstance) -> None:
    done = pull(instance, instance.instance_name, "--at", at)
    assert done.exit_code == 2
    assert f"--at {at} is before the year 1 or after the year 9999" in done.stderr


def test_busy_file_is_retried_until_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = [PermissionError(13, "in use"), PermissionError(13, "in use")]

    def fail_if_busy() -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(files, "BUSY_TIMEOUT_S", 0.0)
    with pytest.raises(PermissionError):
        files.retry_while_busy(fail_if_busy)
    assert len(errors) == 1
    monkeypatch.setattr(files, "BUSY_TIMEOUT_S", 600.0)
    files.retry_while_busy(fail_if_busy)
    assert errors == []


def test_temporary_file_that_cannot_be_removed_is_ignored(tmp_path: Path) -> None:
    leftover = tmp_path / ".datapilot-x.tmp"
    (leftover / "in").mkdir(parents=True)  # The sweep cannot remove a directory that is not empty.
    with StateDirectory(tmp_path).lock():
        pass
    assert leftover.exists()


@pytest.fixture
def pulled(artifacts: Path, tmp_path: Path) -> tuple[StateDirectory, PulledArtifact]:
    """Return a state directory with a manifest and the record's description of it."""
    directory = StateDirectory(tmp_path)
    path = directory.artifact_path(Kind.MANIFEST)
    path.write_bytes((artifacts / "manifest.json").read_bytes())
    provenance = Provenance(commit="0123456789abcdef")
    return directory, PulledArtifact(read_artifact(path).metadata, provenance)


def test_intact_manifest_is_returned_with_content(
    pulled: tuple[StateDirectory, PulledArtifact],
) -> None:
    directory, artifact = pulled
    content = directory.read_intact(artifact)
    assert content is not None
    assert content.metadata == artifact.metadata
    result = PullResult(directory.path, (artifact,), "PROD")
    completed = update.complete_contents(result, directory)
    assert completed.contents[Kind.MANIFEST].content == content.content


def test_changed_or_missing_manifest_is_not_intact(
    pulled: tuple[StateDirectory, PulledArtifact],
) -> None:
    directory, artifact = pulled
    path = directory.artifact_path(Kind.MANIFEST)
    path.write_bytes(path.read_bytes() + b"\n")
    assert directory.read_intact(artifact) is None
    assert not directory.is_intact(artifact)
    path.unlink()
    assert directory.read_intact(artifact) is None
    assert not directory.is_intact(artifact)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not create sparse files by default")
def test_huge_file_instead_of_manifest_is_not_read(
    pulled: tuple[StateDirectory, PulledArtifact],
) -> None:
    directory, artifact = pulled
    os.truncate(directory.artifact_path(Kind.MANIFEST), 12 << 30)
    start = time.monotonic()
    assert not directory.is_intact(artifact)
    assert directory.read_intact(artifact) is None
    assert time.monotonic() - start < 2


def test_age_of_manifest_includes_commit(
    pulled: tuple[StateDirectory, PulledArtifact],
) -> None:
    _, artifact = pulled
    assert artifact.describe_age().endswith(" old, commit 0123456789")
    assert describe_age(None) == "of unknown age"
