"""Comparison of validation with the loader of dbt-core 1.11 for intact and damaged files.

Validation rejects some files that dbt loads. A row of ON_PURPOSE has the reason for each case.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind, parse_artifact, read_artifact
from datapilot_defer.validation import (
    ValidationOptions,
    ValidationResult,
    bundled_schemas,
    validate,
)
from datapilot_defer.validation.schema import ArtifactSchema
from tests.support import oracle
from tests.support.dbt_project import Shop
from tests.support.environments import require
from tests.support.mutations import mutate
from tests.support.oracle import Oracle

# Files that dbt loads and validation rejects: a part of the message, and the reason.
ON_PURPOSE = {
    "its unique_id is": "dbt finds a node by its key and defers to the relation in the node: "
    "another one",
    "so its relation cannot be found": "dbt would render a relation without schema or name",
    "expected the project's": "without the project, a manifest of another project is not noticed",
    "or snapshot to defer to": "dbt would silently defer nothing",
}
# Values that dbt's loader rejects when it is imported alone, but accepts when dbt runs.
REJECTED_BY_BARE_LOADER = {
    "javascript": "dbt-adapters adds it to the languages of macros when dbt starts; every manifest "
    "of dbt-core 1.11 with a current dbt-adapters holds it"
}
GOOD = sorted((Path(__file__).parent / "artifacts" / "good").glob("manifest*.json"))
BAD = sorted((Path(__file__).parent / "artifacts" / "bad").glob("*.json"))
MUTATIONS = 2000
KEPT = 4


@pytest.fixture(scope="module")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    with oracle.running(tmp_path_factory.mktemp("oracle")) as running:
        yield running


def judge(content: bytes) -> tuple[bool, ValidationResult]:
    """Return whether dbt 1.11 can read a manifest according to validation, and the result."""
    verdict = validate(parse_artifact(content, path="manifest.json", kind=Kind.MANIFEST))
    return "1.11" in verdict.readable_by, verdict


def is_rejected_on_purpose(verdict: ValidationResult) -> bool:
    return all(
        any(words in problem.message for words in ON_PURPOSE) for problem in verdict.problems
    )


@pytest.mark.parametrize("path", [*GOOD, *BAD], ids=lambda path: path.stem)
def test_validation_agrees_with_dbt_on_small_artifacts(path: Path, dbt: Oracle) -> None:
    readable, verdict = judge(path.read_bytes())
    loads = dbt.loads(path.read_bytes())
    assert readable == loads
    assert verdict.is_accepted or not loads or is_rejected_on_purpose(verdict)


def test_validation_agrees_with_dbt_on_its_own_manifest(shop: Shop, dbt: Oracle) -> None:
    content = (shop.prod_artifacts / "manifest.json").read_bytes()
    readable, verdict = judge(content)
    assert verdict.is_accepted, verdict.format_problems()
    assert readable
    assert dbt.loads(content)


def test_bare_loader_rejects_manifest_of_dbt(shop: Shop, tmp_path: Path) -> None:
    content = (shop.prod_artifacts / "manifest.json").read_bytes()
    assert all(word.encode() in content for word in REJECTED_BY_BARE_LOADER)
    with oracle.running(tmp_path, "--bare") as alone:
        assert not alone.loads(content)
        assert alone.loads(content.replace(b', "javascript"', b""))


@pytest.mark.dbt
def test_rules_agree_with_dbt_on_every_field(tmp_path: Path) -> None:
    rules, tries, wrong = bundled_schemas.loader_schema(12), 0, []
    for each in oracle.classes(tmp_path):
        name, base = str(each["class"]), each["base"]
        assert isinstance(base, dict)
        schema = _class(rules, name)
        for field, value, loads in each["tries"]:  # type: ignore[attr-defined]
            data = {key: inner for key, inner in base.items() if key != field}
            data |= {} if value == "(left out)" else {field: value}
            tries += 1
            wrong += (
                []
                if rules.accepts(schema, data) == loads
                else [f"{name}.{field} = {value!r}: dbt loads it: {loads}"]
            )
    assert wrong == []
    assert tries > 40_000


def _class(rules: ArtifactSchema, name: str) -> dict[str, Any]:
    if name == "WritableManifest":
        return {
            key: value for key, value in rules.document.items() if key not in ("$defs", "classes")
        }
    schema: dict[str, Any] = rules.document["$defs"][bundled_schemas.loader_classes()[name]]
    return schema


SECTIONS = (
    "nodes",
    "sources",
    "macros",
    "docs",
    "exposures",
    "metrics",
    "selectors",
    "parent_map",
    "child_map",
)
LATER_SECTIONS = ("groups", "saved_queries", "semantic_models", "unit_tests")
SECTION_OF_CLASS = {
    **dict.fromkeys(("Seed", "GenericTest", "Model"), "nodes"),
    "SourceDefinition": "sources",
    "Macro": "macros",
    "Documentation": "docs",
    "Exposure": "exposures",
    "Metric": "metrics",
    "SavedQuery": "saved_queries",
    "SemanticModel": "semantic_models",
}
UPGRADED_FIELDS = (
    "refs",
    "resource_type",
    "depends_on",
    "root_path",
    "language",
    "filter",
    "type_params",
    "relation_name",
)
FILTERS: tuple[Any, ...] = (
    {"where_sql_template": "x"},
    {"where_filters": []},
    {"where_filters": [5]},
    {},
    5,
    None,
)
UNUSUAL_VALUES: tuple[Any, ...] = (
    *(
        None,
        0,
        "",
        "x",
        [],
        ["x"],
        [None],
        [{}],
        [[]],
        [["x"]],
        [["a", "b"]],
        [["a"], {}],
        {},
        {"nodes": 5},
    ),
    *({"macros": ["x"]}, {"macros": 5}, "seed", *FILTERS),
    *({"measure": {"name": "x", "filter": each}} for each in FILTERS),
    *(
        {name: [{"name": "x", "filter": each}]}
        for each in FILTERS
        for name in ("metrics", "input_measures")
    ),
)


@pytest.mark.parametrize("version", [9, 10, 11])
def test_validation_agrees_with_dbt_on_upgraded_versions(
    version: int, dbt: Oracle, tmp_path: Path
) -> None:
    # Before dbt reads older versions, it rewrites references, seeds, metrics and their filters.
    url = f"https://schemas.getdbt.com/dbt/manifest/v{version}.json"
    complete = {
        "metadata": {"dbt_schema_version": url},
        **{name: {} for name in (*SECTIONS, "disabled")},
    }
    samples = {str(each["class"]): each["base"] for each in oracle.classes(tmp_path)}
    documents = [
        {**complete, name: value}
        for name in (*SECTIONS, "disabled", *LATER_SECTIONS)
        for value in UNUSUAL_VALUES[:8]
    ]
    documents += [
        {key: value for key, value in complete.items() if key != name} for name in complete
    ]
    for cls, section in SECTION_OF_CLASS.items():
        for field in UPGRADED_FIELDS:
            for value in UNUSUAL_VALUES:
                entry = {**samples[cls], field: value}  # type: ignore[dict-item]
                key = f"{cls.lower()}.x"
                documents.append({**complete, section: {key: entry}})
                documents.append({**complete, "disabled": {key: [entry]}})
    wrong = [
        document
        for document in documents
        if dbt.loads(_bytes(document)) != judge(_bytes(document))[0]
    ]
    assert wrong == []


def _bytes(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.slow
def test_validation_agrees_with_dbt_on_damaged_manifests(shop: Shop, dbt: Oracle) -> None:
    texts = [
        _shorten(path.read_bytes())
        for path in (*GOOD, shop.prod_artifacts / "manifest.json", *_real_manifests())
    ]
    counts: Counter[tuple[bool, bool]] = Counter()
    wrong = []
    for seed in range(MUTATIONS):
        text, damage = mutate(texts[seed % len(texts)], seed)
        readable, verdict = judge(text.encode())
        loads = dbt.loads(text.encode())
        counts[loads, readable] += 1
        if readable != loads or (
            loads and not verdict.is_accepted and not is_rejected_on_purpose(verdict)
        ):
            wrong.append(
                f"seed {seed}, {damage}: dbt loads {loads}; {verdict.format_problems()[:2]}"
            )
    assert wrong == []
    assert min(counts[True, True], counts[False, False]) > MUTATIONS / 4, counts


def test_jsonschema_agrees_with_fast_validator(shop: Shop) -> None:
    texts = [_shorten(path.read_bytes()) for path in (*GOOD, shop.prod_artifacts / "manifest.json")]
    verdicts: Counter[bool] = Counter()
    for seed in range(300):
        text, _ = mutate(texts[seed % len(texts)], seed)
        artifact = parse_artifact(text.encode(), path="manifest.json", kind=Kind.MANIFEST)
        if artifact.metadata.schema_version not in range(4, 13):
            continue
        document = {str(key): dbt_json.decode(raw) for key, raw in artifact.sections.items()}
        published = bundled_schemas.published_schema(
            "manifest", artifact.metadata.schema_version, artifact.metadata.dbt_version
        )
        assert published is not None
        kind = (
            jsonschema.Draft7Validator if published.is_draft7 else jsonschema.Draft202012Validator
        )
        slow = kind(published.document).is_valid(document)
        assert published.accepts(published.document, document) == slow
        strict = validate(artifact, ValidationOptions(strict=True))
        assert slow or not strict.is_accepted
        assert (
            strict.is_accepted
            or not slow
            or is_rejected_on_purpose(strict)
            or not validate(artifact).is_accepted
        )
        verdicts[slow] += 1
    assert min(verdicts.values()) > 20, verdicts


@pytest.mark.slow
def test_validation_agrees_with_dbt_on_real_manifests(dbt: Oracle) -> None:
    paths = sorted((require("manifests") / "real").glob("*.json"))
    assert paths
    wrong = []
    for path in paths:
        readable, verdict = judge(path.read_bytes())
        loads = dbt.loads(path.read_bytes())
        if readable != loads or (
            loads and not verdict.is_accepted and not is_rejected_on_purpose(verdict)
        ):
            wrong.append((path.name, loads, readable, verdict.format_problems()))
    assert wrong == []


@pytest.mark.slow
def test_other_files_are_rejected_as_manifests() -> None:
    directory = require("manifests")
    paths = sorted(
        [
            *(directory / "not_manifests").glob("*.json"),
            *(directory / "other_artifacts").glob("*.json"),
        ]
    )
    assert paths
    assert [path.name for path in paths if validate(read_artifact(path)).is_accepted] == []


@pytest.mark.slow
def test_other_real_artifacts_are_accepted() -> None:
    paths = sorted((require("manifests") / "other_artifacts").glob("*.json"))
    verdicts = [validate(read_artifact(path, kind=None)) for path in paths]
    assert [verdict.format_problems() for verdict in verdicts if not verdict.is_accepted] == []
    assert Kind.MANIFEST not in {verdict.artifact.kind for verdict in verdicts}


def _real_manifests() -> list[Path]:
    """Return the paths of real manifests, if their directory is available."""
    try:
        directory = require("manifests")
    except pytest.skip.Exception:
        return []
    return [
        path
        for path in sorted((directory / "real").glob("*.json"))
        if b"/manifest/v" in path.read_bytes()[:2000]
    ]


def _shorten(content: bytes) -> str:
    """Keep a few entries of each resource type, so that dbt is fast and each type gets damaged."""
    document = json.loads(content)
    for section in document.values():
        if not isinstance(section, dict) or "dbt_version" in section:
            continue
        kept: Counter[str] = Counter()
        for key in list(section):
            kind = key.split(".")[0]
            kept[kind] += 1
            if kept[kind] > KEPT:
                del section[key]
    return json.dumps(document)
