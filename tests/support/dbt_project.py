"""The dbt project `tests/projects/shop`, its production artifacts and its database.

The fixture `artifacts` returns the recorded artifacts of tests/artifacts/shop, which need no dbt.
The fixture `shop` returns a copy of the project that real dbt has built once. After a change of the
project, record its artifacts again:

    .venv/bin/python -m tests.support.dbt_project
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.environments import REPOSITORY, REQUIREMENTS, make_once, require_program, run

PROJECT = REPOSITORY / "tests" / "projects" / "shop"
RECORDED = REPOSITORY / "tests" / "artifacts" / "shop"
_DATABASE = "warehouse.duckdb"
_KINDS = ("manifest", "catalog", "run_results", "sources", "semantic_manifest")
_GENERATED_AT = re.compile(r'("generated_at": ")[^"]+')
# A nightly production job. The last command writes the manifest, the catalog and the run results.
_PRODUCTION = (
    ("run-operation", "load_raw"),
    ("source", "freshness"),
    ("build",),
    ("docs", "generate"),
)


@dataclass(frozen=True)
class Shop:
    """A copy of the shop: a development checkout and production's artifacts and database."""

    project: Path
    """The dbt project, without a target directory; the test may change it."""
    profiles: Path
    """The directory of profiles.yml, with the targets `prod` and `dev` (the default)."""
    prod_artifacts: Path
    """The directory with production's five artifacts."""
    duckdb: Path
    """The database file, with the schemas `raw` and `prod`; `dev` does not exist yet."""
    dbt: Path
    """The executable of dbt-core 1.11."""

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables that select this copy's profiles and database."""
        return {
            **os.environ,
            "DBT_PROFILES_DIR": str(self.profiles),
            "SHOP_DATABASE": str(self.duckdb),
        }

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run dbt in the project directory. With `check`, fail the test if dbt fails."""
        completed = subprocess.run(
            [str(self.dbt), *arguments],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert not check or completed.returncode == 0, completed.stdout
        return completed


def production() -> Path:
    """Return the read-only directory with production's `artifacts/` and database, built once."""
    dbt = require_program("dbt", "dbt")
    files = sorted(path for path in PROJECT.rglob("*") if path.is_file() and _is_source(path))
    ingredients = [
        REQUIREMENTS["dbt"],
        _PRODUCTION,
        [[path.name, path.read_text(encoding="utf-8")] for path in files],
    ]

    def make(directory: Path) -> None:
        project = _copy_project(directory / "project")
        for words in _PRODUCTION:
            run(
                [dbt, "--quiet", *words, "--target", "prod", "--profiles-dir", project],
                directory=project,
            )
        shutil.move(project / _DATABASE, directory / _DATABASE)
        (directory / "artifacts").mkdir()
        for kind in _KINDS:
            shutil.copy(project / "target" / f"{kind}.json", directory / "artifacts")
        shutil.rmtree(project)

    return make_once("shop", ingredients, make)


def copy_shop(directory: Path) -> Shop:
    """Copy the shop into an empty directory."""
    built = production()
    project = _copy_project(directory / "shop")
    prod_artifacts = directory / "prod_artifacts"
    shutil.copytree(built / "artifacts", prod_artifacts)
    database = directory / _DATABASE
    shutil.copy(built / _DATABASE, database)
    return Shop(project, project, prod_artifacts, database, require_program("dbt", "dbt"))


def copy_recorded_artifacts(directory: Path) -> Path:
    """Copy the recorded artifacts into a directory, with timestamps of an hour ago.

    The recorded timestamps are too old for the checks of an artifact's age.
    """
    written = datetime.now(UTC) - timedelta(hours=1)
    timestamp = written.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for kind in _KINDS:
        text = (RECORDED / f"{kind}.json").read_text(encoding="utf-8")
        text = _GENERATED_AT.sub(rf"\g<1>{timestamp}", text)
        (directory / f"{kind}.json").write_text(text, encoding="utf-8")
    return directory


def record_artifacts() -> None:
    """Replace the recorded artifacts by new ones of real dbt, without paths of this machine."""
    built = production()
    RECORDED.mkdir(exist_ok=True)
    for kind in _KINDS:
        text = (built / "artifacts" / f"{kind}.json").read_text(encoding="utf-8")
        text = text.replace(str(built / "project"), "/home/analyst/shop")
        (RECORDED / f"{kind}.json").write_text(text, encoding="utf-8")


def _copy_project(directory: Path) -> Path:
    shutil.copytree(
        PROJECT,
        directory,
        ignore=lambda at, names: [name for name in names if not _is_source(Path(at, name))],
    )
    return directory


def _is_source(path: Path) -> bool:
    """Return whether a file belongs to the project and was not written by dbt."""
    written = {"target", "logs", "dbt_packages", ".user.yml"}
    return not written.intersection(path.relative_to(PROJECT).parts) and ".duckdb" not in path.name


if __name__ == "__main__":
    record_artifacts()
