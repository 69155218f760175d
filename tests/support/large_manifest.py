"""Write a manifest of schema version 12 with any number of models and columns.

    python -m tests.support.large_manifest 5000 20 manifest.json

5,000 models with 20 columns have about 60 MB. Every entry has the format of dbt 1.11.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = "warehouse"
_SQL = """with source as (
    select * from {{{{ ref('{parent}') }}}}
),
renamed as (
    select id as {name}_id, status, amount_cents / 100.0 as amount, customer_id, ordered_on,
        updated_at
    from source
    where updated_at >= current_date - interval '3 years' and status not in ('deleted', 'test')
)
select {columns}
from renamed
"""


def write(path: Path, models: int = 5000, columns: int = 20) -> None:
    """Write the manifest model by model to save memory."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for piece in pieces(models, columns):
            file.write(piece)


def text(models: int, columns: int) -> str:
    """Return the manifest as text."""
    return "".join(pieces(models, columns))


def pieces(models: int, columns: int) -> Iterator[str]:
    """Yield the text of the manifest in parts."""
    yield '{"metadata": ' + json.dumps(_metadata()) + ', "nodes": {'
    for number in range(models):
        node = model(number, columns)
        yield (", " if number else "") + f'"{node["unique_id"]}": ' + json.dumps(node)
    yield "}"
    for name in ("parent_map", "child_map"):
        step = -1 if name == "parent_map" else 1
        links = {_id(n): [_id(n + step)] if 0 <= n + step < models else [] for n in range(models)}
        yield f', "{name}": {json.dumps(links)}'
    for name in (
        "sources",
        "macros",
        "docs",
        "exposures",
        "metrics",
        "groups",
        "selectors",
        "disabled",
        "group_map",
    ):
        yield f', "{name}": {{}}'
    yield ', "saved_queries": {}, "semantic_models": {}, "unit_tests": {}, "functions": {}}'


def model(number: int, columns: int) -> dict[str, Any]:
    """Return a model in the format of dbt 1.11."""
    name, path = f"model_{number:05}", f"layer_{number % 7}/model_{number:05}.sql"
    names = [f"column_{n:02}" for n in range(columns)]
    sql = _SQL.format(
        parent=f"model_{max(number - 1, 0):05}", name=name, columns=",\n    ".join(names)
    )
    docs = {"show": True, "node_color": None}
    return {
        "database": PROJECT,
        "schema": "prod",
        "name": name,
        "resource_type": "model",
        "package_name": PROJECT,
        "path": path,
        "original_file_path": f"models/{path}",
        "unique_id": _id(number),
        "fqn": [PROJECT, f"layer_{number % 7}", name],
        "alias": name,
        "checksum": {"name": "sha256", "checksum": hashlib.sha256(sql.encode()).hexdigest()},
        "config": _config(docs),
        "tags": ["nightly", f"team_{number % 11}"],
        "description": f"{name}: one row per order line; "
        f"see the documentation of layer {number % 7}.",
        "columns": {column: _column(column, number) for column in names},
        "meta": {"owner": f"team_{number % 11}"},
        "group": None,
        "docs": docs,
        "patch_path": f"{PROJECT}://models/layer_{number % 7}/_models.yml",
        "build_path": None,
        "unrendered_config": {"materialized": "table", "tags": ["nightly"]},
        "created_at": 1795344265.5 + number,
        "relation_name": f'"{PROJECT}"."prod"."{name}"',
        "raw_code": sql,
        "doc_blocks": [],
        "language": "sql",
        "refs": [{"name": f"model_{max(number - 1, 0):05}", "package": None, "version": None}],
        "sources": [],
        "metrics": [],
        "functions": [],
        "depends_on": {"macros": ["macro.dbt.is_incremental"], "nodes": [_id(max(number - 1, 0))]},
        "compiled_path": f"target/compiled/{PROJECT}/models/{path}",
        "compiled": True,
        "compiled_code": sql.replace("{{", '"').replace("}}", '"') * 2,
        "extra_ctes_injected": True,
        "extra_ctes": [],
        "contract": {"enforced": False, "alias_types": True, "checksum": None},
        "access": "protected",
        "constraints": [],
        "version": None,
        "latest_version": None,
        "deprecation_date": None,
        "primary_key": [],
        "time_spine": None,
    }


def _id(number: int) -> str:
    return f"model.{PROJECT}.model_{number:05}"


def _column(name: str, number: int) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"The {name.replace('_', ' ')} of the order line, "
        f"as the shop of region {number % 13} "
        "reports it every night; null until the payment is settled, and never changed afterwards.",
        "meta": {"pii": False},
        "data_type": "varchar" if number % 2 else "bigint",
        "constraints": [],
        "quote": None,
        "config": {"meta": {"pii": False}, "tags": []},
        "tags": [],
        "granularity": None,
        "doc_blocks": [],
    }


def _config(docs: dict[str, Any]) -> dict[str, Any]:
    nothing = (
        "alias",
        "schema",
        "database",
        "group",
        "static_analysis",
        "incremental_strategy",
        "batch_size",
        "begin",
    )
    more = ("full_refresh", "unique_key", "event_time", "concurrent_batches", "freshness")
    mappings = ("persist_docs", "quoting", "column_types", "grants")
    return {
        "enabled": True,
        **dict.fromkeys((*nothing, *more)),
        **{name: {} for name in mappings},
        "tags": ["nightly"],
        "meta": {"owner": "data"},
        "materialized": "table",
        "lookback": 1,
        "post-hook": [
            {"sql": "grant select on {{ this }} to reporter", "transaction": True, "index": None}
        ],
        "pre-hook": [],
        "on_schema_change": "ignore",
        "on_configuration_change": "apply",
        "packages": [],
        "docs": docs,
        "contract": {"enforced": False, "alias_types": True},
        "access": "protected",
    }


def _metadata() -> dict[str, Any]:
    return {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
        "dbt_version": "1.11.16",
        "generated_at": "2026-11-22T10:44:33.741559Z",
        "invocation_id": "652de556-11cd-4687-8317-7c928b732889",
        "invocation_started_at": "2026-11-22T10:44:24.295362+00:00",
        "env": {},
        "project_name": PROJECT,
        "project_id": hashlib.md5(PROJECT.encode(), usedforsecurity=False).hexdigest(),
        "user_id": None,
        "send_anonymous_usage_stats": False,
        "adapter_type": "duckdb",
        "quoting": {"database": True, "schema": True, "identifier": True, "column": None},
        "run_started_at": "2026-11-22T10:44:24.295656+00:00",
    }


if __name__ == "__main__":
    write(Path(sys.argv[3]), int(sys.argv[1]), int(sys.argv[2]))
