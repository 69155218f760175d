"""The schemas that come with this program: see schemas/INDEX.json, and scripts/schemas, which made them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from datapilot_defer.validation.schema import ArtifactSchema

_LOADER_SCHEMA_FILE = "dbt1.11-reads.json"


def _read(name: str) -> Any:
    from importlib.resources import files

    return json.loads(files("datapilot_defer.validation").joinpath("schemas", name).read_bytes())


@lru_cache(maxsize=1)
def list_schemas() -> list[dict[str, Any]]:
    """What schemas there are: file, kind, schema_version, dbt_version and sha256 of each."""
    found: list[dict[str, Any]] = _read("INDEX.json")
    return found


def loader_schema(schema_version: int) -> ArtifactSchema:
    """What dbt-core 1.11's loader takes for a manifest of schema version 4 to 12, written down by scripts/schemas."""
    return _loader(str(max(schema_version, 9)))


@lru_cache(maxsize=4)
def _loader(variant: str) -> ArtifactSchema:
    document = _read(_LOADER_SCHEMA_FILE)
    return ArtifactSchema(
        {"$defs": document["$defs"], **document["variants"][variant]}, formats=True
    )


def published_schema(
    kind: str, schema_version: int | None, dbt_version: str | None
) -> ArtifactSchema | None:
    """The schema that dbt published for this version; None when there is none.

    Version 12 of the manifest grew from dbt 1.8 on under one number: the one of the writing release is taken.
    """
    fitting = [
        entry
        for entry in list_schemas()
        if (entry["kind"], entry["schema_version"]) == (kind, schema_version)
    ]
    fitting = [entry for entry in fitting if entry["file"] != _LOADER_SCHEMA_FILE]
    if not fitting:
        return None
    minor = ".".join((dbt_version or "").split(".")[:2])
    fitting.sort(
        key=lambda entry: (
            entry["dbt_version"].startswith(f"{minor}."),
            _version_key(entry["dbt_version"]),
        )
    )
    return _published(fitting[-1]["file"])


@lru_cache(maxsize=32)
def _published(file: str) -> ArtifactSchema:
    return ArtifactSchema(_read(file))


def _version_key(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def loader_classes() -> dict[str, str]:
    """Name of a class of dbt's manifest to the name of its rules: classes that don't differ share them."""
    found: dict[str, str] = _read(_LOADER_SCHEMA_FILE)["classes"]
    return found
