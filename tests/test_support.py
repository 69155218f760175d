"""The recorded artifacts and the markers that other tests use."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import environments
from tests.support.dbt_project import RECORDED, production


@pytest.mark.dbt
@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_artifact_equals_output_of_dbt(path: Path) -> None:
    recorded = json.loads(path.read_text(encoding="utf-8"))
    written = json.loads((production() / "artifacts" / path.name).read_text(encoding="utf-8"))
    assert _fingerprint(recorded) == _fingerprint(written)


def test_all_five_kinds_are_recorded() -> None:
    kinds = {path.stem for path in RECORDED.iterdir()}
    assert kinds == {"manifest", "catalog", "run_results", "sources", "semantic_manifest"}


def test_require_fails_without_marker() -> None:
    with pytest.raises(pytest.fail.Exception, match="it needs pytest"):
        environments.require("dbt")


def test_every_environment_has_a_marker() -> None:
    assert set(environments.REQUIREMENTS) <= set(environments.MARKERS)


def _fingerprint(artifact: Any) -> dict[str, object]:
    """Return the versions, sections and checksums of an artifact, which are equal for each run."""
    metadata = artifact.get("metadata", {})
    names = ("dbt_schema_version", "dbt_version", "project_id", "adapter_type")
    sections = {name: sorted(value) for name, value in artifact.items() if isinstance(value, dict)}
    nodes = artifact.get("nodes", {})
    checksums = {key: node.get("checksum") for key, node in nodes.items()}
    return {
        "metadata": {name: metadata.get(name) for name in names},
        "sections": sections,
        "checksums": checksums,
    }
