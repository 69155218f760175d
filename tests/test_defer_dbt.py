"""Comparison of dbt alone and dbt under `datapilot dbt defer run`, one row per situation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import datapilot
from tests.support.dbt_project import Shop, copy_shop
from tests.support.environments import REPOSITORY
from tests.support.extended_shop import fork

MODEL = "revenue_by_country"  # It refers to both PARENTS.
PARENTS = ("orders", "customers")


@dataclass(frozen=True)
class Outcome:
    """Exit code of a dbt command and the schema of its references.

    schema: "prod", "dev", "other" or None.
    """

    exit_code: int
    schema: str | None
    output: str = ""


@dataclass(frozen=True)
class Row:
    """One situation. {state} and similar names are replaced by directories of `_make_states`.

    alone: arguments for dbt itself. ours: arguments for `defer run`, which defers to `state`.
    alone_expected and ours_expected: exit code and schema.
    message: expected text in the output of `defer run`.
    """

    name: str
    alone: str
    alone_expected: tuple[int, str | None]
    ours: str
    ours_expected: tuple[int, str | None]
    message: str = ""
    state: str = "state"
    environ: Mapping[str, str] = field(default_factory=dict)
    parents_in_dev: bool = False
    favor: bool = False


ROWS = [
    Row(
        "`--defer --state DIR`",
        "compile -s M --defer --state {state}",
        (0, "prod"),
        "compile -s M",
        (0, "prod"),
    ),
    Row(
        "the same without `--select`",
        "compile --defer --state {state}",
        (0, "prod"),
        "compile",
        (0, "prod"),
    ),
    Row("no flags", "compile -s M", (0, "dev"), "compile -s M", (0, "prod")),
    Row(
        "`--defer` without `--state`",
        "compile -s M --defer",
        (2, None),
        "compile -s M --defer",
        (0, "prod"),
    ),
    Row(
        "`--favor-state` without `--defer`, parents in development",
        "compile -s M --favor-state --state {state}",
        (0, "dev"),
        "compile -s M --favor-state",
        (0, "prod"),
        parents_in_dev=True,
    ),
    Row(
        "parents in development, favor state off",
        "compile -s M --defer --state {state}",
        (0, "dev"),
        "compile -s M",
        (0, "dev"),
        parents_in_dev=True,
    ),
    Row(
        "parents in development, favor state on",
        "compile -s M --defer --state {state} --favor-state",
        (0, "prod"),
        "compile -s M",
        (0, "prod"),
        parents_in_dev=True,
        favor=True,
    ),
    Row(
        "`DBT_DEFER_STATE` names another state",
        "compile -s M --defer --state {state}",
        (0, "other"),
        "compile -s M",
        (0, "prod"),
        message="DBT_DEFER_STATE is set",
        environ={"DBT_DEFER_STATE": "{other}"},
    ),
    Row(
        "`DBT_ENGINE_DEFER_STATE` names another state",
        "compile -s M --defer --state {state}",
        (0, "other"),
        "compile -s M",
        (0, "prod"),
        message="DBT_ENGINE_DEFER_STATE is set",
        environ={"DBT_ENGINE_DEFER_STATE": "{other}"},
    ),
    Row(
        "`DBT_STATE` names another state",
        "compile -s M --defer --state {state}",
        (0, "prod"),
        "compile -s M",
        (0, "prod"),
        message="DBT_STATE is set",
        environ={"DBT_STATE": "{other}"},
    ),
    Row(
        "no flags, but `DBT_DEFER` and `DBT_STATE` of another state",
        "compile -s M",
        (0, "other"),
        "compile -s M",
        (0, "prod"),
        message="DBT_STATE is set",
        environ={"DBT_DEFER": "true", "DBT_STATE": "{other}"},
    ),
    Row(
        "`DBT_FAVOR_STATE` is on, parents in development",
        "compile -s M --defer --state {state}",
        (0, "prod"),
        "compile -s M",
        (0, "dev"),
        message="DBT_FAVOR_STATE is set",
        environ={"DBT_FAVOR_STATE": "true"},
        parents_in_dev=True,
    ),
    Row(
        "`--no-defer` as well",
        "compile -s M --defer --state {state} --no-defer",
        (0, "dev"),
        "compile -s M --no-defer",
        (2, None),
        message="--no-defer contradicts `defer run`",
    ),
    Row(
        "no such folder",
        "compile -s M --defer --state {gone}",
        (2, None),
        "compile -s M",
        (2, None),
        message="gone is not a directory",
        state="gone",
    ),
    Row(
        "a folder without manifest.json",
        "compile -s M --defer --state {empty}",
        (2, None),
        "compile -s M",
        (2, None),
        message="empty contains no manifest.json",
        state="empty",
    ),
    Row(
        "the path of the file itself",
        "compile -s M --defer --state {state}/manifest.json",
        (2, None),
        "compile -s M",
        (0, "prod"),
        state="state/manifest.json",
    ),
    Row(
        "a manifest of another project",
        "compile -s M --defer --state {foreign}",
        (0, "dev"),
        "compile -s M",
        (1, None),
        message="is of project 'warehouse' and contains no node of 'shop'",
        state="foreign",
    ),
    Row(
        "a project of the same name with other models",
        "compile -s M --defer --state {namesake}",
        (0, "dev"),
        "compile -s M",
        (1, None),
        message="is also called 'shop', but shares no model or seed",
        state="namesake",
    ),
    Row(
        "the state directory is the target folder",
        "compile -s M --defer --state {project}/target",
        (0, "dev"),
        "compile -s M",
        (2, None),
        message="is dbt's target directory",
        state="project/target",
    ),
    Row(
        "the target folder by a link",
        "compile -s M --defer --state {link}",
        (0, "dev"),
        "compile -s M",
        (2, None),
        message="is dbt's target directory",
        state="link",
    ),
    Row(
        "the target folder by --target-path",
        "compile -s M --defer --state {copy} --target-path {copy}",
        (0, "dev"),
        "compile -s M --target-path {copy}",
        (2, None),
        message="is dbt's target directory",
        state="copy",
    ),
    Row(
        "a manifest of schema version 11",
        "compile -s M --defer --state {v11}",
        (0, "prod"),
        "compile -s M",
        (0, "prod"),
        state="v11",
    ),
    *(
        Row(
            f"a manifest of schema version {version}",
            f"compile -s M --defer --state {{v{version}}}",
            (2, None),
            "compile -s M",
            (1, None),
            message="cannot defer to",
            state=f"v{version}",
        )
        for version in (3, 13, 20)
    ),
    Row(
        "config.meta is null, as dbt Fusion writes it",
        "compile -s M --defer --state {null_meta}",
        (2, None),
        "compile -s M",
        (1, None),
        message="].config.meta",
        state="null_meta",
    ),
    Row(
        "unknown keys",
        "compile -s M --defer --state {extra}",
        (0, "prod"),
        "compile -s M",
        (0, "prod"),
        state="extra",
    ),
    Row(
        "an empty object",
        "compile -s M --defer --state {nothing}",
        (2, None),
        "compile -s M",
        (1, None),
        message="manifest.json::$",
        state="nothing",
    ),
    Row(
        "a truncated file",
        "compile -s M --defer --state {truncated}",
        (2, None),
        "compile -s M",
        (1, None),
        message="ends after",
        state="truncated",
    ),
    Row(
        "a manifest of `dbt parse`",
        "compile -s M --defer --state {parsed}",
        (0, "prod"),
        "compile -s M",
        (0, "prod"),
        state="parsed",
    ),
    Row(
        "`state:modified` with only `--defer-state`",
        "ls -s state:modified --defer --defer-state {state}",
        (2, None),
        "ls -s state:modified",
        (0, None),
    ),
    Row(
        "`run-operation`",
        "run-operation nop --defer --state {state}",
        (0, None),
        "run-operation nop",
        (0, None),
        "does not use state",
    ),
    Row(
        "`deps`", "deps --defer --state {state}", (0, None), "deps", (0, None), "does not use state"
    ),
]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Shop, Shop]]:
    """Return two copies of the shop, by whether its development schema has the parents.

    One copy is for dbt alone and one for `defer run`, so that both run at the same time.
    """
    pairs = {}
    for parents_in_dev in (False, True):
        shop = copy_shop(tmp_path_factory.mktemp("dbt") / "one")
        (shop.project / "macros" / "nop.sql").write_text(
            "{% macro nop() %}{% endmacro %}", encoding="utf-8"
        )
        if parents_in_dev:
            shop.run(
                "--quiet", "run", "-s", *PARENTS, "--defer", "--state", str(shop.prod_artifacts)
            )
        else:
            # dbt keeps the parsed project, which makes each run below a second faster.
            shop.run("--quiet", "parse")
        _make_states(shop)
        other = fork(shop, shop.project.parents[1] / "other")
        for each in (shop, other):
            _directory(each, "link").symlink_to(each.project / "target", target_is_directory=True)
        pairs[parents_in_dev] = (shop, other)
    return pairs


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_defer_run_compared_with_dbt_alone(
    row: Row, shops: Mapping[bool, tuple[Shop, Shop]]
) -> None:
    one, other = shops[row.parents_in_dev]
    with ThreadPoolExecutor() as executor:
        running = executor.submit(dbt_alone, row, one)
        ours = defer_run(row, other)
        alone = running.result()
    assert (alone.exit_code, alone.schema) == row.alone_expected, alone.output
    assert (ours.exit_code, ours.schema) == row.ours_expected, ours.output
    assert row.message in ours.output
    assert "Traceback" not in ours.output


def test_documentation_has_table_of_rows() -> None:
    page = (REPOSITORY / "docs" / "defer.md").read_text(encoding="utf-8")
    assert table() in page, f"put this into docs/defer.md:\n{table()}"


def table() -> str:
    """Return the rows as a Markdown table."""
    lines = ["| Situation | dbt alone | `datapilot dbt defer run` |", "|---|---|---|"]
    for row in ROWS:
        alone, ours = _cell(row.alone_expected), _cell(row.ours_expected)
        message = f": “{row.message}”" if row.message else ""
        favor = " (`--favor-state`)" if row.favor else ""
        lines.append(f"| {row.name} | {alone} | {ours}{favor}{message} |")
    return "\n".join(lines)


def _cell(expected: tuple[int, str | None]) -> str:
    code, schema = expected
    effect = {
        "prod": "reads production",
        "dev": "reads development",
        "other": "reads another state",
        None: "runs",
    }[schema]
    return f"exit {code}" if code else effect


def defer_run(row: Row, shop: Shop) -> Outcome:
    """Run dbt under `defer run`, deferring to a local directory."""
    _clear(shop)
    origin = (
        "--dbt",
        shop.dbt,
        "--manifest-path",
        _directory(shop, row.state),
        *(["--favor-state"] if row.favor else []),
    )
    before = Path.cwd()
    os.chdir(shop.project)
    try:
        done = datapilot(
            "dbt", "defer", "run", *origin, *words(row.ours, shop), env=environ(row, shop)
        )
    finally:
        os.chdir(before)
    return Outcome(done.exit_code, _schema(shop) if done.exit_code == 0 else None, done.output)


def dbt_alone(row: Row, shop: Shop) -> Outcome:
    """Run dbt itself."""
    _clear(shop)
    done = subprocess.run(
        [shop.dbt, *words(row.alone, shop)],
        cwd=shop.project,
        env=environ(row, shop),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return Outcome(done.returncode, _schema(shop) if done.returncode == 0 else None, done.stdout)


def _compiled(shop: Shop) -> list[Path]:
    return [shop.project / "target" / "compiled", _directory(shop, "copy") / "compiled"]


def _clear(shop: Shop) -> None:
    for directory in _compiled(shop):
        shutil.rmtree(directory, ignore_errors=True)


def _schema(shop: Shop) -> str | None:
    """Return the schema that the compiled SQL of the model reads its parents from."""
    files = [file for directory in _compiled(shop) for file in directory.rglob(f"{MODEL}.sql")]
    schemas = (
        set(re.findall(r'"warehouse"."(\w+)"."orders"', files[0].read_text(encoding="utf-8")))
        if files
        else set()
    )
    return schemas.pop() if schemas else None


def words(text: str, shop: Shop) -> list[str]:
    """Return the words of a row with the model and the directories filled in."""
    return [MODEL if word == "M" else _fill_in(word, shop) for word in text.split()]


def environ(row: Row, shop: Shop) -> dict[str, str]:
    """Return the environment variables of a row."""
    return shop.environment | {name: _fill_in(value, shop) for name, value in row.environ.items()}


def _fill_in(text: str, shop: Shop) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: str(_directory(shop, match.group(1))), text)


def _directory(shop: Shop, name: str) -> Path:
    first, _, rest = name.partition("/")
    base = shop.project if first == "project" else shop.project.parent / "states" / first
    return base / rest if rest else base


def _make_states(shop: Shop) -> None:
    """Create the directories that rows defer to, each with a variant of production's manifest."""
    production = json.loads((shop.prod_artifacts / "manifest.json").read_bytes())
    text = (shop.prod_artifacts / "manifest.json").read_text(encoding="utf-8")

    def make(name: str, content: str) -> None:
        _directory(shop, name).mkdir(parents=True)
        (_directory(shop, name) / "manifest.json").write_text(content, encoding="utf-8")

    make("state", text)
    make("copy", text)
    make("other", text.replace('"prod"', '"other"').replace('\\"prod\\"', '\\"other\\"'))
    make("foreign", _rename_project(text))
    namesake = re.sub(r"\b(model|seed|snapshot)\.shop\.", r"\1.shop.their_", text)
    make("namesake", re.sub(r'("original_file_path": ")', r"\1their_", namesake))
    for version in (3, 11, 13, 20):
        make(f"v{version}", text.replace("manifest/v12.json", f"manifest/v{version}.json"))
    make(
        "null_meta",
        json.dumps(_change_nodes(production, lambda node: node["config"].update(meta=None))),
    )
    make(
        "extra",
        json.dumps(
            _change_nodes({**production, "new": 1}, lambda node: node.update(brand_new={"a": 1}))
        ),
    )
    make("nothing", "{}")
    make("truncated", text[: len(text) // 2])
    _directory(shop, "empty").mkdir()
    _directory(shop, "parsed").mkdir()
    shop.run(
        "--quiet", "parse", "--target", "prod", "--target-path", str(_directory(shop, "parsed"))
    )


def _rename_project(text: str) -> str:
    """Return the manifest under another project name, so that every unique id differs."""
    return re.sub(r'(?<=")(\w+)\.shop\.', r"\1.warehouse.", text).replace(
        '"project_name": "shop"', '"project_name": "warehouse"'
    )


def _change_nodes(
    manifest: dict[str, Any], change: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(manifest))
    for node in copy["nodes"].values():
        change(node)
    return copy
