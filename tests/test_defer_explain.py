"""Predictions of `explain`, compared with the SQL that dbt compiles."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from datapilot_defer import dbt_project
from datapilot_defer.artifact import Artifact, read_artifact
from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.defer import dbt_queries, nodes
from datapilot_defer.defer.explain import DeferContext, explain_references
from datapilot_defer.defer.nodes import ManifestNode
from datapilot_defer.errors import ArtifactRefused, UsageError
from tests.support.commands import Outcome, datapilot
from tests.support.dbt_project import Shop
from tests.support.extended_shop import extended_shop, fork

EVERYTHING = ("package:shop", "package:calendar_package")
MARTS = ("summary", "revenue_by_country", "customers")


@dataclass(frozen=True)
class Configuration:
    """Options of one run: command, selection, favor state, and whether some models are built."""

    command: str
    selection: tuple[str, ...]
    built: bool
    favor: bool

    def __str__(self) -> str:
        parts = [self.command, *self.selection]
        if self.selection == EVERYTHING:
            parts = [self.command, "everything"]
        if self.built:
            parts.append("built")
        if self.favor:
            parts.append("favor")
        return "-".join(parts)


CONFIGURATIONS = [
    Configuration("compile", EVERYTHING, built=False, favor=False),
    Configuration("compile", EVERYTHING, built=True, favor=True),
    Configuration("compile", MARTS, built=True, favor=False),
    Configuration("compile", MARTS, built=True, favor=True),
    Configuration("build", ("orders", "revenue_by_country"), built=False, favor=False),
    Configuration(
        "build", ("summary", "order_status", "countries", "prices"), built=True, favor=True
    ),
    Configuration("run", ("+summary",), built=False, favor=True),
    Configuration("run", ("summary",), built=True, favor=False),
]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, Shop]:
    """Return the extended shop, by whether half of its development schema is built."""
    empty = extended_shop(tmp_path_factory.mktemp("empty"))
    half = fork(empty, tmp_path_factory.mktemp("half") / "shop")
    deferred = ("--defer", "--state", str(half.prod_artifacts))
    half.run("--quiet", "seed")
    half.run("--quiet", "run", "-s", "stg_orders", "orders", "customers", "prices", *deferred)
    return {False: empty, True: half}


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_dbt_compiles_references_to_explained_relations(
    configuration: Configuration, shops: Mapping[bool, Shop], tmp_path: Path
) -> None:
    shop = fork(shops[configuration.built], tmp_path / "shop")
    favor = ("--favor-state",) if configuration.favor else ()
    deferred = ("--defer", "--state", str(shop.prod_artifacts), *favor)
    words = ("--quiet", configuration.command, "-s", *configuration.selection, *deferred)
    with ThreadPoolExecutor() as executor:
        # The run uses its own copy, so that both commands run at the same time.
        run = executor.submit(shop.run, *words)
        explanation = explain(
            shops[configuration.built],
            "--for",
            configuration.command,
            *favor,
            "-s",
            *configuration.selection,
        )
        run.result()
    compiled = json.loads((shop.project / "target" / "manifest.json").read_bytes())["nodes"]
    expected: dict[str, set[str]] = {}
    for reference in explanation["references"]:
        expected.setdefault(reference["node"], set()).add(reference["relation"])
    assert set(expected) >= {"model.shop.revenue_by_country", "model.shop.summary"} & set(
        _selected(configuration)
    )
    for node, relations in expected.items():
        assert _relations(compiled[node]) == relations, node


def _selected(configuration: Configuration) -> list[str]:
    return [f"model.shop.{name.strip('+')}" for name in configuration.selection]


def _relations(node: Mapping[str, Any]) -> set[str]:
    """Return the relations and ephemeral CTEs in the compiled SQL, without the node's own."""
    sql = re.sub(r"--.*", "", node["compiled_code"])
    return set(re.findall(r'"\w+"\."\w+"\."\w+"|__dbt__cte__\w+', sql)) - {node["relation_name"]}


def explain(shop: Shop, *arguments: str) -> Any:
    """Return the object that `explain --json` prints for the shop, deferring to production."""
    done = run_explain(shop, "--json", *arguments)
    assert done.exit_code == 0, done.output
    return done.json


