"""JSON schemas in docs/json for the output of every command with --json.

`tests.support.json_contract.check_output` validates the output in all other tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from datapilot_defer.formatting import utc_timestamp
from tests.support.commands import access, create_integration, datapilot
from tests.support.instances import RunningInstance
from tests.support.json_contract import ERROR, EXEMPT, LEAVES, SCHEMAS, find_problems, schema_name
from tests.support.protocol_server import INTEGRATION, ProtocolServer, Reply

FILES = sorted(SCHEMAS.glob("*.json"))
PAGE = (SCHEMAS / "README.md").read_text(encoding="utf-8")
UPLOAD = {"dbt_core_integration_file_id": 3, "file_type": "manifest"}
# Values that an instance may send in place of any value.
ODD_VALUES: list[object] = [None, 7, "a text", True, 1.5, [], {}, ["x"], [None], [{}], {"x": 1}]
ODD_FIELDS = [
    *("id", "name", "environments", "environment", "created_at", "last_file_upload_time"),
    *("integration_type", "project_name", "disabled_checks", "sync_history", "history"),
    *("publications", "a field of a later release"),
]

each_schema = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read_schema(file: Path) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


def objects_of(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield each part of a schema that describes an object."""
    if isinstance(schema, list):
        for part in schema:
            yield from objects_of(part)
    if not isinstance(schema, dict):
        return
    if "properties" in schema:
        yield schema
    for part in schema.values():
        yield from objects_of(part)


def test_commands_and_schemas_match() -> None:
    commands = {schema_name(dotted) for dotted in LEAVES if dotted not in EXEMPT}
    assert {file.stem for file in FILES} == commands | {ERROR}
    assert set(LEAVES) >= EXEMPT


@each_schema
def test_schema_is_valid_complete_and_closed(file: Path) -> None:
    schema = read_schema(file)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["properties"]["ok"]["type"] == "boolean"
    for part in objects_of(schema):
        assert part["additionalProperties"] is False
        assert set(part["required"]) <= set(part["properties"])
        for name, field in part["properties"].items():
            assert field["description"].endswith("."), name


@each_schema
def test_field_names_are_shared_by_all_commands(file: Path) -> None:
    names = {name for part in objects_of(read_schema(file)) for name in part["properties"]}
    others = {
        *("dbt_core_integration_id", "dbt_core_integration_file_id", "file_type", "said"),
        *("last_file_upload_time", "environment_type", "age", "age_s", "project"),
    }
    assert names & others == set()


def test_unknown_field_violates_schema() -> None:
    assert (
        find_problems("instance.migrate", {"ok": True, "migrated_from": 1, "migrated_to": 2}) == []
    )
    for result in ({"ok": True}, {"ok": True, "migrated_from": 1, "migrated_to": 2, "more": 3}):
        assert len(find_problems("instance.migrate", result)) > 0
    assert len(find_problems("doctor", {"ok": False, "exit_code": 2, "error": {}})) > 0


@pytest.mark.parametrize("dotted", sorted(set(LEAVES) - EXEMPT))
def test_error_of_every_command_matches_error_schema(dotted: str) -> None:
    done = datapilot(*dotted.split("."), "--no-such-option", "--json")
    assert done.exit_code == 2
    assert done.json["error"]["kind"] == "usage_error"
    assert find_problems(dotted, done.json) == []


def test_results_of_real_instance_match_schemas(instance: RunningInstance, artifacts: Path) -> None:
    integration = ("--integration-id", create_integration(instance))
    data = ("--data", instance.data)
    commands: list[tuple[object, ...]] = [
        ("dbt", "onboard", *integration, "--manifest-path", artifacts / "manifest.json"),
        ("dbt", "pull", *integration),
        ("dbt", "integrations", "list"),
        ("dbt", "integrations", "show", *integration),
        ("dbt", "integrations", "history", *integration),
        ("dbt", "integrations", "checks", *integration),
        ("instance", "audit", *data),
        ("instance", "migrate", *data),
        ("instance", "rotate-key", *data),
        ("instance", "token", "list", *data),
        ("auth", "status"),
        ("config", "show"),
        ("doctor", *integration),
    ]
    for command in commands:
        done = datapilot(*command, "--json", env=access(instance))
        assert (done.exit_code, done.json["ok"]) == (0, True), done.output


@pytest.mark.parametrize("value", ODD_VALUES, ids=repr)
def test_show_and_history_match_schemas_for_any_response(
    value: object, hosted: ProtocolServer
) -> None:
    for name in ODD_FIELDS:
        answer = {**INTEGRATION, name: value}
        hosted.answers["GET /dbt/v1/project_integrations/7/PROD"] = lambda _, answer=answer: Reply(  # type: ignore[misc]
            answer
        )
        for command in ("show", "history"):
            done = datapilot(
                *("dbt", "integrations", command, "--integration-id", 7, "--json"),
                env=hosted.access,
            )
            assert done.exit_code == 0, done.output
            assert find_problems(f"dbt.integrations.{command}", done.json) == []


def test_upload_in_history_has_shared_field_names(hosted: ProtocolServer) -> None:
    answer = {**INTEGRATION, "history": [{**UPLOAD, "created_at": "2026-01-01T00:00:00Z"}]}
    hosted.answers["GET /dbt/v1/project_integrations/7/PROD"] = lambda _: Reply(answer)
    words = ("dbt", "integrations", "history", "--integration-id", 7, "--json")
    (upload,) = datapilot(*words, env=hosted.access).json["history"]
    assert (upload["file_id"], upload["kind"]) == (3, "manifest")
    assert upload["created_at"] == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00"),
        ("2026-01-01T01:00:00.5+01:00", "2026-01-01T00:00:00.500000+00:00"),
        ("2026-01-01 00:00:00", "2026-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00+23:00", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_timestamp_of_instance_is_printed_in_utc(
    timestamp: str | None, expected: str | None
) -> None:
    assert utc_timestamp(timestamp) == expected


@pytest.mark.parametrize("dotted", sorted(EXEMPT))
def test_page_lists_exempt_commands(dotted: str) -> None:
    assert f"`{dotted.replace('.', ' ')}`" in PAGE
