"""The recipe of docs/airflow.md and its failures, run in a real Airflow by `airflow dags test`."""

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
    """Airflow with its own database in the directory `home`. log: the output of all runs."""

    world: World
    integration: int
    home: Path
    silent: FaultProxy
    environ: Mapping[str, str]
    log: Path

    def run(self, dag: str) -> None:
        """Run `airflow dags test` until every task has ended."""
        self.command("dags", "test", dag)

    def command(self, *words: str) -> None:
        """Run one Airflow command."""
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
        """Return the state and the number of tries of each task."""
        rows = self.rows(
            "select task_id, state, try_number from task_instance where dag_id = ?", dag
        )
        return {task: (state, tries) for task, state, tries in rows}

    def xcom(self, dag: str, task: str) -> Any:
        """Return the value that a task passed on."""
        ((value,),) = self.rows(
            "select value from xcom where dag_id = ? and task_id = ? and key = 'return_value'",
            dag,
            task,
        )
        return json.loads(value)

    def rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query of Airflow's database."""
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            return database.execute(query, values).fetchall()

    def log_of(self, task: str) -> str:
        """Return the log of one task."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return text[
            text.index(f"starting task_id={task} ") : text.index(f"end task task_id={task} ")
        ]


@pytest.fixture(scope="module")
def airflow(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """Yield Airflow and an instance whose integration 1 has the old manifest."""
    directory = tmp_path_factory.mktemp("airflow")
    with running_instance(directory / "instance") as instance:
        world = make_world(instance, artifacts / "manifest.json", directory / "shop")
        integration = world.integration("shop")
        (world.directory / "broken.json").write_text('{"metadata": {}', encoding="utf-8")
        with (
            fault_proxy(instance.url, At(PUT, act.stall)) as silent,
            fault_proxy("", listen_after_s=None) as dead,
        ):
            prepared = Airflow(
                world,
                integration,
                directory,
                silent,
                _environ(directory, world, silent, dead),
                directory / "log.txt",
            )
            _write_dags(directory / "dags", world)
            prepared.command("db", "migrate")
            yield prepared


def _write_dags(dags: Path, world: World) -> None:
    """Write the DAGs, including the documented recipe with this test's manifest and integration."""
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


def _environ(directory: Path, world: World, silent: FaultProxy, dead: FaultProxy) -> dict[str, str]:
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
        "AIRFLOW_HOME": str(directory),
        "AIRFLOW__CORE__DAGS_FOLDER": str(directory / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_DATAPILOT": json.dumps(connection),
        "SHOP_DIRECTORY": str(world.directory),
        "SILENT_URL": silent.url,
        "DEAD_URL": dead.url,
    }


def test_recipe_onboards_and_passes_on_result(airflow: Airflow) -> None:
    airflow.run("dbt_production")
    assert airflow.tasks("dbt_production") == {"onboard": ("success", 1)}, airflow.log.read_text(
        encoding="utf-8"
    )
    assert airflow.world.current_manifest(airflow.integration) == "new"
    result = airflow.xcom("dbt_production", "onboard")
    assert result["ok"] is True
    assert result["artifacts"][0]["path"] == str(airflow.world.new)
    airflow.world.put(airflow.integration, airflow.world.old)


@pytest.fixture(scope="module")
def failed_runs(airflow: Airflow) -> Airflow:
    """Return Airflow after a run in which each task fails."""
    airflow.run("faults")
    return airflow


def test_rejected_manifest_fails_without_retry(failed_runs: Airflow) -> None:
    assert failed_runs.tasks("faults")["rejected"] == ("failed", 1)
    assert "returned a non-zero exit code 1" in failed_runs.log_of("rejected")
    assert '"kind": "artifact_refused"' in failed_runs.log_of("rejected")


def test_unavailable_instance_is_retried(failed_runs: Airflow) -> None:
    assert failed_runs.tasks("faults")["unavailable"] == ("failed", 3)
    assert "nothing listens at" in failed_runs.log_of("unavailable")


def test_relative_path_error_names_temporary_directory(failed_runs: Airflow) -> None:
    assert failed_runs.tasks("faults")["relative"] == ("failed", 1)
    assert re.search(
        r"target\.json: no such file \(looked in \S*/airflowtmp", failed_runs.log_of("relative")
    )


def test_unchanged_artifact_skips_task(failed_runs: Airflow) -> None:
    assert failed_runs.tasks("faults")["unchanged"] == ("skipped", 1)


def test_killed_task_keeps_current_manifest(failed_runs: Airflow) -> None:
    assert failed_runs.tasks("faults")["killed"] == ("failed", 1)
    assert failed_runs.silent.count(PUT) == 1
    code = failed_runs.world.directory / "code"
    deadline = time.monotonic() + 30
    while not code.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert code.read_text(encoding="utf-8").strip() == "143"
    assert failed_runs.world.current_manifest(failed_runs.integration) == "old"


def test_token_is_not_in_logs_or_rendered_templates(failed_runs: Airflow) -> None:
    assert (
        "ALTIMATE_API_KEY"
        in failed_runs.rows(
            "select group_concat(rendered_fields) from rendered_task_instance_fields"
        )[0][0]
    )
    for path in failed_runs.home.rglob("*"):
        if path.is_file() and failed_runs.home / "instance" not in path.parents:
            assert failed_runs.world.instance.token.encode() not in path.read_bytes(), path