def run_explain(shop: Shop, *arguments: str) -> Outcome:
    """Run `explain` for the shop, deferring to production."""
    origin = [
        "--manifest-path",
        shop.prod_artifacts,
        "--dbt",
        shop.dbt,
        "--project-dir",
        shop.project,
    ]
    # With a shared cache, dbt parses each project only once.
    environ = {**shop.environment, "XDG_CACHE_HOME": str(shop.project.parents[1] / "cache")}
    return datapilot("dbt", "defer", "explain", *origin, *arguments, env=environ)


def test_explain_does_not_change_project(shops: Mapping[bool, Shop], tmp_path: Path) -> None:
    shop = fork(shops[False], tmp_path / "shop")
    before = {
        path: path.stat().st_mtime_ns for path in shop.project.parent.rglob("*") if path.is_file()
    }
    explain(shop, "-s", "summary")
    after = {
        path: path.stat().st_mtime_ns for path in shop.project.parent.rglob("*") if path.is_file()
    }
    assert after == before


def test_explain_prints_table(shops: Mapping[bool, Shop]) -> None:
    done = run_explain(shops[True], "--select", "summary")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["summary"]
    assert ["prices.v1", '"warehouse"."dev"."prices_v1"', "built_here", "in", "development"] in rows
    assert ["stg_payments", "(in", "int_order_payments)"] in [row[:3] for row in rows]
    assert done.stdout.splitlines()[-1].startswith(
        "Favor state is off: production is read only for"
    )
    assert re.search(r"^Deferring to .* \(built .* ago\)$", done.stderr, re.MULTILINE)


def test_explain_without_selection_covers_every_model(
    shops: Mapping[bool, Shop],
) -> None:
    explanation = explain(shops[True], "--favor-state")
    assert explanation["rule"].startswith("Favor state is on: models that are not selected")
    resolutions = {
        (row["node"], row["reference"]): row["resolution"] for row in explanation["references"]
    }
    assert resolutions["model.shop.revenue_by_country", "model.shop.orders"] == "favored"
    assert resolutions["model.shop.summary", "source.shop.raw.customers"] == "built_here"
    assert resolutions["snapshot.shop.order_status", "model.shop.stg_orders"] == "favored"
    assert explanation["counts"]["favored"] > 0


def test_reference_without_relation_is_missing(shops: Mapping[bool, Shop], tmp_path: Path) -> None:
    shop = fork(shops[False], tmp_path / "shop")
    models = shop.project / "models" / "marts"
    (models / "brand_new.sql").write_text("select 1 as a", encoding="utf-8")
    (models / "uses_it.sql").write_text("select * from {{ ref('brand_new') }}", encoding="utf-8")
    [row] = explain(shop, "-s", "uses_it")["references"]
    assert (row["resolution"], row["relation"]) == ("missing", '"warehouse"."dev"."brand_new"')
    [row] = explain(shop, "-s", "uses_it", "brand_new")["references"]
    assert row["resolution"] == "selected"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-s", "custmers+"), "no node matches 'custmers+'; did you mean 'customers'?"),
        (("zzz", "tag:zzz"), "no node matches 'zzz' 'tag:zzz'"),
        (
            ("-s", "customers", "--exclude", "customers"),
            "no node matches 'customers' --exclude 'customers'",
        ),
    ],
)
def test_selection_without_match_is_rejected(
    shops: Mapping[bool, Shop], words: tuple[str, ...], message: str
) -> None:
    done = run_explain(shops[False], *words)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].endswith(message)


def test_selection_without_references_is_reported(
    shops: Mapping[bool, Shop],
) -> None:
    for selection in ("resource_type:source", "state:new"):
        done = run_explain(shops[False], "-s", selection)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == "No selected model or snapshot has a reference."


def test_error_output_of_dbt_is_printed(shops: Mapping[bool, Shop], tmp_path: Path) -> None:
    shop = fork(shops[False], tmp_path / "shop")
    (shop.project / "models" / "broken.sql").write_text(
        "select * from {{ ref('nowhere') }}", encoding="utf-8"
    )
    done = run_explain(shop, "-s", "summary")
    assert done.exit_code == 2
    assert "`dbt compile` exited with" in done.stderr
    assert "depends on a node named 'nowhere'" in done.stderr


