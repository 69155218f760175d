"""Differences between two manifests in their models and in the locations of their relations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from datapilot_defer import dbt_json
from datapilot_defer.formatting import to_single_line

# Limits on the stored names. The counts include all models.
_MAX_NAMES = 100
_MAX_NAME_LENGTH = 200
_MAX_NAMES_BYTES = 32_000
_DIGEST_BYTES = 16
# Types of nodes that other nodes can refer to. Such nodes have a relation, except ephemeral models.
_RELATION_TYPES = ("model", "seed", "snapshot")


@dataclass(frozen=True)
class ModelChanges:
    """Numbers of added, removed and changed models.

    names: some of their names, by "added", "removed" and "changed".
    """

    added: int
    removed: int
    changed: int
    names: dict[str, list[str]]

    def to_json(self) -> str:
        """Return the JSON to store, at most 33 kB."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True)
class RelationChanges:
    """The numbers of relations in both manifests, and of those that moved.

    compared: the nodes that have a relation in both manifests. moved: those whose relation is in
    another database or schema. example_before, example_after: for example `"prod"."main"` and
    `"dev"."main"`; "" if none moved.
    """

    compared: int
    moved: int
    example_before: str = ""
    example_after: str = ""


@dataclass(frozen=True)
class ManifestSummary:
    """The part of a manifest that is needed to compare it with another one.

    fingerprints: one for each model. relations: the database and schema of each node that has a
    relation. Both are keyed by unique_id.
    """

    fingerprints: dict[str, bytes]
    relations: dict[str, tuple[str, str]]


class _Node(msgspec.Struct):
    """The parts of a node that are compared.

    Columns are compared as undecoded JSON, because decoding them would take longer than everything
    else. dbt writes them in a stable order.
    """

    checksum: Any = None
    config: Any = None
    database: Any = None
    schema: Any = None
    alias: Any = None
    columns: msgspec.Raw = msgspec.Raw(b"null")
    description: Any = None
    access: Any = None
    contract: Any = None

    def has_relation(self) -> bool:
        """Return whether the node has a relation of its own, unlike an ephemeral model."""
        is_ephemeral = (
            isinstance(self.config, dict) and self.config.get("materialized") == "ephemeral"
        )
        return not is_ephemeral


def count_models(sections: Mapping[str, Any]) -> int:
    """Return the number of models in a manifest, or 0 if its nodes cannot be read."""
    return sum(unique_id.startswith("model.") for unique_id in _node_entries(sections))


def summarize_manifest(sections: Mapping[str, Any]) -> ManifestSummary:
    """Return the summary of a manifest. Unreadable entries are omitted."""
    summary = ManifestSummary({}, {})
    decoder = msgspec.json.Decoder(_Node)
    # Most nodes share their database and schema with others. Keep each pair only once.
    pairs: dict[tuple[str, str], tuple[str, str]] = {}
    for unique_id, raw in _node_entries(sections).items():
        if unique_id.partition(".")[0] not in _RELATION_TYPES:
            continue
        node = _decode_node(decoder, raw)
        if node is None:
            continue
        if unique_id.startswith("model."):
            summary.fingerprints[unique_id] = _fingerprint(node)
        if node.has_relation():
            pair = (str(node.database or ""), str(node.schema or ""))
            summary.relations[unique_id] = pairs.setdefault(pair, pair)
    return summary


def compare_models(before: ManifestSummary, after: ManifestSummary) -> ModelChanges:
    """Return the differences between the models of two manifests."""
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
    """Return how many relations of two manifests have different locations, ignoring case."""
    common_ids = before.relations.keys() & after.relations.keys()
    moved_ids = [
        unique_id
        for unique_id in common_ids
        if _location(before.relations[unique_id]) != _location(after.relations[unique_id])
    ]
    if not moved_ids:
        return RelationChanges(len(common_ids), 0)
    example_id = min(moved_ids)
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


def _decode_node(decoder: msgspec.json.Decoder[_Node], raw: Any) -> _Node | None:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(raw)


def _decode_slowly(raw: Any) -> _Node | None:
    """Decode a node as dbt does, or return None if that fails.

    dbt permits numbers of more than 64 bits.
    """
    try:
        fields = dbt_json.decode(raw)
    except dbt_json.NotJsonError:
        return None
    if not isinstance(fields, dict):
        return None
    known = {name: fields[name] for name in _Node.__struct_fields__ if name in fields}
    known["columns"] = msgspec.Raw(repr(fields.get("columns")).encode(errors="backslashreplace"))
    return _Node(**known)


def _fingerprint(node: _Node) -> bytes:
    """Return a digest of the compared parts of a model, which contain no data about a run."""
    authored = [getattr(node, name) for name in _Node.__struct_fields__ if name != "columns"]
    try:
        text = msgspec.json.encode(authored, order="sorted")
    except (TypeError, ValueError, OverflowError):
        # Python's JSON permits numbers of more than 64 bits, for example.
        text = repr(authored).encode(errors="backslashreplace")
    digest = hashlib.blake2b(text, digest_size=_DIGEST_BYTES)
    digest.update(node.columns)
    return digest.digest()


def _location(pair: tuple[str, str]) -> tuple[str, str]:
    database, schema = pair
    return (database.casefold(), schema.casefold())


def _format_location(pair: tuple[str, str]) -> str:
    names = (f'"{name[:_MAX_NAME_LENGTH]}"' for name in pair if name)
    return to_single_line(".".join(names), _MAX_NAME_LENGTH)


def _limit_names(lists: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the first names of each list, within the limits on the stored names."""
    remaining_bytes = _MAX_NAMES_BYTES
    limited: dict[str, list[str]] = {}
    for word, unique_ids in lists.items():
        limited[word] = []
        for unique_id in unique_ids[:_MAX_NAMES]:
            cut_name = unique_id.removeprefix("model.")[:_MAX_NAME_LENGTH]
            name = to_single_line(cut_name, _MAX_NAME_LENGTH)
            remaining_bytes -= len(msgspec.json.encode(name)) + 1
            if remaining_bytes < 0:
                break
            limited[word].append(name)
    return limited
