"""The shop of `tests/projects/shop`, built by real dbt: production's artifacts and its database, made once and kept.

A test takes the fixture `shop` for a copy of everything that is its own, or `artifacts` when it only reads
production's artifacts.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.environments import REPOSITORY, REQUIREMENTS, make_once, require_program, run

PROJECT = REPOSITORY / "tests" / "projects" / "shop"
_DATABASE = "warehouse.duckdb"
_KINDS = ("manifest", "catalog", "run_results", "sources", "semantic_manifest")
# A nightly production job. Its manifest, catalog and run results all come from the last command.
_PRODUCTION = (
    ("run-operation", "load_raw"),
    ("source", "freshness"),
    ("build",),
    ("docs", "generate"),
)


@dataclass(frozen=True)
class Shop:
    """One copy of the shop: the project as a developer has it, and what production left behind."""

    project: Path
    """The dbt project, without target folder; a fresh copy that the test may change."""
    profiles: Path
    """The folder of profiles.yml, with the targets `prod` and `dev` (the default)."""
    prod_artifacts: Path
    """The folder of production's artifacts, of all five kinds under dbt's own names."""
    duckdb: Path
    """The database file: raw data in its schema `raw`, production in `prod`; the schema `dev` isn't there yet."""
    dbt: Path
    """The executable of dbt-core 1.11."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables with which dbt finds this copy's profiles and database from any folder."""
        return {
            **os.environ,
            "DBT_PROFILES_DIR": str(self.profiles),
            "SHOP_DATABASE": str(self.duckdb),
        }

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run dbt on this copy, in its folder; with `check` a failure of dbt fails the test, showing what dbt said."""
        done = subprocess.run(
            [str(self.dbt), *arguments],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert not check or done.returncode == 0, done.stdout
        return done


def production() -> Path:
    """Give the folder that holds production's `artifacts/` and its database; read only, shared by all sessions."""
    dbt = require_program("dbt", "dbt")
    files = sorted(path for path in PROJECT.rglob("*") if path.is_file() and _is_source(path))
    ingredients = [
        REQUIREMENTS["dbt"],
        _PRODUCTION,
        [[path.name, path.read_text(encoding="utf-8")] for path in files],
    ]

    def make(folder: Path) -> None:
        project = _copy_project(folder / "project")
        for words in _PRODUCTION:
            run(
                [dbt, "--quiet", *words, "--target", "prod", "--profiles-dir", project],
                folder=project,
            )
        shutil.move(project / _DATABASE, folder / _DATABASE)
        (folder / "artifacts").mkdir()
        for kind in _KINDS:
            shutil.copy(project / "target" / f"{kind}.json", folder / "artifacts")
        shutil.rmtree(project)

    return make_once("shop", ingredients, make)


def copy_shop(folder: Path) -> Shop:
    """Make a copy of the shop in an empty folder, for one test alone."""
    made = production()
    project = _copy_project(folder / "shop")
    shutil.copytree(made / "artifacts", folder / "prod_artifacts")
    shutil.copy(made / _DATABASE, folder / _DATABASE)
    return Shop(
        project,
        project,
        folder / "prod_artifacts",
        folder / _DATABASE,
        require_program("dbt", "dbt"),
    )


def _copy_project(folder: Path) -> Path:
    shutil.copytree(
        PROJECT,
        folder,
        ignore=lambda at, names: [name for name in names if not _is_source(Path(at, name))],
    )
    return folder


def _is_source(path: Path) -> bool:
    """Whether it is part of the project, and not something that dbt wrote when somebody ran it in place."""
    written = {"target", "logs", "dbt_packages", ".user.yml"}
    return not written.intersection(path.relative_to(PROJECT).parts) and ".duckdb" not in path.name
