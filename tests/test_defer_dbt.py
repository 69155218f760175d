"""What dbt does with a state, alone and under `datapilot dbt defer run`: each row runs twice."""

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

MODEL = "revenue_by_country"  # it refers to orders and customers
PARENTS = ("orders", "customers")


@dataclass(frozen=True)
class Outcome:
    """How a dbt command ended, and the schema of references: "prod", "dev", "other" or None."""

    exit_code: int
    schema: str | None
    output: str = ""


@dataclass(frozen=True)
class Row:
    """One behavior. {state} and the like are directories of `States`.

    alone: arguments of dbt itself. ours: arguments of `defer run`, with `state` to defer to.
    alone_expected and ours_expected: exit code and schema. says: text in the output of ours.
    """

    name: str
    alone: str
    alone_expected: tuple[int, str | None]
    ours: str
    ours_expected: tuple[int, str | None]
    says: str = ""
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
        says="DBT_DEFER_STATE is set",
        environ={"DBT_DEFER_STATE": "{other}"},
    ),
    Row(
        "`DBT_ENGINE_DEFER_STATE` names another state",
        "compile -s M --defer --state {state}",
        (0, "other"),
        "compile -s M",
        (0, "prod"),
        says="DBT_ENGINE_DEFER_STATE is set",
        environ={"DBT_ENGINE_DEFER_STATE": "{other}"},
    ),
    Row(
        "`DBT_STATE` names another state",
        "compile -s M --defer --state {state}",
        (0, "prod"),
        "compile -s M",
        (0, "prod"),
        says="DBT_STATE is set",
        environ={"DBT_STATE": "{other}"},
    ),
    Row(
        "no flags, but `DBT_DEFER` and `DBT_STATE` of another state",
        "compile -s M",
        (0, "other"),
        "compile -s M",
        (0, "prod"),
        says="DBT_STATE is set",
        environ={"DBT_DEFER": "true", "DBT_STATE": "{other}"},
    ),
    Row(
        "`DBT_FAVOR_STATE` is on, parents in development",
        "compile -s M --defer --state {state}",
        (0, "prod"),
        "compile -s M",
        (0, "dev"),
        says="DBT_FAVOR_STATE is set",
        environ={"DBT_FAVOR_STATE": "true"},
        parents_in_dev=True,
    ),
    Row(
        "`--no-defer` as well",
        "compile -s M --defer --state {state} --no-defer",
        (0, "dev"),
        "compile -s M --no-defer",
        (2, None),
        says="--no-defer contradicts `defer run`",
    ),
    Row(
        "no such folder",
        "compile -s M --defer --state {gone}",
        (2, None),
        "compile -s M",
        (2, None),
        says="gone is not a directory",
        state="gone",
    ),
    Row(
        "a folder without manifest.json",
        "compile -s M --defer --state {empty}",
        (2, None),
        "compile -s M",
        (2, None),
        says="empty contains no manifest.json",
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
        says="is of project 'warehouse' and contains no node of 'shop'",
        state="foreign",
    ),
    Row(
        "a project of the same name with other models",
        "compile -s M --defer --state {namesake}",
        (0, "dev"),
        "compile -s M",
        (1, None),
        says="is also called 'shop', but shares no model or seed",
        state="namesake",
    ),
    Row(
        "the state directory is the target folder",
        "compile -s M --defer --state {project}/target",
        (0, "dev"),
        "compile -s M",
        (2, None),
        says="is dbt's target directory",
        state="project/target",
    ),
    Row(
        "the target folder by a link",
        "compile -s M --defer --state {link}",
        (0, "dev"),
        "compile -s M",
        (2, None),
        says="is dbt's target directory",
        state="link",
    ),
    Row(
        "the target folder by --target-path",
        "compile -s M --defer --state {copy} --target-path {copy}",
        (0, "dev"),
        "compile -s M --target-path {copy}",
        (2, None),
        says="is dbt's target directory",
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
            says="cannot defer to",
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
        says="].config.meta",
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
        says="manifest.json::$",
        state="nothing",
    ),
    Row(
        "a truncated file",
        "compile -s M --defer --state {truncated}",
        (2, None),
        "compile -s M",
        (1, None),
        says="ends after",
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
    """Return the shop with an empty development schema (False) and with the parents built (True).

    Each twice: one for dbt alone, one for `defer run`, so that both run at the same time.
    """
    made = {}
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
            shop.run(
                "--quiet", "parse"
            )  # what is parsed is kept: each run below is a second faster
        _make_states(shop)
        other = fork(shop, shop.project.parents[1] / "other")
        for each in (shop, other):
            _folder(each, "link").symlink_to(each.project / "target", target_is_directory=True)
        made[parents_in_dev] = (shop, other)
    return made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_dbt_alone_and_under_defer_run(row: Row, shops: Mapping[bool, tuple[Shop, Shop]]) -> None:
    one, other = shops[row.parents_in_dev]
    with ThreadPoolExecutor() as beside:
        running = beside.submit(dbt_alone, row, one)
        ours = defer_run(row, other)
        alone = running.result()
    assert (alone.exit_code, alone.schema) == row.alone_expected, alone.output
    assert (ours.exit_code, ours.schema) == row.ours_expected, ours.output
    assert row.says in ours.output
    assert "Traceback" not in ours.output


def test_the_documentation_shows_these_rows() -> None:
    page = (REPOSITORY / "docs" / "defer.md").read_text(encoding="utf-8")
    assert table() in page, f"put this into docs/defer.md:\n{table()}"


def table() -> str:
    """Return the rows for people, as a table in Markdown."""
    lines = ["| Situation | dbt alone | `datapilot dbt defer run` |", "|---|---|---|"]
    for row in ROWS:
        alone, ours = _cell(row.alone_expected), _cell(row.ours_expected)
        said = f": “{row.says}”" if row.says else ""
        favor = " (`--favor-state`)" if row.favor else ""
        lines.append(f"| {row.name} | {alone} | {ours}{favor}{said} |")
    return "\n".join(lines)


def _cell(expected: tuple[int, str | None]) -> str:
    code, schema = expected
    read = {
        "prod": "reads production",
        "dev": "reads development",
        "other": "reads another state",
        None: "runs",
    }[schema]
    return f"exit {code}" if code else read


def defer_run(row: Row, shop: Shop) -> Outcome:
    """Run dbt under `defer run`, deferring to a local folder."""
    _clear(shop)
    origin = (
        "--dbt",
        shop.dbt,
        "--manifest-path",
        _folder(shop, row.state),
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
    return [shop.project / "target" / "compiled", _folder(shop, "copy") / "compiled"]


def _clear(shop: Shop) -> None:
    for folder in _compiled(shop):
        shutil.rmtree(folder, ignore_errors=True)


def _schema(shop: Shop) -> str | None:
    """Return the schema that the compiled SQL of the model reads its parents from."""
    found = [file for folder in _compiled(shop) for file in folder.rglob(f"{MODEL}.sql")]
    schemas = (
        set(re.findall(r'"warehouse"."(\w+)"."orders"', found[0].read_text(encoding="utf-8")))
        if found
        else set()
    )
    return schemas.pop() if schemas else None


def words(text: str, shop: Shop) -> list[str]:
    """Return the words of a row, with the model and the folders put in."""
    return [MODEL if word == "M" else _filled(word, shop) for word in text.split()]


def environ(row: Row, shop: Shop) -> dict[str, str]:
    """Return the environment of a row."""
    return shop.environment | {name: _filled(value, shop) for name, value in row.environ.items()}


def _filled(text: str, shop: Shop) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: str(_folder(shop, found.group(1))), text)


def _folder(shop: Shop, name: str) -> Path:
    first, _, rest = name.partition("/")
    base = shop.project if first == "project" else shop.project.parent / "states" / first
    return base / rest if rest else base


def _make_states(shop: Shop) -> None:
    """Return the folders that rows defer to, all made from production's manifest."""
    production = json.loads((shop.prod_artifacts / "manifest.json").read_bytes())
    text = (shop.prod_artifacts / "manifest.json").read_text(encoding="utf-8")

    def make(name: str, content: str) -> None:
        _folder(shop, name).mkdir(parents=True)
        (_folder(shop, name) / "manifest.json").write_text(content, encoding="utf-8")

    make("state", text)
    make("copy", text)
    make("other", text.replace('"prod"', '"other"').replace('\\"prod\\"', '\\"other\\"'))
    make("foreign", _renamed(text))
    namesake = re.sub(r"\b(model|seed|snapshot)\.shop\.", r"\1.shop.their_", text)
    make("namesake", re.sub(r'("original_file_path": ")', r"\1their_", namesake))
    for version in (3, 11, 13, 20):
        make(f"v{version}", text.replace("manifest/v12.json", f"manifest/v{version}.json"))
    make(
        "null_meta", json.dumps(_changed(production, lambda node: node["config"].update(meta=None)))
    )
    make(
        "extra",
        json.dumps(
            _changed({**production, "new": 1}, lambda node: node.update(brand_new={"a": 1}))
        ),
    )
    make("nothing", "{}")
    make("truncated", text[: len(text) // 2])
    _folder(shop, "empty").mkdir()
    _folder(shop, "parsed").mkdir()
    shop.run("--quiet", "parse", "--target", "prod", "--target-path", str(_folder(shop, "parsed")))


def _renamed(text: str) -> str:
    """Return the same project under another name: every unique id differs."""
    return re.sub(r'(?<=")(\w+)\.shop\.', r"\1.warehouse.", text).replace(
        '"project_name": "shop"', '"project_name": "warehouse"'
    )


def _changed(
    manifest: dict[str, Any], change: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(manifest))
    for node in copy["nodes"].values():
        change(node)
    return copy
