"""The command `datapilot dbt validate` and its text, JSON and CI output."""

import json
from pathlib import Path

import pytest

from tests.support.commands import datapilot

GOOD = Path(__file__).parent / "artifacts" / "good"
BAD = Path(__file__).parent / "artifacts" / "bad"
MANIFEST = GOOD / "manifest of dbt 1.11.json"
FUSION = GOOD / "manifest of dbt 2 with nulls.json"
BROKEN = BAD / "meta null.json"


def test_accepted_file_is_described_on_one_line() -> None:
    outcome = datapilot("dbt", "validate", MANIFEST)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    assert outcome.stdout == (
        f"{MANIFEST}: accepted: manifest of dbt 1.11.16, schema version 12, 2 nodes, "
        "for dbt 1.8 and later\n"
    )


def test_rejected_file_sets_exit_code_1_after_all_files() -> None:
    outcome = datapilot("dbt", "validate", BROKEN, GOOD / "catalog.json")
    assert outcome.exit_code == 1
    assert outcome.stdout.splitlines() == [
        f'{BROKEN}::$.nodes["model.warehouse.orders"].config.meta: expected an object, got null '
        "(models/marts/orders.sql)",
        f"{BROKEN}: rejected",
        f"{GOOD / 'catalog.json'}: accepted: catalog of dbt 1.11.16, schema version 1",
    ]


def test_artifact_without_metadata_is_described_by_kind() -> None:
    path = GOOD / "semantic_manifest.json"
    assert datapilot("dbt", "validate", path).stdout == f"{path}: accepted: semantic_manifest\n"


def test_json_has_the_verdict_of_each_file() -> None:
    outcome = datapilot("dbt", "validate", MANIFEST, BROKEN, FUSION, "--json")
    assert outcome.exit_code == 1
    accepted, rejected, fusion = outcome.json["files"]
    assert accepted == {
        "path": str(MANIFEST),
        "kind": "manifest",
        "verdict": "accepted",
        "schema_version": 12,
        "dbt_version": "1.11.16",
        "readable_by": ["1.8", "1.9", "1.10", "1.11", "1.12", "2"],
        "problems": [],
        "more_problems": 0,
        "warnings": 0,
        "size_bytes": MANIFEST.stat().st_size,
        "sha256": accepted["sha256"],
    }
    assert rejected["verdict"] == "refused"
    assert rejected["problems"] == [
        {
            "path": '$.nodes["model.warehouse.orders"].config.meta',
            "message": "expected an object, got null",
            "file": "models/marts/orders.sql",
        }
    ]
    assert (fusion["verdict"], fusion["readable_by"], fusion["warnings"]) == ("accepted", ["2"], 1)


def test_warnings_are_on_stderr_and_do_not_reject() -> None:
    outcome = datapilot("dbt", "validate", FUSION)
    assert outcome.exit_code == 0
    assert "Warning: " in outcome.stderr
    assert "only dbt 2.x can defer to it" in outcome.stderr


@pytest.mark.parametrize("from_environment", [False, True])
def test_readable_by_option_and_variable(from_environment: bool) -> None:
    options = () if from_environment else ("--readable-by", "1.11")
    env = {"DATAPILOT_READABLE_BY": "1.11"} if from_environment else {}
    outcome = datapilot("dbt", "validate", FUSION, *options, env=env)
    assert outcome.exit_code == 1
    assert "dbt 2.x wrote it, and dbt 1.11 cannot read it" in outcome.stdout


def test_invalid_readable_by_is_usage_error() -> None:
    outcome = datapilot("dbt", "validate", MANIFEST, "--readable-by", "newest")
    assert outcome.exit_code == 2
    assert "'newest' is not a version of dbt" in outcome.stderr


def test_strict_rejects_values_outside_published_schema() -> None:
    path = GOOD / "manifest with unknown properties and a new language.json"
    assert datapilot("dbt", "validate", path).exit_code == 0
    outcome = datapilot("dbt", "validate", path, "--strict")
    assert outcome.exit_code == 1
    assert 'the schema does not allow "something_new"' in outcome.stdout


def test_kind_option_rejects_other_kind() -> None:
    outcome = datapilot("dbt", "validate", GOOD / "run_results.json", "--kind", "manifest")
    assert outcome.exit_code == 1
    assert "is a run_results.json, not a manifest.json" in outcome.stdout


def test_ten_problems_are_listed_without_verbose(tmp_path: Path) -> None:
    document = json.loads(MANIFEST.read_text(encoding="utf-8"))
    document["nodes"] = {f"model.warehouse.m{number}": None for number in range(25)}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    short = datapilot("dbt", "validate", path).stdout.splitlines()
    assert len(short) == 12
    assert short[10] == "… and 16 more"
    assert len(datapilot("dbt", "validate", path, "-v").stdout.splitlines()) == 27


def test_missing_file_is_usage_error(tmp_path: Path) -> None:
    outcome = datapilot("dbt", "validate", tmp_path / "manifest.json", "--json")
    assert outcome.exit_code == 2
    assert outcome.json["error"]["kind"] == "usage_error"


def test_missing_argument_is_usage_error() -> None:
    assert datapilot("dbt", "validate").exit_code == 2


def test_log_format_json_applies_on_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    done = datapilot("dbt", "validate", tmp_path / "bad.json", "--log-format", "json")
    assert done.exit_code == 1
    for line in done.stderr.splitlines():
        assert line.startswith("{")


def test_github_annotation_and_summary_have_rejected_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "shop" / "models" / "marts" / "orders.sql"
    source.parent.mkdir(parents=True)
    source.write_text("select 1", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "shop")
    env = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }
    plain = datapilot("dbt", "validate", BROKEN, MANIFEST)
    outcome = datapilot("dbt", "validate", BROKEN, MANIFEST, env=env)
    assert (outcome.exit_code, outcome.stdout) == (1, plain.stdout)
    assert outcome.stderr == (
        "::error file=shop/models/marts/orders.sql,title=datapilot::"
        + "%0A".join(plain.stdout.splitlines()[:2])
        + "\n"
    )
    summary = (tmp_path / "summary").read_text(encoding="utf-8")
    assert summary == f"### datapilot dbt validate: rejected\n\n```text\n{plain.stdout}```\n\n"
    (tmp_path / "summary").unlink()
    assert datapilot("dbt", "validate", MANIFEST, env=env).stderr == ""
    assert not (tmp_path / "summary").exists()


def test_json_ok_states_whether_every_file_is_accepted() -> None:
    assert datapilot("dbt", "validate", MANIFEST, "--json").json["ok"] is True
    assert datapilot("dbt", "validate", MANIFEST, BROKEN, "--json").json["ok"] is False
