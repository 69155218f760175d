"""The bundled schemas, which scripts/schemas generates."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import jsonschema_rs
import pytest

import datapilot_defer
from datapilot_defer.validation import bundled_schemas
from datapilot_defer.validation.formats import FORMATS
from tests.support.environments import REPOSITORY, require_program

SCHEMAS = Path(datapilot_defer.__file__).parent / "validation" / "schemas"
INDEX: list[dict[str, Any]] = json.loads((SCHEMAS / "INDEX.json").read_text(encoding="utf-8"))
PUBLISHED = [entry for entry in INDEX if not entry["file"].endswith("-reads.json")]
ARTIFACTS = sorted((Path(__file__).parent / "artifacts").glob("*/*.json"))


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: str(entry["file"]))
def test_schema_has_recorded_hash(entry: dict[str, Any]) -> None:
    content = (SCHEMAS / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"], (
        "run scripts/schemas instead of editing a schema"
    )


def test_schemas_are_recorded_and_small() -> None:
    files = {path.name for path in SCHEMAS.iterdir()} - {"INDEX.json"}
    assert files == {entry["file"] for entry in INDEX}
    sizes = [(SCHEMAS / name).stat().st_size for name in files]
    assert max(sizes) < 200_000
    assert sum(sizes) < 1_000_000


def test_every_version_of_dbt_1_has_schema() -> None:
    versions = {(entry["kind"], entry["schema_version"]) for entry in PUBLISHED}
    assert {version for kind, version in versions if kind == "manifest"} == set(range(4, 13))
    assert {
        ("catalog", 1),
        ("run_results", 4),
        ("run_results", 5),
        ("run_results", 6),
        ("sources", 3),
    } <= versions
    assert ("semantic_manifest", None) in versions


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: str(entry["file"]))
def test_published_schema_is_valid(entry: dict[str, Any]) -> None:
    rules = bundled_schemas.published_schema(
        entry["kind"], entry["schema_version"], entry["dbt_version"]
    )
    assert rules is not None
    kind = jsonschema.Draft7Validator if rules.is_draft7 else jsonschema.Draft202012Validator
    kind.check_schema(rules.document)
    kind.check_schema(rules.relaxed().document)


@pytest.mark.parametrize("version", range(4, 13))
def test_loader_schema_is_valid_and_uses_known_formats(
    version: int,
) -> None:
    document = bundled_schemas.loader_schema(version).document
    jsonschema.Draft202012Validator.check_schema(document)
    assert set(_formats(document)) <= set(FORMATS)


def _formats(schema: object) -> list[str]:
    if isinstance(schema, list):
        return [name for inner in schema for name in _formats(inner)]
    if not isinstance(schema, dict):
        return []
    formats = [schema["format"]] if isinstance(schema.get("format"), str) else []
    return formats + [name for inner in schema.values() for name in _formats(inner)]


@pytest.mark.parametrize(
    ("dbt_version", "release"),
    [
        ("1.8.3", "1.8."),
        ("1.10.6", "1.10."),
        ("1.11.0a1", "1.11."),
        ("1.13.0", "1.12."),
        ("2026.1.19", "1.12."),
    ],
)
def test_schema_of_version_12_depends_on_dbt_version(dbt_version: str, release: str) -> None:
    rules = bundled_schemas.published_schema("manifest", 12, dbt_version)
    files = [
        entry
        for entry in INDEX
        if entry["dbt_version"].startswith(release) and entry["schema_version"] == 12
    ]
    assert rules is bundled_schemas.published_schema("manifest", 12, files[0]["dbt_version"])


@pytest.mark.dbt
def test_schemas_of_dbt_1_11_agree_with_its_release(tmp_path: Path) -> None:
    maker = REPOSITORY / "scripts" / "schema_makers" / "published.py"
    command = [str(require_program("dbt", "python")), str(maker)]
    published = json.loads(
        subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, check=True).stdout
    )
    compared = 0
    for entry in published["schemas"]:
        rules = bundled_schemas.published_schema(
            entry["kind"], entry["version"], published["dbt_version"]
        )
        assert rules is not None
        original = jsonschema_rs.validator_for(entry["schema"], validate_formats=False)
        for path in ARTIFACTS:
            document = _document(path)
            if document is not None:
                assert rules.accepts(rules.document, document) == original.is_valid(document), (
                    path.name,
                    entry["kind"],
                )
                compared += original.is_valid(document)
    assert compared > 5


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
