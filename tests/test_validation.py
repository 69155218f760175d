"""Validation of small artifacts, which accepts good ones and describes the problems of bad ones.

Files in artifacts/good and artifacts/bad are found automatically. The name of a bad file states its
fault, and bad.json has the expected messages.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datapilot_defer.artifact import Artifact, Kind, parse_artifact, read_artifact
from datapilot_defer.errors import UsageError
from datapilot_defer.validation import Problem, ValidationOptions, ValidationResult, validate

ARTIFACTS = Path(__file__).parent / "artifacts"
GOOD = sorted((ARTIFACTS / "good").glob("*.json"))
BAD = sorted((ARTIFACTS / "bad").glob("*.json"))
EXPECTED_MESSAGES: dict[str, list[str]] = json.loads(
    (ARTIFACTS / "bad.json").read_text(encoding="utf-8")
)
ORDERS = "model.warehouse.orders"
CORE = ("1.8", "1.9", "1.10", "1.11", "1.12")
STRICT = ValidationOptions(strict=True)
Change = Callable[[dict[str, Any]], object]


def manifest(change: Change = lambda _: None, name: str = "manifest of dbt 1.11") -> Artifact:
    """Return one of the good manifests with a change."""
    document = json.loads((ARTIFACTS / "good" / f"{name}.json").read_text(encoding="utf-8"))
    change(document)
    return parse_artifact(
        json.dumps(document).encode(), path="target/manifest.json", kind=Kind.MANIFEST
    )


def problem_lines(verdict: ValidationResult) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in verdict.problems]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_artifact_is_accepted(path: Path) -> None:
    verdict = validate(read_artifact(path, kind=None))
    assert verdict.is_accepted, verdict.format_problems()


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_artifact_is_rejected_with_expected_messages(path: Path) -> None:
    verdict = validate(read_artifact(path))
    assert not verdict.is_accepted
    lines = [line.removeprefix(f"{path}::") for line in verdict.format_problems()]
    assert lines == EXPECTED_MESSAGES.get(path.stem), (
        f"if these messages are correct, add them to bad.json: {json.dumps(lines)}"
    )


def test_expected_messages_belong_to_existing_files() -> None:
    assert sorted(EXPECTED_MESSAGES) == sorted(path.stem for path in BAD)


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
def test_result_lists_dbt_versions_that_can_read_manifest(
    name: str, readers: tuple[str, ...]
) -> None:
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
def test_manifest_unreadable_by_requested_dbt_is_rejected(
    name: str, version: str, accepted: bool
) -> None:
    assert (
        validate(manifest(name=name), ValidationOptions(readable_by=version)).is_accepted
        is accepted
    )


def test_readable_by_problem_names_node() -> None:
    verdict = validate(
        manifest(name="manifest of dbt 2 with nulls"), ValidationOptions(readable_by="1.11")
    )
    assert verdict.format_problems() == [
        'target/manifest.json::$.nodes["model.warehouse.orders"].config.meta: '
        "expected an object, got null: "
        "dbt 2.x wrote it, and dbt 1.11 cannot read it (models/marts/orders.sql)"
    ]
    verdict = validate(manifest(), ValidationOptions(readable_by="1.5"))
    assert problem_lines(verdict) == [
        "$.metadata.dbt_schema_version: dbt 1.5 cannot read schema version 12, "
        "but dbt 1.8 and later can"
    ]


def test_rejected_manifest_has_no_second_problem_for_readable_by() -> None:
    broken = manifest(lambda document: document["nodes"][ORDERS].pop("checksum"))
    assert len(validate(broken, ValidationOptions(readable_by="1.11")).problems) == 1


@pytest.mark.parametrize("version", ["latest", "", "1,11", "one"])
def test_invalid_readable_by_is_usage_error(version: str) -> None:
    with pytest.raises(UsageError, match=r"such as 1\.11 or 2"):
        validate(manifest(), ValidationOptions(readable_by=version or " "))


def test_other_kinds_have_no_readable_by() -> None:
    verdict = validate(
        read_artifact(ARTIFACTS / "good" / "catalog.json", None),
        ValidationOptions(readable_by="1.11"),
    )
    assert (verdict.is_accepted, verdict.readable_by) == (True, ())


def test_values_outside_published_schema_are_drift() -> None:
    verdict = validate(manifest(name="manifest with unknown properties and a new language"))
    assert [warning.split(" from the schema")[0] for warning in verdict.drift[:2]] == [
        "1 entry of nodes differs",
        "1 entry of macros differs",
    ]
    assert "dbt-adapters" in verdict.drift[2]


def test_strict_applies_published_schema() -> None:
    verdict = validate(manifest(name="manifest with unknown properties and a new language"), STRICT)
    assert problem_lines(verdict) == [
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
def test_strict_rejects_version_without_schema(name: str) -> None:
    problems = problem_lines(validate(manifest(name=name), STRICT))
    assert problems[-1].startswith(
        "$.metadata.dbt_schema_version: --strict needs the published schema"
    )


def test_schema_of_writing_release_is_used() -> None:
    def set_dbt_1_8(document: dict[str, Any]) -> None:
        document["metadata"]["dbt_version"] = "1.8.9"

    problems = problem_lines(validate(manifest(set_dbt_1_8), STRICT))
    assert '$: the schema does not allow "functions"' in problems
    assert validate(manifest(set_dbt_1_8)).is_accepted


def test_future_version_is_accepted_with_warning_if_plausible() -> None:
    verdict = validate(manifest(name="manifest of a schema version to come"))
    assert verdict.warnings == (
        "schema version 13 is newer than this program, so only its outline was checked",
    )

    def remove_ids(document: dict[str, Any]) -> None:
        for node in document["nodes"].values():
            del node["unique_id"]

    broken = manifest(remove_ids, name="manifest of a schema version to come")
    assert problem_lines(validate(broken)) == [
        '$.nodes["model.warehouse.customers"]: "unique_id" is missing',
        '$.nodes["model.warehouse.orders"]: "unique_id" is missing',
    ]


def test_broken_manifest_of_dbt_2_is_rejected() -> None:
    broken = manifest(
        lambda document: document["nodes"][ORDERS].update(config=5),
        name="manifest of dbt 2 with nulls",
    )
    verdict = validate(broken)
    assert problem_lines(verdict) == [
        '$.nodes["model.warehouse.orders"].config: expected an object or null, got 5'
    ]
    assert verdict.readable_by == ()


def manifest_with_broken_nodes(count: int, node: Any) -> Artifact:
    """Return a manifest with this number of equal broken nodes."""

    def change(document: dict[str, Any]) -> None:
        document["nodes"] = {f"model.warehouse.m{number}": node for number in range(count)}

    return manifest(change)


def test_ten_problems_are_shown_and_others_counted() -> None:
    verdict = validate(manifest_with_broken_nodes(30, {"resource_type": "model"}))
    assert len(verdict.problems) == 10
    assert verdict.format_problems()[-1] == f"… and {verdict.hidden_problems:,} more"
    assert (
        len(
            validate(
                manifest_with_broken_nodes(30, {"resource_type": "model"}), max_problems=None
            ).problems
        )
        == 10 + verdict.hidden_problems
    )


def test_search_for_problems_stops_after_limit() -> None:
    verdict = validate(manifest_with_broken_nodes(50_000, None))
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


def test_problem_names_file_of_disabled_node() -> None:
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


def test_last_repeated_key_is_validated() -> None:
    good = manifest().content.decode()
    wrong_last = good.replace(
        '}, "parent_map"', ', "model.warehouse.orders": null}, "parent_map"', 1
    )
    assert wrong_last != good
    verdict = validate(parse_artifact(wrong_last.encode(), path="x", kind=Kind.MANIFEST))
    assert problem_lines(verdict) == [
        '$.nodes["model.warehouse.orders"]: expected an object, got null'
    ]


@pytest.mark.parametrize("depth", [100, 300, 700])
def test_unrestricted_value_may_be_nested(depth: int) -> None:
    def change(document: dict[str, Any]) -> None:
        document["nodes"][ORDERS]["config"]["meta"] = json.loads(
            '{"a":' * depth + "1" + "}" * depth
        )

    assert validate(manifest(change)).is_accepted


def test_ephemeral_model_needs_no_relation() -> None:
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
def test_other_kinds_are_validated_by_their_schemas(
    kind: str, change: dict[str, Any], words: str
) -> None:
    document = json.loads((ARTIFACTS / "good" / f"{kind}.json").read_text(encoding="utf-8"))
    content = json.dumps({**document, **change}).encode()
    assert problem_lines(validate(parse_artifact(content, path="x", kind=Kind(kind))))[
        0
    ].startswith(words)


def artifact_of_version(kind: str, version: int, **change: Any) -> Artifact:
    document = json.loads((ARTIFACTS / "good" / f"{kind}.json").read_text(encoding="utf-8"))
    name = kind.replace("_", "-")
    document["metadata"]["dbt_schema_version"] = (
        f"https://schemas.getdbt.com/dbt/{name}/v{version}.json"
    )
    return parse_artifact(json.dumps({**document, **change}).encode(), path="x", kind=Kind(kind))


def test_other_kind_of_unknown_version_is_checked_partly() -> None:
    verdict = validate(artifact_of_version("run_results", 9))
    assert verdict.is_accepted
    assert "newer than this program" in verdict.warnings[0]
    assert not validate(artifact_of_version("run_results", 9), STRICT).is_accepted
    assert "before 1.0" in problem_lines(validate(artifact_of_version("run_results", 3)))[0]


def test_drift_of_other_kind_is_warning_and_rejected_by_strict() -> None:
    drifted = artifact_of_version(
        "sources", 3, results=[{"unique_id": "source.a.b.c", "error": None, "status": "new status"}]
    )
    assert validate(drifted).is_accepted
    assert "results" in validate(drifted).drift[0]
    assert not validate(drifted, STRICT).is_accepted


@pytest.mark.parametrize("kind", ["catalog", "run_results", "sources", "semantic_manifest"])
def test_other_artifact_named_manifest_is_identified(kind: str) -> None:
    content = (ARTIFACTS / "good" / f"{kind}.json").read_bytes()
    verdict = validate(parse_artifact(content, path="manifest.json", kind=Kind.MANIFEST))
    assert problem_lines(verdict) == [f"$: is a {kind}.json, not a manifest.json"]


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
def test_other_files_named_manifest_are_identified(document: dict[str, Any], words: str) -> None:
    verdict = validate(
        parse_artifact(json.dumps(document).encode(), path="manifest.json", kind=Kind.MANIFEST)
    )
    assert len(verdict.problems) == 1
    assert words in verdict.problems[0].message


@pytest.mark.parametrize(
    "value", [5, [], {"model.warehouse.gone": 5}, {"model.warehouse.gone": [5]}]
)
def test_strict_validates_nullable_sections(value: Any) -> None:
    problems = problem_lines(
        validate(manifest(lambda document: document.update(disabled=value)), STRICT)
    )
    assert problems[0].startswith("$.disabled")
    assert validate(manifest(lambda document: document.update(disabled=None)), STRICT).is_accepted


def test_limit_of_problems_does_not_hide_unreadable_node() -> None:
    def change(document: dict[str, Any]) -> None:
        node = document["nodes"][ORDERS]
        nodes = {f"model.warehouse.m{number}": node for number in range(1500)}
        document["nodes"] = {**nodes, "model.warehouse.last": {**node, "config": None}}

    verdict = validate(manifest(change))
    assert verdict.readable_by == ()
    assert verdict.is_truncated


def test_problem_lines_are_printable() -> None:
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
