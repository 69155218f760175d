"""The shop with what it lacks: a model in two versions, a package, and one mart that refers to every kind of thing."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from tests.support.dbt_project import Shop, copy_shop, production
from tests.support.environments import make_once, require_program

_PACKAGE = "name: calendar_package\nversion: 1.0.0\nconfig-version: 2\n"
# The package as `dbt deps` leaves it. The summary's references: two versions, a package's model, a snapshot, a seed,
# an ephemeral model, a source, a mart.
_FILES = {
    "shop/packages.yml": "packages:\n  - local: ../calendar_package\n",
    "calendar_package/dbt_project.yml": _PACKAGE,
    "shop/dbt_packages/calendar_package/dbt_project.yml": _PACKAGE,
    "shop/dbt_packages/calendar_package/models/calendar.sql": "select date '2026-10-01' as day\n",
    "shop/models/marts/prices_v1.sql": "select 1 as price\n",
    "shop/models/marts/prices_v2.sql": "select 2 as price\n",
    "shop/models/marts/_prices.yml": """\
models:
  - name: prices
    latest_version: 2
    versions: [{v: 1}, {v: 2}]
""",
    "shop/models/marts/summary.sql": """\
select
    (select sum(price) from {{ ref('prices', v=1) }}) as old_price,
    (select sum(price) from {{ ref('prices') }}) as new_price,
    (select count(*) from {{ ref('calendar_package', 'calendar') }}) as days,
    (select count(*) from {{ ref('order_status') }}) as statuses,
    (select count(*) from {{ ref('countries') }}) as countries,
    (select count(*) from {{ ref('int_order_payments') }}) as paid,
    (select count(*) from {{ source('raw', 'customers') }}) as customers,
    (select count(*) from {{ ref('revenue_by_country') }}) as rows_of_revenue
""",
}
_PRODUCTION = (("run", "-s", "prices", "calendar", "summary"), ("parse",))


def extended_shop(folder: Path, dbt: str = "dbt") -> Shop:
    """Make it in an empty folder. dbt: the environment whose dbt it gets, which also writes production's manifest."""
    shutil.copytree(_production(), folder, dirs_exist_ok=True)
    shop = _at(folder, dbt)
    if dbt != "dbt":
        shop.run("--quiet", "parse", "--target", "prod")
        shutil.move(
            shop.project / "target" / "manifest.json", shop.prod_artifacts / "manifest.json"
        )
        shutil.rmtree(shop.project / "target")
    return shop


def _production() -> Path:
    """The folder that all copies are made of, production built in its database; made once and kept."""

    def make(folder: Path) -> None:
        shop = copy_shop(folder)
        for name, content in _FILES.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        for words in _PRODUCTION:
            shop.run("--quiet", *words, "--target", "prod")
        shutil.move(
            shop.project / "target" / "manifest.json", shop.prod_artifacts / "manifest.json"
        )
        shutil.rmtree(shop.project / "target")
        shop.run(
            "--quiet", "parse"
        )  # what is parsed is kept: every run on a copy is a second faster

    base = (production() / ".made-of").read_text(encoding="utf-8")
    return make_once("larger-shop", [base, _FILES, _PRODUCTION], make)


def _at(folder: Path, dbt: str) -> Shop:
    project = folder / "shop"
    return Shop(
        project,
        project,
        folder / "prod_artifacts",
        folder / "warehouse.duckdb",
        require_program(dbt, "dbt"),
    )


def fork(shop: Shop, folder: Path) -> Shop:
    """A copy with a database of its own."""
    shutil.copytree(shop.project.parent, folder)
    return replace(_at(folder, "dbt"), dbt=shop.dbt)
