"""The schemas that ship with the program.

`scripts/schemas` generates the files, and `schemas/INDEX.json` lists them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from datapilot_defer.validation.schema import ArtifactSchema

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEWEST_DBT1_SCHEMA = 12
_LOADER_SCHEMA_FILE = "dbt1.11-reads.json"

_TEXT = {"type": "string"}
_MAPPING = {"title": "an object", "type": "object"}
_NULLABLE_MAPPING = {"title": "an object or null", "type": ["object", "null"]}
_NULLABLE_TEXT = {"title": "a string or null", "type": ["string", "null"]}
_IDENTITY = ("unique_id", "resource_type", "name", "package_name")
_NODE: dict[str, Any] = {
    **_MAPPING,
    "required": list(_IDENTITY),
    "properties": {
        **dict.fromkeys(_IDENTITY, _TEXT),
        **dict.fromkeys(("config", "depends_on"), _NULLABLE_MAPPING),
        **dict.fromkeys(
            ("database", "schema", "alias", "relation_name", "original_file_path"), _NULLABLE_TEXT
        ),
    },
}
_NULLABLE_SECTIONS = (
    "sources",
    "macros",
    "docs",
    "exposures",
    "metrics",
    "disabled",
    "parent_map",
    "child_map",
    "selectors",
)


@lru_cache(maxsize=1)
def minimal_manifest_schema() -> ArtifactSchema:
    """Return a minimal schema for any manifest, including those of dbt 2.x and of newer versions.

    It allows null where dbt 1.x requires objects, but it requires the properties that identify a
    node.
    """
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "required": ["metadata", "nodes", "sources", "macros"],
        "properties": {
            "metadata": {**_MAPPING, "properties": {}},
            "nodes": {**_MAPPING, "additionalProperties": _NODE},
            **dict.fromkeys(_NULLABLE_SECTIONS, _NULLABLE_MAPPING),
        },
    }
    return ArtifactSchema(document)


@lru_cache(maxsize=1)
def list_schemas() -> list[dict[str, Any]]:
    """Return the file, kind, schema_version, dbt_version and sha256 of each bundled schema."""
    schemas: list[dict[str, Any]] = _read_json("INDEX.json")
    return schemas


def loader_schema(schema_version: int) -> ArtifactSchema:
    """Return the schema of the manifests that the loader of dbt-core 1.11 accepts.

    schema_version: 4 to 12. Versions up to 9 share a schema.
    """
    oldest_variant = 9
    return _load_loader_schema(str(max(schema_version, oldest_variant)))


@lru_cache(maxsize=4)
def _load_loader_schema(variant: str) -> ArtifactSchema:
    document = _read_json(_LOADER_SCHEMA_FILE)
    schema = {"$defs": document["$defs"], **document["variants"][variant]}
    return ArtifactSchema(schema, formats=True)


def published_schema(
    kind: str, schema_version: int | None, dbt_version: str | None
) -> ArtifactSchema | None:
    """Return the schema that dbt published for an artifact's schema version, or None.

    dbt has changed version 12 of the manifest since dbt 1.8 without a new number. If there are
    several schemas, the one from the minor version of dbt that wrote the artifact is used, or else
    the newest.
    """
    candidates = [
        schema
        for schema in list_schemas()
        if schema["kind"] == kind
        and schema["schema_version"] == schema_version
        and schema["file"] != _LOADER_SCHEMA_FILE
    ]
    if not candidates:
        return None
    minor_version = ".".join((dbt_version or "").split(".")[:2])

    def preference(schema: dict[str, Any]) -> tuple[bool, list[int]]:
        release: str = schema["dbt_version"]
        return release.startswith(f"{minor_version}."), _version_key(release)

    return _load_published_schema(max(candidates, key=preference)["file"])


@lru_cache(maxsize=32)
def _load_published_schema(file: str) -> ArtifactSchema:
    return ArtifactSchema(_read_json(file))


def _version_key(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def warm_up() -> Iterator[None]:
    """Load and compile the schemas for current manifests, in steps, so that the caller can stop.

    A process that validates many manifests calls this function first. Otherwise, schemas are
    compiled on first use.
    """
    for schema in (
        loader_schema(_NEWEST_DBT1_SCHEMA),
        published_schema("manifest", _NEWEST_DBT1_SCHEMA, None),
    ):
        if schema is not None:
            yield from schema.compile_entries()
    # Locating a violation needs another library, which is slow to import.
    list(minimal_manifest_schema().own_errors({}, None))


def loader_classes() -> dict[str, str]:
    """Return the name of the definition of each class of dbt's manifest, by class name.

    Equal classes share a definition.
    """
    classes: dict[str, str] = _read_json(_LOADER_SCHEMA_FILE)["classes"]
    return classes


def _read_json(name: str) -> Any:
    from importlib.resources import files

    return json.loads(files("datapilot_defer.validation").joinpath("schemas", name).read_bytes())
