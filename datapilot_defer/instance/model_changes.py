"""What changed in a manifest since the previous one: its models, and where its relations are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from datapilot_defer import dbt_json
from datapilot_defer.formatting import to_single_line

# Limits of what is stored; the counts are complete.
_MAX_NAMES = 100
_MAX_NAME_LENGTH = 200
_MAX_NAMES_BYTES = 32 * 1024
_DIGEST_BYTES = 16
# Types of nodes that other nodes can refer to, and which therefore have a relation.
_RELATION_TYPES = ("model", "seed", "snapshot")
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

    def to_json(self) -> str:
        """Return the JSON that is stored, at most 64 kB."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class RelationChanges:
    """How many relations of nodes in both manifests have another database or schema now.

    example_before, example_after: such as `"prod"."main"` and `"dev"."main"`; "" if none moved.
    """

    compared: int
    moved: int
    example_before: str = ""
    example_after: str = ""


@dataclass(frozen=True)
class ManifestSummary:
    """What is kept of a manifest to compare it with another one.

    fingerprints: of each model. relations: database and schema of each node that has a relation.
    Both by unique_id.
    """

    fingerprints: dict[str, bytes]
    relations: dict[str, tuple[str, str]]


def summarize_manifest(sections: Mapping[str, Any]) -> ManifestSummary:
    """Return the summary of a manifest. Entries that cannot be read are left out."""
    summary = ManifestSummary({}, {})
    # Most nodes share their database and schema with others: keep each pair once.
    pairs: dict[tuple[str, str], tuple[str, str]] = {}
    for unique_id, raw in _node_entries(sections).items():
        if unique_id.partition(".")[0] not in _RELATION_TYPES:
            continue
        node = _decode_node(raw)
        if node is None:
            continue
        if unique_id.startswith("model."):
            summary.fingerprints[unique_id] = _fingerprint(node)
        if not _is_ephemeral(node):
            pair = (str(node.get("database")), str(node.get("schema")))
            summary.relations[unique_id] = pairs.setdefault(pair, pair)
    return summary


def compare_models(before: ManifestSummary, after: ManifestSummary) -> ModelChanges:
    """Compare the models of two manifests by their fingerprints."""
    old = before.fingerprints
    new = after.fingerprints
    lists = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(
            unique_id for unique_id in old.keys() & new.keys() if old[unique_id] != new[unique_id]
        ),
    }
    counts = {word: len(unique_ids) for word, unique_ids in lists.items()}
    return ModelChanges(**counts, names=_limit_names(lists))


def compare_relations(before: ManifestSummary, after: ManifestSummary) -> RelationChanges:
    """Compare where the relations of two manifests are, ignoring case."""
    common_ids = before.relations.keys() & after.relations.keys()
    moved_ids = sorted(
        unique_id
        for unique_id in common_ids
        if _location(before.relations[unique_id]) != _location(after.relations[unique_id])
    )
    if not moved_ids:
        return RelationChanges(len(common_ids), 0)
    example_id = moved_ids[0]
    return RelationChanges(
        len(common_ids),
        len(moved_ids),
        _format_location(before.relations[example_id]),
        _format_location(after.relations[example_id]),
    )


def _node_entries(sections: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return dbt_json.entries(sections["nodes"])
    except (KeyError, dbt_json.NotJsonError):
        return {}


def _decode_node(raw: Any) -> dict[str, Any] | None:
    try:
        node = dbt_json.decode(raw)
    except dbt_json.NotJsonError:
        return None
    if not isinstance(node, dict):
        return None
    return node


def _fingerprint(node: Mapping[str, Any]) -> bytes:
    authored = [node.get(name) for name in _AUTHORED_FIELDS]
    try:
        text = msgspec.json.encode(authored, order="sorted")
    except (TypeError, ValueError, UnicodeEncodeError, OverflowError):
        # Such as numbers beyond 64 bits or half a surrogate pair, which Python's JSON permits.
        text = repr(authored).encode(errors="backslashreplace")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def _is_ephemeral(node: Mapping[str, Any]) -> bool:
    config = node.get("config")
    return isinstance(config, dict) and config.get("materialized") == "ephemeral"


def _location(pair: tuple[str, str]) -> tuple[str, str]:
    database, schema = pair
    return (database.casefold(), schema.casefold())


def _format_location(pair: tuple[str, str]) -> str:
    database, schema = pair
    return to_single_line(f'"{database}"."{schema}"', _MAX_NAME_LENGTH)


def _limit_names(lists: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the first names of each list, within the number of bytes that is stored."""
    remaining_bytes = _MAX_NAMES_BYTES
    limited: dict[str, list[str]] = {}
    for word, unique_ids in lists.items():
        limited[word] = []
        for unique_id in unique_ids[:_MAX_NAMES]:
            name = to_single_line(unique_id.removeprefix("model.")[:_MAX_NAME_LENGTH], 200)
            remaining_bytes -= len(msgspec.json.encode(name)) + 1
            if remaining_bytes < 0:
                break
            limited[word].append(name)
    return limited
