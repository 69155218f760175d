"""Small artifacts of our own: good ones are accepted, bad ones rejected with helpful messages.

Files in artifacts/good and artifacts/bad are found automatically. The name of a bad one states its
fault, and bad.json holds its messages.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datapilot_defer.artifact import Artifact, Kind, parse_artifact, read_artifact
from datapilot_defer.errors import UsageError
from datapilot_defer.validation import Problem, ValidationOptions, ValidationResult, validate

FOLDER = Path(__file__).parent / "artifacts"
GOOD = sorted((FOLDER / "good").glob("*.json"))
BAD = sorted((FOLDER / "bad").glob("*.json"))
SAID: dict[str, list[str]] = json.loads((FOLDER / "bad.json").read_text(encoding="utf-8"))
ORDERS = "model.warehouse.orders"
CORE = ("1.8", "1.9", "1.10", "1.11", "1.12")
STRICT = ValidationOptions(strict=True)
Change = Callable[[dict[str, Any]], object]


def manifest(change: Change = lambda _: None, name: str = "manifest of dbt 1.11") -> Artifact:
    """Return one of the good manifests, changed."""
    document = json.loads((FOLDER / "good" / f"{name}.json").read_text(encoding="utf-8"))
    change(document)
    return parse_artifact(
        json.dumps(document).encode(), path="target/manifest.json", kind=Kind.MANIFEST
    )


def said(verdict: ValidationResult) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in verdict.problems]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_artifact_is_accepted(path: Path) -> None:
    verdict = validate(read_artifact(path, kind=None))
    assert verdict.is_accepted, verdict.format_problems()


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_artifact_is_refused_in_these_words(path: Path) -> None:
    verdict = validate(read_artifact(path))
    assert not verdict.is_accepted
    lines = [line.removeprefix(f"{path}::") for line in verdict.format_problems()]
    assert lines == SAID.get(path.stem), (
        f"if these words are right, they belong in bad.json: {json.dumps(lines)}"
    )


def test_nothing_is_said_about_files_that_are_gone() -> None:
    assert sorted(SAID) == sorted(path.stem for path in BAD)


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("manifest of dbt 1.11", (*CORE, "2")),
        ("manifest of the dbt platform", (*CORE, "2")),
        ("manifest of dbt 1.0", ("1.0", *(f"1.{minor}" for minor in range(2, 13)))),
        ("manifest of dbt 2 with nulls", ("2",)),
        ("manifest of schema version 20", ("2",)),
        ("manifest of a schema version to come", ()),
    ],
)
def test_the_verdict_says_which_dbt_can_read_it(name: str, readers: tuple[str, ...]) -> None:
    assert validate(manifest(name=name)).readable_by == readers


@pytest.mark.parametrize(
    ("name", "version", "accepted"),
    [
        ("manifest of dbt 1.11", "1.11", True),
        ("manifest of dbt 1.11", "1.11.16", True),
        ("manifest of dbt 1.11", "v1.8.0rc1", True),
        ("manifest of dbt 1.11", "1", True),
        ("manifest of dbt 1.11", "1.99", True),
        ("manifest of dbt 1.11", "2.0.0-preview.89", True),
        ("manifest of dbt 1.11", "1.7", False),
        ("manifest of dbt 1.11", "3", False),
        ("manifest of dbt 1.0", "2", False),
        ("manifest of dbt 2 with nulls", "2", True),
        ("manifest of dbt 2 with nulls", "1.11", False),
        ("manifest of schema version 20", "1", False),
        ("manifest of a schema version to come", "1.11", False),
    ],
)
def test_a_manifest_that_the_wanted_dbt_cannot_read_is_refused(
    name: str, version: str, accepted: bool
) -> None:
    assert (
        validate(manifest(name=name), ValidationOptions(readable_by=version)).is_accepted
        is accepted
    )


def test_the_refusal_for_a_reader_names_the_node_that_stops_it() -> None:
    verdict = validate(
        manifest(name="manifest of dbt 2 with nulls"), ValidationOptions(readable_by="1.11")
    )
    assert verdict.format_problems() == [
        'target/manifest.json::$.nodes["model.warehouse.orders"].config.meta: '
        "expected an object, got null: "
        "dbt 2.x wrote it, and dbt 1.11 cannot read it (models/marts/orders.sql)"
    ]
    verdict = validate(manifest(), ValidationOptions(readable_by="1.5"))
    assert said(verdict) == [
        "$.metadata.dbt_schema_version: dbt 1.5 cannot read schema version 12, "
        "but dbt 1.8 and later can"
    ]


def test_a_refused_manifest_is_not_refused_once_more_for_its_readers() -> None:
    broken = manifest(lambda document: document["nodes"][ORDERS].pop("checksum"))
    assert len(validate(broken, ValidationOptions(readable_by="1.11")).problems) == 1


@pytest.mark.parametrize("version", ["latest", "", "1,11", "one"])
def test_a_reader_that_is_no_version_is_a_usage_error(version: str) -> None:
    with pytest.raises(UsageError, match=r"such as 1\.11 or 2"):
        validate(manifest(), ValidationOptions(readable_by=version or " "))


def test_other_kinds_have_no_readers() -> None:
    verdict = validate(
        read_artifact(FOLDER / "good" / "catalog.json", None), ValidationOptions(readable_by="1.11")
    )
    assert (verdict.is_accepted, verdict.readable_by) == (True, ())


def test_what_dbt_reads_and_did_not_publish_is_drift_and_counted_with_the_warnings() -> None:
    verdict = validate(manifest(name="manifest with unknown properties and a new language"))
    assert [warning.split(" from the schema")[0] for warning in verdict.drift[:2]] == [
        "1 entry of nodes differs",
        "1 entry of macros differs",
    ]
    assert "dbt-adapters" in verdict.drift[2]


def test_strict_holds_a_manifest_to_the_published_schema() -> None:
    verdict = validate(manifest(name="manifest with unknown properties and a new language"), STRICT)
    assert said(verdict) == [
        '$: the schema does not allow "something_new"',
        '$.nodes["model.warehouse.orders"]: the schema does not allow "something_new"',
        '$.macros["macro.warehouse.cents"].supported_languages[1]: '
        'expected one of python, sql, got "javascript"',
    ]
    assert verdict.readable_by == (*CORE, "2")
    assert validate(manifest(), STRICT).is_accepted


@pytest.mark.parametrize(
    "name", ["manifest of schema version 20", "manifest of a schema version to come"]
)
def test_strict_refuses_a_version_whose_schema_is_not_known(name: str) -> None:
    problems = said(validate(manifest(name=name), STRICT))
    assert problems[-1].startswith(
        "$.metadata.dbt_schema_version: --strict needs the published schema"
    )


def test_the_schema_of_the_writing_release_is_taken() -> None:
    def by_dbt_1_8(document: dict[str, Any]) -> None:
        document["metadata"]["dbt_version"] = "1.8.9"

    problems = said(validate(manifest(by_dbt_1_8), STRICT))
    assert '$: the schema does not allow "functions"' in problems
    assert validate(manifest(by_dbt_1_8)).is_accepted


def test_a_version_to_come_is_accepted_with_a_warning_when_it_makes_sense() -> None:
    verdict = validate(manifest(name="manifest of a schema version to come"))
    assert verdict.warnings == (
        "schema version 13 is newer than this program, so only its outline was checked",
    )

    def without_ids(document: dict[str, Any]) -> None:
        for node in document["nodes"].values():
            del node["unique_id"]

    broken = manifest(without_ids, name="manifest of a schema version to come")
    assert said(validate(broken)) == [
        '$.nodes["model.warehouse.customers"]: "unique_id" is missing',
        '$.nodes["model.warehouse.orders"]: "unique_id" is missing',
    ]


def test_a_broken_manifest_of_dbt_2_is_refused() -> None:
    broken = manifest(
        lambda document: document["nodes"][ORDERS].update(config=5),
        name="manifest of dbt 2 with nulls",
    )
    verdict = validate(broken)
    assert said(verdict) == [
        '$.nodes["model.warehouse.orders"].config: expected an object or null, got 5'
    ]
    assert verdict.readable_by == ()


def many(count: int, node: Any) -> Artifact:
    """Return a manifest with many broken nodes."""

    def change(document: dict[str, Any]) -> None:
        document["nodes"] = {f"model.warehouse.m{number}": node for number in range(count)}

    return manifest(change)


def test_ten_problems_are_shown_and_the_others_counted() -> None:
    verdict = validate(many(30, {"resource_type": "model"}))
    assert len(verdict.problems) == 10
    assert verdict.format_problems()[-1] == f"… and {verdict.hidden_problems:,} more"
    assert (
        len(validate(many(30, {"resource_type": "model"}), max_problems=None).problems)
        == 10 + verdict.hidden_problems
    )


def test_looking_stops_where_more_problems_help_nobody() -> None:
    verdict = validate(many(50_000, None))
    assert verdict.format_problems()[-1] == "… and at least 990 more"


def test_one_broken_node_does_not_hide_another() -> None:
    def change(document: dict[str, Any]) -> None:
        document["nodes"][ORDERS]["tags"] = dict.fromkeys(range(5000), 1)
        document["nodes"][ORDERS]["columns"] = dict.fromkeys(
            (f"c{number}" for number in range(5000)), 5
        )
        document["nodes"]["model.warehouse.customers"]["checksum"] = None

    verdict = validate(manifest(change), max_problems=None)
    assert len(verdict.problems) == 21
    assert verdict.problems[0].path == '$.nodes["model.warehouse.customers"].checksum'


def test_a_problem_names_the_file_of_a_disabled_node_too() -> None:
    def change(document: dict[str, Any]) -> None:
        node = document["nodes"].pop(ORDERS)
        document["disabled"] = {ORDERS: [{**node, "tags": 5, "config": None}]}

    problems = validate(manifest(change)).problems
    assert (
        Problem(
            '$.disabled["model.warehouse.orders"][0].config',
            "expected an object, got null",
            "models/marts/orders.sql",
        )
        in problems
    )


def test_the_last_of_two_equal_keys_counts_as_for_dbt() -> None:
    good = manifest().content.decode()
    wrong_last = good.replace(
        '}, "parent_map"', ', "model.warehouse.orders": null}, "parent_map"', 1
    )
    assert wrong_last != good
    verdict = validate(parse_artifact(wrong_last.encode(), path="x", kind=Kind.MANIFEST))
    assert said(verdict) == ['$.nodes["model.warehouse.orders"]: expected an object, got null']


@pytest.mark.parametrize("depth", [100, 300, 700])
def test_a_value_that_may_be_anything_may_be_nested(depth: int) -> None:
    def change(document: dict[str, Any]) -> None:
        document["nodes"][ORDERS]["config"]["meta"] = json.loads(
            '{"a":' * depth + "1" + "}" * depth
        )

    assert validate(manifest(change)).is_accepted


def test_an_ephemeral_model_needs_no_relation() -> None:
    def change(document: dict[str, Any]) -> None:
        node = document["nodes"][ORDERS]
        node["config"]["materialized"], node["schema"] = "ephemeral", ""

    assert validate(manifest(change)).is_accepted


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("catalog", {"nodes": {"model.x.y": {}}}, '$.nodes["model.x.y"]: "metadata" is missing'),
        ("run_results", {"results": [{"status": "success"}]}, '$.results[0]: "timing" is missing'),
        ("run_results", {"results": None}, "$.results: expected a list, got null"),
        ("sources", {"results": {}}, "$.results: expected a list, got an empty object"),
        ("semantic_manifest", {"metrics": None}, "$.metrics: expected a list, got null"),
        (
            "catalog",
            {"metadata": {}},
            "$.metadata.dbt_schema_version: expected https://schemas.getdbt.com/dbt/catalog/",
        ),
    ],
)
def test_the_other_kinds_are_held_to_their_schemas(
    kind: str, change: dict[str, Any], words: str
) -> None:
    document = json.loads((FOLDER / "good" / f"{kind}.json").read_text(encoding="utf-8"))
    content = json.dumps({**document, **change}).encode()
    assert said(validate(parse_artifact(content, path="x", kind=Kind(kind))))[0].startswith(words)


def other(kind: str, version: int, **change: Any) -> Artifact:
    document = json.loads((FOLDER / "good" / f"{kind}.json").read_text(encoding="utf-8"))
    name = kind.replace("_", "-")
    document["metadata"]["dbt_schema_version"] = (
        f"https://schemas.getdbt.com/dbt/{name}/v{version}.json"
    )
    return parse_artifact(json.dumps({**document, **change}).encode(), path="x", kind=Kind(kind))


def test_another_kind_of_an_unknown_version_is_checked_in_outline() -> None:
    verdict = validate(other("run_results", 9))
    assert verdict.is_accepted
    assert "newer than this program" in verdict.warnings[0]
    assert not validate(other("run_results", 9), STRICT).is_accepted
    assert "before 1.0" in said(validate(other("run_results", 3)))[0]


def test_drift_of_another_kind_is_a_warning_and_strict_refuses_it() -> None:
    drifted = other(
        "sources", 3, results=[{"unique_id": "source.a.b.c", "error": None, "status": "new status"}]
    )
    assert validate(drifted).is_accepted
    assert "results" in validate(drifted).drift[0]
    assert not validate(drifted, STRICT).is_accepted


@pytest.mark.parametrize("kind", ["catalog", "run_results", "sources", "semantic_manifest"])
def test_another_artifact_under_the_manifests_name_is_told_by_its_own(kind: str) -> None:
    content = (FOLDER / "good" / f"{kind}.json").read_bytes()
    verdict = validate(parse_artifact(content, path="manifest.json", kind=Kind.MANIFEST))
    assert said(verdict) == [f"$: is a {kind}.json, not a manifest.json"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"src/main.ts": {"file": "main.js"}}, "Vite's manifest"),
        ({"/js/app.js": "/js/app.js"}, "Laravel Mix's manifest"),
        ({"short_name": "App", "icons": []}, "a web app's manifest"),
        ({"manifest_version": 3, "name": "x", "version": "1"}, "a browser extension's manifest"),
        ({"manifest_version": "0.4", "name": "x", "server": {}}, "an MCP bundle"),
        ({"id": "x", "minAppVersion": "1"}, "an Obsidian plugin's manifest"),
        ({"$schema": "x", "type": "object", "properties": {}}, "a JSON schema"),
        (
            {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5},
            "a JSON object with one, two, three, four …",
        ),
    ],
)
def test_files_that_share_dbts_file_name_are_told_apart(
    document: dict[str, Any], words: str
) -> None:
    verdict = validate(
        parse_artifact(json.dumps(document).encode(), path="manifest.json", kind=Kind.MANIFEST)
    )
    assert len(verdict.problems) == 1
    assert words in verdict.problems[0].message


@pytest.mark.parametrize(
    "value", [5, [], {"model.warehouse.gone": 5}, {"model.warehouse.gone": [5]}]
)
def test_strict_looks_into_sections_that_may_be_null(value: Any) -> None:
    problems = said(validate(manifest(lambda document: document.update(disabled=value)), STRICT))
    assert problems[0].startswith("$.disabled")
    assert validate(manifest(lambda document: document.update(disabled=None)), STRICT).is_accepted


def test_uselessness_alone_does_not_stop_the_question_whether_dbt_reads_it() -> None:
    def change(document: dict[str, Any]) -> None:
        node = document["nodes"][ORDERS]
        made = {f"model.warehouse.m{number}": node for number in range(1500)}
        document["nodes"] = {**made, "model.warehouse.last": {**node, "config": None}}

    verdict = validate(manifest(change))
    assert verdict.readable_by == ()
    assert verdict.is_truncated


def test_nothing_in_a_manifest_can_command_a_terminal() -> None:
    def change(document: dict[str, Any]) -> None:
        node = document["nodes"].pop(ORDERS)
        node |= {
            "original_file_path": "models/\x1b[2J.sql",
            "unique_id": "\x9b31m",
            "resource_type": "\x1b]0;x\x07",
        }
        document["nodes"]["model.\x1b[31m"] = node

    for line in validate(manifest(change)).format_problems():
        assert line.isprintable()
