"""The shop with a versioned model, a package, and a mart that refers to every kind of resource."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from tests.support.dbt_project import Shop, copy_shop, production
from tests.support.environments import make_once, require_program

_PACKAGE = "name: calendar_package\nversion: 1.0.0\nconfig-version: 2\n"
# The package as installed by `dbt deps`. The summary refers to two versions of a model, a package's
# model, a snapshot, a seed, an ephemeral model, a source and a mart.
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


def extended_shop(directory: Path, dbt: str = "dbt") -> Shop:
    """Create the project in an empty directory.

    dbt: the environment with the dbt to use, which also writes production's manifest.
    """
    shutil.copytree(_production(), directory, dirs_exist_ok=True)
    shop = _shop_in(directory, dbt)
    if dbt != "dbt":
        shop.run("--quiet", "parse", "--target", "prod")
        shutil.move(
            shop.project / "target" / "manifest.json", shop.prod_artifacts / "manifest.json"
        )
        shutil.rmtree(shop.project / "target")
    return shop


def _production() -> Path:
    """Return the original of all copies, with production in its database, built once."""

    def make(directory: Path) -> None:
        shop = copy_shop(directory)
        for name, content in _FILES.items():
            file = directory / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
        for words in _PRODUCTION:
            shop.run("--quiet", *words, "--target", "prod")
        shutil.move(
            shop.project / "target" / "manifest.json", shop.prod_artifacts / "manifest.json"
        )
        shutil.rmtree(shop.project / "target")
        # dbt keeps the parsed project, which makes each run on a copy a second faster.
        shop.run("--quiet", "parse")

    base = (production() / ".made-of").read_text(encoding="utf-8")
    return make_once("extended-shop", [base, _FILES, _PRODUCTION], make)


def _shop_in(directory: Path, dbt: str) -> Shop:
    project = directory / "shop"
    return Shop(
        project,
        project,
        directory / "prod_artifacts",
        directory / "warehouse.duckdb",
        require_program(dbt, "dbt"),
    )


def fork(shop: Shop, directory: Path) -> Shop:
    """Copy a project with its database."""
    shutil.copytree(shop.project.parent, directory)
    return replace(_shop_in(directory, "dbt"), dbt=shop.dbt)
