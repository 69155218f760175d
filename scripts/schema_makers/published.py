"""Print the JSON schemas of the artifacts of a dbt-core release.

`scripts/schemas` runs it inside that release, with CPython 3.8 or later.
"""

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
    """Allow null for optional properties, which dbt writes but schemas of Pydantic 1 reject."""
    for part in [schema, *schema.get("definitions", {}).values()]:
        properties = part.get("properties", {})
        for name in properties.keys() - set(part.get("required", ())):
            properties[name] = {"anyOf": [properties[name], {"type": "null"}]}
    return schema


def tolerate_field_defaults():
    """Make Pydantic 1 accept the defaults of Pydantic 2 that some releases contain.

    The schemas do not need correct defaults.
    """
    try:
        from pydantic.fields import FieldInfo
        from pydantic.v1.json import ENCODERS_BY_TYPE
    except ImportError:
        return
    ENCODERS_BY_TYPE[FieldInfo] = lambda _: None


def main():
    with contextlib.suppress(ImportError):
        importlib.import_module("dbt.main")  # Old releases need this import before their contracts.
    from dbt.version import __version__

    schemas = [schema for schema in map(schema_of, CLASSES) if schema]
    json.dump({"dbt_version": __version__, "schemas": schemas}, sys.stdout)


main()
