"""`dbt onboard` with the run results beside a manifest, which reveal a failed dbt run."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Outcome, datapilot
from tests.support.dbt_project import Shop
from tests.support.protocol_server import ProtocolServer

pytestmark = pytest.mark.usefixtures("no_retry_delay")
FAILED_MODEL = "model.shop.orders"


@pytest.fixture
def target(artifacts: Path, tmp_path: Path) -> Path:
    """Return the target directory of a `dbt build` in which one model failed."""
    directory = tmp_path / "target"
    shutil.copytree(artifacts, directory)
    change(directory, status_of={FAILED_MODEL: "error"})
    return directory


def change(
    directory: Path,
    *,
    command: str = "build",
    status_of: dict[str, str] | None = None,
    **metadata: Any,
) -> None:
    """Change the command, the status of nodes and the metadata of the run results."""
    path = directory / "run_results.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["args"]["which"] = command
    document["metadata"].update(metadata)
    for result in document["results"]:
        result["status"] = (status_of or {}).get(result["unique_id"], "success")
    path.write_text(json.dumps(document), encoding="utf-8")


def onboard(server: ProtocolServer, directory: Path, *more: object, **env: str) -> Outcome:
    """Onboard the manifest of a directory to integration 7."""
    return datapilot(
        *("dbt", "onboard", "--integration-id", 7, "--manifest-path", directory / "manifest.json"),
        *("--json", *more),
        env={**server.access, **env},
    )


def expected_failure(directory: Path) -> str:
    return f"{directory / 'run_results.json'}: 1 of 28 nodes failed, first {FAILED_MODEL}"


def failure_warnings(done: Outcome) -> list[str]:
    return [warning for warning in done.json["warnings"] if "nodes failed" in warning]


def test_failed_run_is_onboarded_with_warning(hosted: ProtocolServer, target: Path) -> None:
    done = onboard(hosted, target)
    assert done.exit_code == 0, done.output
    assert f"Warning: {expected_failure(target)} (error)" in done.stderr
    assert len(failure_warnings(done)) == 1
    assert len(hosted.verified) == 1


def test_warning_is_annotation_in_ci(hosted: ProtocolServer, target: Path) -> None:
    done = onboard(hosted, target, GITHUB_ACTIONS="true")
    assert f"::warning title=datapilot::{expected_failure(target)}" in done.stderr


def test_require_success_rejects_failed_run(hosted: ProtocolServer, target: Path) -> None:
    by_option = onboard(hosted, target, "--require-success")
    by_variable = onboard(hosted, target, DATAPILOT_REQUIRE_SUCCESS="1")
    with_other_options = onboard(hosted, target, "--require-success", "--soft-fail", "--force")
    for done in (by_option, by_variable, with_other_options):
        assert done.exit_code == 1, done.output
        assert done.json["error"]["kind"] == "artifact_refused"
        assert expected_failure(target) in done.json["error"]["message"]
    assert hosted.requests == []


@pytest.mark.parametrize("status", ["error", "fail", "runtime error", "partial success"])
def test_these_statuses_are_failures(status: str, hosted: ProtocolServer, target: Path) -> None:
    change(target, status_of={FAILED_MODEL: status})
    assert onboard(hosted, target, "--require-success").exit_code == 1
    assert f"({status})" in onboard(hosted, target).stderr


@pytest.mark.parametrize("status", ["success", "pass", "warn", "skipped", "no-op", "reused"])
def test_these_statuses_are_not_failures(status: str, hosted: ProtocolServer, target: Path) -> None:
    change(target, status_of={FAILED_MODEL: status})
    done = onboard(hosted, target, "--require-success")
    assert done.exit_code == 0, done.output
    assert failure_warnings(done) == []


def manifest_time(directory: Path) -> datetime:
    document = json.loads((directory / "manifest.json").read_bytes())
    return datetime.fromisoformat(document["metadata"]["generated_at"])


def test_failed_build_before_dbt_parse_is_reported(hosted: ProtocolServer, target: Path) -> None:
    earlier = manifest_time(target) - timedelta(minutes=20)
    change(
        target,
        status_of={FAILED_MODEL: "error"},
        invocation_id="another",
        generated_at=earlier.isoformat(),
    )
    assert expected_failure(target) in onboard(hosted, target).stderr
    assert onboard(hosted, target, "--require-success").exit_code == 1


def test_results_of_earlier_build_do_not_prove_success(
    hosted: ProtocolServer, target: Path, tmp_path: Path
) -> None:
    earlier = manifest_time(target) - timedelta(minutes=20)
    change(target, invocation_id="another", generated_at=earlier.isoformat())
    path = target / "run_results.json"
    assert_unknown(onboard(hosted, target, "--require-success"), "different invocations of dbt")
    selected = onboard(hosted, target, "--require-success", "--run-results-path", path)
    assert_unknown(selected, "different invocations of dbt")
    assert onboard(hosted, target).exit_code == 0
    change(target, invocation_id=None)
    assert_unknown(onboard(hosted, target, "--require-success"), "different invocations of dbt")
    copy = tmp_path / "build.json"
    shutil.copy(path, copy)
    accepted = onboard(hosted, target, "--require-success", "--run-results-path", copy)
    assert accepted.exit_code == 0, accepted.output


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("test", "test"),
        ("seed", "seed"),
        ("snapshot", "snapshot"),
        ("clone", "clone"),
        ("compile", "compile"),
        ("freshness", "source freshness"),
        ("run-operation", "run-operation"),
        ("x\ny", "x y"),
    ],
)
def test_only_commands_that_build_models_prove_success(
    command: str, shown: str, hosted: ProtocolServer, target: Path
) -> None:
    change(target, command=command)
    assert_unknown(onboard(hosted, target, "--require-success"), f"is of `dbt {shown}`")
    for builds in ("build", "run", "retry"):
        change(target, command=builds)
        assert onboard(hosted, target, "--require-success").exit_code == 0
    change(target, command="")
    done = onboard(hosted, target, "--require-success")
    assert_unknown(done, "does not state which command of dbt wrote it")


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([], "no node was built"),
        ([{"unique_id": FAILED_MODEL, "status": "skipped"}], "no node was built"),
        ([{"unique_id": FAILED_MODEL, "status": "canceled"}], "the unknown status 'canceled'"),
        ([5], "the unknown status 'none'"),
    ],
)
def test_only_built_nodes_prove_success(
    results: list[Any], reason: str, hosted: ProtocolServer, target: Path
) -> None:
    change(target)
    path = target / "run_results.json"
    document = {**json.loads(path.read_bytes()), "results": results}
    path.write_text(json.dumps(document), encoding="utf-8")
    assert_unknown(onboard(hosted, target, "--require-success"), reason)
    assert failure_warnings(onboard(hosted, target)) == []


def test_old_run_results_are_ignored(hosted: ProtocolServer, target: Path) -> None:
    last_week = manifest_time(target) - timedelta(days=7)
    change(
        target,
        status_of={FAILED_MODEL: "error"},
        invocation_id="another",
        generated_at=last_week.isoformat(),
    )
    done = onboard(hosted, target)
    assert (done.exit_code, failure_warnings(done)) == (0, [])
    assert_unknown(onboard(hosted, target, "--require-success"), "7 d apart")


def assert_unknown(done: Outcome, reason: str) -> None:
    """Fail unless nothing was uploaded because the outcome of the run is not known."""
    assert done.exit_code == 1, done.output
    message = done.json["error"]["message"]
    assert "it is unknown whether the dbt run succeeded" in message
    assert reason in message
    assert "--run-results-path" in message


def test_run_results_of_another_project_are_ignored(hosted: ProtocolServer, target: Path) -> None:
    path = target / "run_results.json"
    path.write_text(path.read_text(encoding="utf-8").replace(".shop.", ".other."), encoding="utf-8")
    assert failure_warnings(onboard(hosted, target)) == []
    assert_unknown(onboard(hosted, target, "--require-success"), "is of another project")


def test_run_results_of_another_target_are_ignored(hosted: ProtocolServer, target: Path) -> None:
    change(target, status_of={FAILED_MODEL: "error"}, invocation_id="another")
    path = target / "run_results.json"
    text = path.read_text(encoding="utf-8").replace('\\"prod\\"', '\\"dev\\"')
    path.write_text(text, encoding="utf-8")
    assert failure_warnings(onboard(hosted, target)) == []
    assert_unknown(onboard(hosted, target, "--require-success"), "is of another target")


def test_docs_generate_does_not_hide_failed_build(
    hosted: ProtocolServer, target: Path, tmp_path: Path
) -> None:
    build_results = tmp_path / "build.json"
    build_results.write_bytes((target / "run_results.json").read_bytes())
    change(target, command="generate")
    assert failure_warnings(onboard(hosted, target)) == []
    assert_unknown(onboard(hosted, target, "--require-success"), "`dbt docs generate`")
    option = ("--run-results-path", build_results)
    assert f"{build_results}: 1 of 28 nodes failed" in onboard(hosted, target, *option).stderr
    assert onboard(hosted, target, *option, "--require-success").exit_code == 1
    change(target)
    build_results.write_bytes((target / "run_results.json").read_bytes())
    change(target, command="generate")
    done = onboard(hosted, target, *option, "--require-success")
    assert done.exit_code == 0, done.output


BROKEN = {
    "missing": None,
    "empty": b"",
    "a list": b"[]",
    "no results": b'{"results": null}',
    "results are a mapping": b'{"results": {"a": {"status": "error"}}}',
    "results are invalid": b'{"results": [{]}',
    "nested": b'{"results": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "truncated": b'{"metadata": {}, "results": [{"status": "error"',
}


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_run_results_are_ignored(name: str, hosted: ProtocolServer, target: Path) -> None:
    path = target / "run_results.json"
    content = BROKEN[name]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    done = onboard(hosted, target)
    assert (done.exit_code, failure_warnings(done)) == (0, [])
    assert_unknown(onboard(hosted, target, "--require-success"), str(path))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes with a path")
def test_pipe_beside_manifest_is_not_read(hosted: ProtocolServer, target: Path) -> None:
    path = target / "run_results.json"
    path.unlink()
    os.mkfifo(path)
    assert onboard(hosted, target).exit_code == 0
    assert_unknown(onboard(hosted, target, "--require-success"), "there is no")


def test_huge_file_beside_manifest_is_not_read(hosted: ProtocolServer, target: Path) -> None:
    with (target / "run_results.json").open("r+b") as file:
        file.truncate(5 * 1024**3)
    assert onboard(hosted, target).exit_code == 0
    assert_unknown(onboard(hosted, target, "--require-success"), "is larger than")


def test_results_with_unusual_values_are_read(hosted: ProtocolServer, target: Path) -> None:
    results = [5, None, {"status": 7}, {"unique_id": "model.a.b\n::error::x", "status": "error"}]
    document = json.loads((target / "run_results.json").read_bytes())
    document["results"] += results
    (target / "run_results.json").write_text(json.dumps(document), encoding="utf-8")
    done = onboard(hosted, target)
    assert "2 of 32 nodes failed" in done.stderr
    document["results"] = [results[-1], *document["results"], {"n": int("9" * 500)}]
    (target / "run_results.json").write_text(json.dumps(document), encoding="utf-8")
    done = onboard(hosted, target)
    assert "3 of 34 nodes failed, first model.a.b ::error::x (error)" in done.stderr


def test_docs_generate_without_compile_keeps_run_results(shop: Shop) -> None:
    model = shop.project / "models" / "broken.sql"
    model.write_text("select * from nowhere.nothing", encoding="utf-8")
    onboard = ("dbt", "onboard", "--integration-id", 7, "--project-dir", shop.project, "--dry-run")
    shop.run("build", "--target", "prod", "--select", "broken", "stg_orders", check=False)
    shop.run("docs", "generate", "--no-compile", "--target", "prod")
    failed = datapilot(*onboard, "--require-success")
    assert failed.exit_code == 1
    assert "nodes failed, first model.shop.broken (error)" in failed.stderr
    assert "nodes failed, first model.shop.broken (error)" in datapilot(*onboard).stderr
    shop.run("docs", "generate", "--target", "prod")
    hidden = datapilot(*onboard, "--require-success")
    assert hidden.exit_code == 1
    assert "is of `dbt docs generate`" in hidden.stderr
    model.unlink()
    shop.run("build", "--target", "prod", "--select", "stg_orders")
    built = datapilot(*onboard, "--require-success")
    assert built.exit_code == 0, built.output
    shop.run("docs", "generate", "--no-compile", "--target", "prod")
    documented = datapilot(*onboard, "--require-success")
    assert documented.exit_code == 0, documented.output
    unreachable = replace(shop, duckdb=shop.duckdb.parent / "missing" / shop.duckdb.name)
    unreachable.run("build", "--target", "prod", check=False)
    shop.run("docs", "generate", "--no-compile", "--target", "prod")
    unreachable_build = datapilot(*onboard, "--require-success")
    assert unreachable_build.exit_code == 1
    assert "come from different invocations of dbt" in unreachable_build.stderr