def test_program_that_is_not_dbt_is_reported(shops: Mapping[bool, Shop]) -> None:
    done = datapilot(
        "dbt",
        "defer",
        "explain",
        "--dbt",
        shutil.which("git"),
        "--manifest-path",
        shops[False].prod_artifacts,
        "--project-dir",
        shops[False].project,
    )
    assert done.exit_code == 2
    assert "does not report its version" in done.stderr


def test_dbt_before_1_8_resolves_before_run() -> None:
    parent, child = _model("parent", "dev"), _model("child", "dev", "model.shop.parent")
    development = {node.unique_id: node for node in (parent, child)}
    production = {"model.shop.parent": _model("parent", "prod")}

    def resolution(*, eager: bool, exists: bool = False, favor: bool = False) -> str:
        present = {"model.shop.parent"} if exists else set()
        context = DeferContext(
            development,
            production,
            present,
            favor_state=favor,
            command="compile",
            resolves_before_run=eager,
        )
        [reference] = explain_references(context, selected=set(development), project="shop")
        return reference.resolution

    assert resolution(eager=False) == "deferred"
    assert resolution(eager=True) == "missing"
    assert resolution(eager=True, exists=True, favor=True) == "built_here"


def test_parent_that_is_ephemeral_in_production_is_missing() -> None:
    parent, child = _model("parent", "dev"), _model("child", "dev", "model.shop.parent")
    production = {
        "model.shop.parent": ManifestNode(
            "model.shop.parent", "model", "shop", "parent", None, True, ()
        )
    }
    context = DeferContext(
        {node.unique_id: node for node in (parent, child)}, production, set(), favor_state=True
    )
    [reference] = explain_references(context, selected={"model.shop.child"}, project="shop")
    assert reference.resolution == "missing"
    assert "ephemeral in the state" in reference.reason


def _model(name: str, schema: str, *parents: str) -> ManifestNode:
    return ManifestNode(
        f"model.shop.{name}", "model", "shop", name, f'"{schema}"."{name}"', False, parents
    )


@pytest.mark.skipif(os.name == "nt", reason="scripts with an interpreter line are of POSIX")
def test_unexpected_output_of_dbt_is_reported(shops: Mapping[bool, Shop], tmp_path: Path) -> None:
    script = tmp_path / "dbt"
    script.write_text("#!/bin/sh\necho installed: 1.11.16\n", encoding="utf-8")
    script.chmod(0o755)
    done = run_explain(replace(shops[False], dbt=script))
    assert done.exit_code == 2
    assert (
        "did not report which relations exist. Its output was:\n    installed: 1.11.16"
        in done.stderr
    )


@pytest.mark.parametrize("reader", [nodes.read_nodes, nodes.list_unique_ids])
@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"nodes": 1}', '{"nodes": [1]}'])
def test_invalid_manifest_is_rejected(
    content: str, reader: Callable[[Artifact], object], tmp_path: Path
) -> None:
    (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(ArtifactRefused, match="is not a manifest of dbt"):
        reader(read_artifact(tmp_path / "manifest.json"))
    with pytest.raises(UsageError, match="no such file"):
        reader(read_artifact(tmp_path / "none.json"))


def test_invalid_node_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"nodes": {"model.a.b": 1}}', encoding="utf-8")
    with pytest.raises(ArtifactRefused, match="is not a manifest of dbt"):
        nodes.read_nodes(read_artifact(tmp_path / "manifest.json"))


def test_dbt_that_cannot_start_is_reported(tmp_path: Path) -> None:
    project = dbt_project.DbtProject(tmp_path, "shop", tmp_path / "target")
    query = dbt_queries.DbtQuery(
        DbtInstallation(tmp_path / "none", "1.11.16"), project, [], os.environ
    )
    with pytest.raises(UsageError, match="cannot start"):
        query.run([], tmp_path)


def test_source_without_relation_is_missing() -> None:
    source = ManifestNode("source.shop.raw.x", "source", "shop", "raw.x", '"raw"."x"', False, ())
    child = _model("child", "dev", "source.shop.raw.x", "test.shop.odd", "model.shop.disabled")
    context = DeferContext(
        {node.unique_id: node for node in (source, child)}, {}, set(), favor_state=False
    )
    [reference] = explain_references(context, selected=None, project="shop")
    assert (reference.resolution, reference.relation) == ("missing", '"raw"."x"')
