"""The recipe of docs/airflow.md in a real Airflow, run by `airflow dags test`, and its failures."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import fault_actions as act
from tests.support.environments import REPOSITORY, require_program
from tests.support.fault_proxy import At, FaultProxy, fault_proxy
from tests.support.fault_runner import World, make_world
from tests.support.fault_table import PUT
from tests.support.instances import running_instance

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Airflow does not run on Windows")
RECIPE = REPOSITORY / "docs" / "airflow.md"


@dataclass(frozen=True)
class Airflow:
    """Airflow with a database of its own in a folder. log: everything that its runs printed."""

    world: World
    integration: int
    home: Path
    silent: FaultProxy
    environ: Mapping[str, str]
    log: Path

    def run(self, dag: str) -> None:
        """`airflow dags test`, to the end of every task."""
        self.command("dags", "test", dag)

    def command(self, *words: str) -> None:
        """One command of Airflow's."""
        with self.log.open("ab") as log:
            subprocess.run(
                [str(require_program("airflow", "airflow")), *words],
                env=self.environ,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=words[-1] != "faults",
            )

    def tasks(self, dag: str) -> dict[str, tuple[str, int]]:
        """State and number of tries of each task."""
        rows = self.rows(
            "select task_id, state, try_number from task_instance where dag_id = ?", dag
        )
        return {task: (state, tries) for task, state, tries in rows}

    def xcom(self, dag: str, task: str) -> Any:
        """Return what a task left for others."""
        ((value,),) = self.rows(
            "select value from xcom where dag_id = ? and task_id = ? and key = 'return_value'",
            dag,
            task,
        )
        return json.loads(value)

    def rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Return what Airflow's own database holds."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            return database.execute(query, values).fetchall()

    def said(self, task: str) -> str:
        """Return what the tasks printed, without Airflow's own decoration."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return text[
            text.index(f"starting task_id={task} ") : text.index(f"end task task_id={task} ")
        ]


@pytest.fixture(scope="module")
def airflow(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Airflow, and an instance whose integration 1 holds the old manifest."""
    folder = tmp_path_factory.mktemp("airflow")
    with running_instance(folder / "instance") as instance:
        world = make_world(instance, artifacts / "manifest.json", folder / "shop")
        integration = world.integration("shop")
        (world.folder / "broken.json").write_text('{"metadata": {}', encoding="utf-8")
        with (
            fault_proxy(instance.url, At(PUT, act.stall)) as silent,
            fault_proxy("", listen_after_s=None) as dead,
        ):
            made = Airflow(
                world,
                integration,
                folder,
                silent,
                _environ(folder, world, silent, dead),
                folder / "log.txt",
            )
            _write_dags(folder / "dags", world)
            made.command("db", "migrate")
            yield made


def _write_dags(dags: Path, world: World) -> None:
    """Return the recipe as written, with this test's manifest and integration."""
    shutil.copytree(
        REPOSITORY / "tests" / "dags", dags, ignore=shutil.ignore_patterns("__pycache__")
    )
    (recipe,) = re.findall(r"```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"), re.DOTALL)
    for words, instead in {
        "/opt/shop/target/manifest.json": str(world.new),
        "--integration-id 7": "--integration-id 1",
    }.items():
        assert words in recipe
        recipe = recipe.replace(words, instead)
    (dags / "recipe.py").write_text(recipe, encoding="utf-8")


def _environ(folder: Path, world: World, silent: FaultProxy, dead: FaultProxy) -> dict[str, str]:
    instance = world.instance
    connection = {
        "conn_type": "http",
        "host": instance.url,
        "login": "acme",
        "password": instance.token,
    }
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_DATAPILOT": json.dumps(connection),
        "SHOP_FOLDER": str(world.folder),
        "SILENT_URL": silent.url,
        "DEAD_URL": dead.url,
    }


def test_the_recipe_onboards_and_leaves_the_result_for_others(airflow: Airflow) -> None:
    airflow.run("dbt_production")
    assert airflow.tasks("dbt_production") == {"onboard": ("success", 1)}, airflow.log.read_text(
        encoding="utf-8"
    )
    assert airflow.world.holds(airflow.integration) == "new"
    result = airflow.xcom("dbt_production", "onboard")
    assert result["ok"] is True
    assert result["artifacts"][0]["path"] == str(airflow.world.new)
    airflow.world.put(airflow.integration, airflow.world.old)


@pytest.fixture(scope="module")
def faults(airflow: Airflow) -> Airflow:
    """Airflow, after everything has gone wrong once."""
    airflow.run("faults")
    return airflow


def test_a_refused_manifest_fails_without_a_retry(faults: Airflow) -> None:
    assert faults.tasks("faults")["refused"] == ("failed", 1)
    assert "returned a non-zero exit code 1" in faults.said("refused")
    assert '"kind": "artifact_refused"' in faults.said("refused")


def test_an_unavailable_instance_is_tried_again(faults: Airflow) -> None:
    assert faults.tasks("faults")["unavailable"] == ("failed", 3)
    assert "nothing listens at" in faults.said("unavailable")


def test_a_relative_path_is_said_to_be_looked_for_in_the_temporary_folder(faults: Airflow) -> None:
    assert faults.tasks("faults")["relative"] == ("failed", 1)
    assert re.search(
        r"target\.json: no such file \(looked in \S*/airflowtmp", faults.said("relative")
    )


def test_what_is_there_already_skips_the_task(faults: Airflow) -> None:
    assert faults.tasks("faults")["unchanged"] == ("skipped", 1)


def test_a_task_that_is_killed_leaves_what_was_there(faults: Airflow) -> None:
    assert faults.tasks("faults")["killed"] == ("failed", 1)
    assert faults.silent.count(PUT) == 1
    code = faults.world.folder / "code"
    ends = time.monotonic() + 30
    while not code.exists() and time.monotonic() < ends:
        time.sleep(0.05)
    assert code.read_text(encoding="utf-8").strip() == "143"
    assert faults.world.holds(faults.integration) == "old"


def test_the_token_is_in_no_log_and_in_no_rendered_template(faults: Airflow) -> None:
    assert (
        "ALTIMATE_API_KEY"
        in faults.rows("select group_concat(rendered_fields) from rendered_task_instance_fields")[
            0
        ][0]
    )
    for path in faults.home.rglob("*"):
        if path.is_file() and faults.home / "instance" not in path.parents:
            assert faults.world.instance.token.encode() not in path.read_bytes(), path
