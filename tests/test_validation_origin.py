"""Artifacts that do not belong together are found: another project, another invocation."""

import json
from pathlib import Path
from typing import Any

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


def test_artifacts_of_one_invocation_belong_together() -> None:
    others = [artifact("catalog", Kind.CATALOG), artifact("run_results", Kind.RUN_RESULTS)]
    assert (
        find_inconsistencies(
            [MANIFEST, *others, artifact("semantic_manifest", Kind.SEMANTIC_MANIFEST)]
        )
        == []
    )
    assert find_inconsistencies([MANIFEST]) == []


def test_another_invocation_of_the_same_project_is_said() -> None:
    results = [
        {"unique_id": "model.warehouse.orders", "error": "no rows", "status": "runtime error"}
    ]
    sources = artifact("sources", Kind.SOURCES, results=results)
    assert find_inconsistencies([MANIFEST, sources]) == [
        "sources.json and manifest.json come from different invocations of dbt"
    ]


def test_an_artifact_with_no_node_of_the_manifest_is_of_another_project() -> None:
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
        "manifest.json has no model.other.a, nor any other node of it",
        "run_results.json is of another project: "
        "manifest.json has no model.other.b, nor any other node of it",
    ]


def test_an_empty_artifact_says_nothing_about_its_project() -> None:
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


def test_what_dbt_wrote_in_one_night_is_of_one_project(shop: Shop) -> None:
    kinds = (Kind.MANIFEST, Kind.CATALOG, Kind.RUN_RESULTS, Kind.SOURCES, Kind.SEMANTIC_MANIFEST)
    paths = [shop.prod_artifacts / kind.file_name for kind in kinds]
    night = [
        parse_artifact(path.read_bytes(), path=path.name, kind=kind)
        for path, kind in zip(paths, kinds, strict=True)
    ]
    assert not any("another project" in line for line in find_inconsistencies(night))
