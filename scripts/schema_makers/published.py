"""Prints the JSON schemas of a dbt-core release's artifacts. Run by `scripts/schemas` inside it, CPython 3.8 on."""

import contextlib
import importlib
import json
import sys

CLASSES = {
    "manifest": (
        "WritableManifest",
        "dbt.artifacts.schemas.manifest",
        "dbt.contracts.graph.manifest",
    ),
    "catalog": ("CatalogArtifact", "dbt.artifacts.schemas.catalog", "dbt.contracts.results"),
    "run_results": ("RunResultsArtifact", "dbt.artifacts.schemas.run", "dbt.contracts.results"),
    "sources": (
        "FreshnessExecutionResultArtifact",
        "dbt.artifacts.schemas.freshness",
        "dbt.contracts.results",
    ),
    "semantic_manifest": (
        "PydanticSemanticManifest",
        "dbt_semantic_interfaces.implementations.semantic_manifest",
        "metricflow_semantic_interfaces.implementations.semantic_manifest",
    ),
}


def find(name, *modules):
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return None


def schema_of(kind):
    cls = find(*CLASSES[kind])
    if cls is None:
        return None
    if kind == "semantic_manifest":
        tolerate_field_defaults()
        return {"kind": kind, "version": None, "schema": with_nulls(cls.schema())}
    return {"kind": kind, "version": cls.dbt_schema_version.version, "schema": cls.json_schema()}


def with_nulls(schema):
    """Pydantic 1 leaves out of its schemas that an optional property may be null, as dbt writes it."""
    for part in [schema, *schema.get("definitions", {}).values()]:
        properties = part.get("properties", {})
        for name in properties.keys() - set(part.get("required", ())):
            properties[name] = {"anyOf": [properties[name], {"type": "null"}]}
    return schema


def tolerate_field_defaults():
    """Some releases give pydantic 1 a default of pydantic 2, which it can't write down; defaults don't matter here."""
    try:
        from pydantic.fields import FieldInfo
        from pydantic.v1.json import ENCODERS_BY_TYPE
    except ImportError:
        return
    ENCODERS_BY_TYPE[FieldInfo] = lambda _: None


def main():
    with contextlib.suppress(ImportError):
        importlib.import_module("dbt.main")  # old releases need it before their contracts
    from dbt.version import __version__

    found = [entry for entry in map(schema_of, CLASSES) if entry]
    json.dump({"dbt_version": __version__, "schemas": found}, sys.stdout)


main()
