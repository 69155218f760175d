"""Comparison of the models and relations of two manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from datapilot_defer.artifact import Kind, parse_artifact
from datapilot_defer.instance.model_changes import (
    ManifestSummary,
    ModelChanges,
    RelationChanges,
    compare_models,
    compare_relations,
    count_models,
    summarize_manifest,
)
from tests.support.instance_calls import manifest


def summarize(content: bytes) -> ManifestSummary:
    return summarize_manifest(parse_artifact(content, path="", kind=Kind.MANIFEST).sections)


def relations(before: bytes, after: bytes) -> RelationChanges:
    return compare_relations(summarize(before), summarize(after))


def models(before: bytes, after: bytes) -> ModelChanges:
    return compare_models(summarize(before), summarize(after))


def edit_orders_node(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the manifest after a change of its node model.shop.orders."""
    document = json.loads(content)
    change(document["nodes"]["model.shop.orders"])
    return json.dumps(document).encode()


def test_models_are_added_removed_and_changed() -> None:
    before = manifest("customers", "orders", "old")
    after = edit_orders_node(
        manifest("customers", "new", "orders"), lambda node: node.update(config={"a": 1})
    )
    assert models(before, after) == ModelChanges(
        added=1,
        removed=1,
        changed=1,
        names={"added": ["shop.new"], "removed": ["shop.old"], "changed": ["shop.orders"]},
    )


def test_run_details_and_key_order_are_not_changes() -> None:
    def rerun(node: dict[str, Any]) -> None:
        node.update(created_at=1.0, compiled_path="elsewhere", fqn=["x"])
        node.update(config={"b": 2, "a": 1})

    before = edit_orders_node(manifest(), lambda node: node.update(config={"a": 1, "b": 2}))
    assert models(before, edit_orders_node(before, rerun)).changed == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"description": "new"},
        {"columns": {"id": {"name": "id"}}},
        {"columns": {"id": {"meta": {"big": 10**40}}}},
        {"config": {"meta": {"big": 10**40}}},
        {"config": "odd"},
        {"alias": ["odd"]},
    ],
)
def test_edited_node_is_changed(fields: dict[str, object]) -> None:
    after = edit_orders_node(manifest(), lambda node: node.update(fields))
    assert models(manifest(), after).changed == 1
    assert models(after, after).changed == 0


def test_names_are_limited_and_counts_are_complete() -> None:
    names = [f"{number:03}" + "x" * 10_000 for number in range(250)]
    changes = models(manifest("orders"), manifest(*names))
    assert changes.added == 250
    assert len(changes.names["added"]) == 100
    assert max(map(len, changes.names["added"])) == 200
    assert len(changes.to_json()) <= 33_000


def test_relations_that_moved_are_counted_with_an_example() -> None:
    before = manifest(database="prod", schema="main")
    after = manifest(database="dev", schema="main")
    assert relations(before, after) == RelationChanges(2, 2, '"prod"."main"', '"dev"."main"')


def test_relations_are_case_insensitive() -> None:
    before = manifest(database="PROD", schema="Main")
    assert relations(before, manifest(database="prod", schema="MAIN")) == RelationChanges(2, 0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (manifest("a", "b"), manifest("b", "c", schema="dev"), (1, 1)),
        (manifest("a"), manifest("b"), (0, 0)),
        (
            manifest("orders"),
            edit_orders_node(
                manifest("orders", schema="dev"),
                lambda node: node.update(config={"materialized": "ephemeral"}),
            ),
            (0, 0),
        ),
        (
            manifest("a").replace(b"model.", b"seed."),
            manifest("a", schema="x").replace(b"model.", b"seed."),
            (1, 1),
        ),
        (
            manifest("a").replace(b"model.", b"test."),
            manifest("a", schema="x").replace(b"model.", b"test."),
            (0, 0),
        ),
    ],
    ids=["one in both", "none in both", "ephemeral", "seed", "test"],
)
def test_only_relations_in_both_manifests_are_compared(
    before: bytes, after: bytes, expected: tuple[int, int]
) -> None:
    changes = relations(before, after)
    assert (changes.compared, changes.moved) == expected


def test_relation_without_database_has_schema_only() -> None:
    before = edit_orders_node(manifest("orders"), lambda node: node.update(database=None))
    after = edit_orders_node(
        manifest("orders", schema="a\u202e\nb" * 500), lambda node: node.update(database=None)
    )
    changes = relations(before, after)
    assert changes.example_before == '"prod"'
    assert len(changes.example_after) <= 200
    assert changes.example_after.isprintable()


@pytest.mark.parametrize("nodes", [None, [], "x", {"model.shop.a": None, "model.shop.b": [1]}])
def test_invalid_nodes_are_ignored(nodes: object) -> None:
    document = json.loads(manifest())
    document["nodes"] = nodes
    content = json.dumps(document).encode()
    assert summarize(content) == ManifestSummary({}, {})
    sections = parse_artifact(content, path="", kind=Kind.MANIFEST).sections
    assert count_models(sections) == (2 if isinstance(nodes, dict) else 0)
