"""Detection of artifacts of another project, another invocation or another target."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from datapilot_defer.artifact import Artifact, Kind, parse_artifact
from datapilot_defer.validation import find_inconsistencies
from tests.support.dbt_project import Shop

GOOD = Path(__file__).parent / "artifacts" / "good"


def artifact(name: str, kind: Kind, **change: Any) -> Artifact:
    document = json.loads((GOOD / f"{name}.json").read_text(encoding="utf-8"))
    return parse_artifact(
        json.dumps({**document, **change}).encode(), path=kind.file_name, kind=kind
    )


MANIFEST = artifact("manifest of dbt 1.11", Kind.MANIFEST)


def test_artifacts_of_one_invocation_are_consistent() -> None:
    others = [artifact("catalog", Kind.CATALOG), artifact("run_results", Kind.RUN_RESULTS)]
    assert (
        find_inconsistencies(
            [MANIFEST, *others, artifact("semantic_manifest", Kind.SEMANTIC_MANIFEST)]
        )
        == []
    )
    assert find_inconsistencies([MANIFEST]) == []


def artifact_of_another_invocation(
    name: str, kind: Kind, after: timedelta | None, **change: Any
) -> Artifact:
    """Return an artifact that dbt wrote `after` the manifest; None leaves out its time."""
    metadata = {"invocation_id": "another"}
    assert MANIFEST.metadata.generated_at is not None
    if after is not None:
        metadata["generated_at"] = (MANIFEST.metadata.generated_at + after).isoformat()
    return artifact(name, kind, metadata=metadata, **change)


@pytest.mark.parametrize("hours", [-24, -1, 0.1, 24])
@pytest.mark.parametrize("name", ["catalog", "run_results"])
def test_artifacts_of_one_job_are_consistent(name: str, hours: float) -> None:
    other = artifact_of_another_invocation(name, Kind(name), timedelta(hours=hours))
    assert find_inconsistencies([MANIFEST, other]) == []


@pytest.mark.parametrize(("hours", "apart"), [(-72, "3 d"), (25, "25 h")])
def test_artifact_of_another_day_is_reported(hours: int, apart: str) -> None:
    other = artifact_of_another_invocation("catalog", Kind.CATALOG, timedelta(hours=hours))
    assert find_inconsistencies([MANIFEST, other]) == [
        f"catalog.json and manifest.json come from different invocations of dbt, {apart} apart"
    ]


def test_another_invocation_at_unknown_time_is_reported() -> None:
    other = artifact_of_another_invocation("catalog", Kind.CATALOG, None)
    assert find_inconsistencies([MANIFEST, other]) == [
        "catalog.json and manifest.json come from different invocations of dbt"
    ]


@pytest.mark.parametrize("unique_id", ["macro.shop.load_raw", "operation.shop.load_raw"])
def test_run_results_of_operation_are_consistent(unique_id: str) -> None:
    results = [{"unique_id": unique_id, "status": "success"}]
    other = artifact("run_results", Kind.RUN_RESULTS, results=results)
    assert find_inconsistencies([MANIFEST, other]) == []


def test_artifact_without_common_nodes_is_of_another_project() -> None:
    others = [
        artifact("catalog", Kind.CATALOG, nodes={"model.other.a": {}, "model.other.b": {}}),
        artifact(
            "run_results",
            Kind.RUN_RESULTS,
            results=[{"unique_id": "model.other.b"}, {"unique_id": 5}, 5],
        ),
    ]
    assert find_inconsistencies([MANIFEST, *others]) == [
        "catalog.json is of another project: "
        "manifest.json has neither model.other.a nor any other node of it",
        "run_results.json is of another project: "
        "manifest.json has neither model.other.b nor any other node of it",
    ]


def test_empty_artifact_is_consistent() -> None:
    assert (
        find_inconsistencies([MANIFEST, artifact("catalog", Kind.CATALOG, nodes={}, sources=None)])
        == []
    )
    assert (
        find_inconsistencies(
            [artifact("catalog", Kind.CATALOG), artifact("run_results", Kind.RUN_RESULTS)]
        )
        == []
    )


def test_artifacts_of_nightly_job_are_consistent(shop: Shop) -> None:
    kinds = (Kind.MANIFEST, Kind.CATALOG, Kind.RUN_RESULTS, Kind.SOURCES, Kind.SEMANTIC_MANIFEST)
    paths = [shop.prod_artifacts / kind.file_name for kind in kinds]
    nightly = [
        parse_artifact(path.read_bytes(), path=path.name, kind=kind)
        for path, kind in zip(paths, kinds, strict=True)
    ]
    assert find_inconsistencies(nightly) == []


def recorded_artifact(shop_artifacts: Path, kind: Kind, replaced: dict[str, str]) -> Artifact:
    """Return a recorded artifact of another invocation with some text replaced."""
    document = json.loads((shop_artifacts / kind.file_name).read_bytes())
    document["metadata"]["invocation_id"] = "another"
    text = json.dumps(document)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return parse_artifact(text.encode(), path=kind.file_name, kind=kind)


def recorded_manifest(shop_artifacts: Path) -> Artifact:
    content = (shop_artifacts / "manifest.json").read_bytes()
    return parse_artifact(content, path="manifest.json", kind=Kind.MANIFEST)


def test_artifact_of_another_target_is_reported(artifacts: Path) -> None:
    manifest = recorded_manifest(artifacts)
    catalog = recorded_artifact(artifacts, Kind.CATALOG, {'"schema": "prod"': '"schema": "dev"'})
    results = recorded_artifact(artifacts, Kind.RUN_RESULTS, {'\\"prod\\"': '\\"dev\\"'})
    assert find_inconsistencies([manifest, catalog, results]) == [
        "catalog.json is of another target: seed.shop.countries is warehouse.dev there, "
        "warehouse.prod in the manifest",
        "run_results.json is of another target: model.shop.stg_customers is "
        '"warehouse"."dev"."stg_customers" there, "warehouse"."prod"."stg_customers" '
        "in the manifest",
    ]


def test_relation_names_may_differ_in_case_and_lack_database(artifacts: Path) -> None:
    manifest = recorded_manifest(artifacts)
    upper = recorded_artifact(
        artifacts, Kind.CATALOG, {'"prod"': '"PROD"', '"warehouse"': '"WAREHOUSE"'}
    )
    without = recorded_artifact(
        artifacts, Kind.CATALOG, {'"database": "warehouse"': '"database": null'}
    )
    assert find_inconsistencies([manifest, upper, without]) == []


def test_one_common_relation_is_sufficient(artifacts: Path) -> None:
    document = json.loads((artifacts / "catalog.json").read_bytes())
    document["metadata"]["invocation_id"] = "another"
    for entry in list(document["nodes"].values())[1:]:
        entry["metadata"]["schema"] = "elsewhere"
    content = json.dumps(document).encode()
    catalog = parse_artifact(content, path="catalog.json", kind=Kind.CATALOG)
    assert find_inconsistencies([recorded_manifest(artifacts), catalog]) == []
