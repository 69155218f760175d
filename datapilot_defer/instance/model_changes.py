"""Which models of a manifest changed since the previous one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datapilot_defer import dbt_json

# Names in one list; the counts are complete.
_MAX_NAMES = 100
# What the author of a model wrote, as opposed to facts of a run.
_AUTHORED_FIELDS = (
    "checksum",
    "config",
    "database",
    "schema",
    "alias",
    "columns",
    "description",
    "access",
    "contract",
)


@dataclass(frozen=True)
class ModelChanges:
    """Numbers of added, removed and changed models; `names` has some of them, by the same words."""

    added: int
    removed: int
    changed: int
    names: dict[str, list[str]]


def compare_models(before: Mapping[str, str], after: Mapping[str, str]) -> ModelChanges:
    """Compare the models of two manifests by their fingerprints, which `unique_id` identifies."""
    common_ids = before.keys() & after.keys()
    added = sorted(after.keys() - before.keys())
    removed = sorted(before.keys() - after.keys())
    changed = sorted(unique_id for unique_id in common_ids if before[unique_id] != after[unique_id])
    return ModelChanges(
        added=len(added),
        removed=len(removed),
        changed=len(changed),
        names={
            "added": _short_names(added),
            "removed": _short_names(removed),
            "changed": _short_names(changed),
        },
    )


def count_models(sections: Mapping[str, Any]) -> int:
    """Return the number of models in a manifest; 0 when its nodes cannot be read."""
    return len(_model_nodes(sections))


def fingerprint_models(sections: Mapping[str, Any]) -> dict[str, str]:
    """Return a fingerprint of each model in a manifest, by its unique_id."""
    return {
        unique_id: _fingerprint_model(node) for unique_id, node in _model_nodes(sections).items()
    }


def _model_nodes(sections: Mapping[str, Any]) -> dict[str, Any]:
    try:
        nodes = dbt_json.entries(sections["nodes"])
    except (KeyError, dbt_json.NotJsonError):
        return {}
    return {unique_id: node for unique_id, node in nodes.items() if unique_id.startswith("model.")}


def _fingerprint_model(node: Any) -> str:
    try:
        fields = dbt_json.decode(node)
    except dbt_json.NotJsonError:
        fields = None
    fingerprinted: object = bytes(node).hex()
    if isinstance(fields, dict):
        fingerprinted = [fields.get(name) for name in _AUTHORED_FIELDS]
    return hashlib.sha256(json.dumps(fingerprinted, sort_keys=True).encode()).hexdigest()


def _short_names(unique_ids: list[str]) -> list[str]:
    return [unique_id.removeprefix("model.") for unique_id in unique_ids[:_MAX_NAMES]]
