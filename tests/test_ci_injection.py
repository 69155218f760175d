"""Text from artifacts, responses and names cannot issue commands to a CI system."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from datapilot_defer import ci
from datapilot_defer.artifact import ArtifactMetadata, Provenance
from datapilot_defer.client import responses
from tests.support.attacks import Job
from tests.support.ci_readers import ATTACK, COMMANDS, READERS, find_commands
from tests.support.commands import datapilot
from tests.support.protocol_server import INTEGRATION, ProtocolServer, RecordedRequest, Reply

_ID = ["--integration-id", "7"]
_ONBOARD = ["dbt", "onboard", *_ID, "--manifest-path", "target/manifest.json"]
_PULL = ["dbt", "pull", *_ID, "--output", "state"]
_STATUS = ["dbt", "defer", "status", *_ID]
_SHOW = ["dbt", "integrations", "show", *_ID]
_UPLOAD = {"dbt_core_integration_file_id": 1, "dbt_core_integration_id": 7, "environment": "PROD"}
# For each type of response: its route, the commands that print it, and a valid example.
ANSWERS: Mapping[str, tuple[str, tuple[list[str], ...], Mapping[str, Any]]] = {
    "EnvironmentSummary": (
        "GET /dbt/v1/project_integrations",
        (["dbt", "integrations", "list"],),
        {},
    ),
    "IntegrationSummary": (
        "GET /dbt/v1/project_integrations",
        (
            ["dbt", "integrations", "list"],
            ["dbt", "integrations", "delete", "--integration-id", "7", "--yes"],
            ["dbt", "integrations", "show", "--integration-name", "none"],
        ),
        INTEGRATION,
    ),
    "UploadTarget": ("GET /dbt/v1/signed_url", (_ONBOARD, ["doctor", *_ID]), _UPLOAD),
    "UploadReceipt": ("POST /dbt/v1/verify_upload", (_ONBOARD,), {"ok": False}),
    "ArtifactLocation": ("GET /dbt/v1/fetch_artifact_url", (_PULL, _STATUS), _UPLOAD),
    "DeletedIntegration": (
        "DELETE /dbt/v1/project_integrations/7",
        (["dbt", "integrations", "delete", *_ID, "--yes"],),
        {},
    ),
    "AcceptedUpload": (
        "POST /dbt/v1/accept_upload",
        (["dbt", "integrations", "accept", "1"],),
        _UPLOAD,
    ),
    "_Checks": (
        "GET /dbt/v1/project_integrations/7/PROD",
        (["dbt", "integrations", "checks", *_ID], _SHOW),
        {},
    ),
}
METADATA = {
    "schema_version": "dbt_schema_version",
    "dbt_version": "dbt_version",
    "project_name": "project_name",
    "project_id": "project_id",
    "adapter_type": "adapter_type",
    "generated_at": "generated_at",
    "invocation_id": "invocation_id",
}
SYSTEMS = {system.name: system for system in ci.CI_SYSTEMS}
_COUNTED = {"kind", "sha256", "size_bytes", "node_count", "model_count"}
_ENTRY = {
    **dict.fromkeys(("type", "time", "log_file", "status", "rejection", "refusal"), ATTACK),
    **dict.fromkeys(("file_type", "created_at", "uploaded_at", "dbt_version"), ATTACK),
    **dict.fromkeys(("model_count", "size_bytes", "commit", "sha256", "token_name"), ATTACK),
    **dict.fromkeys(("since", "dbt_core_integration_file_id", ATTACK), ATTACK),
    "reason": "restore",
    "current": True,
}
_FILE_NAME = "::error::a\n##vso[a]\r##[group]\x1b[0K\n--- ::group::\u2028.json"
_ENTRIES = ("history", "publications", "sync_history")


def answer_fields() -> list[tuple[str, str]]:
    """Return the type and the name of each field of a response."""
    fields = []
    for name, answer in vars(responses).items():
        if not isinstance(answer, type) or answer.__module__ != responses.__name__:
            continue
        if issubclass(answer, msgspec.Struct):
            fields += [(name, field.encode_name) for field in msgspec.structs.fields(answer)]
        elif dataclasses.is_dataclass(answer):
            fields += [(name, field.name) for field in dataclasses.fields(answer)]
    return fields


def replying(content: object, status: int = 200) -> Callable[[RecordedRequest], Reply]:
    """Return a function that sends this response to each request."""
    return lambda _: Reply(content, status)


@pytest.fixture(params=("GitHub Actions", "Azure Pipelines"))
def job(
    request: pytest.FixtureRequest, tmp_path: Path, no_retry_delay: None, artifacts: Path
) -> Job:
    """Return a job in a directory with a dbt project.

    The two systems suffice because only GitHub gets additional output.
    """
    (tmp_path / "dbt_project.yml").write_text(
        "name: shop\nversion: '1'\nprofile: shop\n", encoding="utf-8"
    )
    (tmp_path / "target").mkdir()
    content = (artifacts / "manifest.json").read_bytes()
    (tmp_path / "target" / "manifest.json").write_bytes(content)
    return Job(SYSTEMS[request.param], tmp_path)


@pytest.fixture(autouse=True)
def _in_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_manifest(job: Job, change: Mapping[str, object]) -> Path:
    """Change top-level properties of the project's manifest."""
    path = job.directory / "target" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}), encoding="utf-8")
    return path


def test_each_ci_system_has_reader_that_finds_attacks() -> None:
    assert set(READERS) == set(SYSTEMS)
    assert len(find_commands(ATTACK, on_github=True)) > 20


@pytest.mark.parametrize("job", SYSTEMS, indirect=True)
def test_no_ci_system_obeys_artifacts_or_responses(job: Job, hosted: ProtocolServer) -> None:
    path = write_manifest(job, {"metadata": {"dbt_version": ATTACK}, ATTACK: ATTACK})
    evil = {"detail": ATTACK, "url": ATTACK, "environment": ATTACK}
    hosted.integrations = [{**INTEGRATION, "name": ATTACK}]
    hosted.answers["GET /dbt/v1/fetch_artifact_url"] = replying(evil)
    hosted.answers["GET /dbt/v1/signed_url"] = replying(evil, 403)
    facts = (*job.system.commits, *job.system.branches, *job.system.build_urls)
    for command in (["dbt", "validate", path], ["dbt", "integrations", "list"], _ONBOARD, _PULL):
        job.check(*command, env={**hosted.access, **dict.fromkeys(facts, ATTACK)})


def test_every_untrusted_field_is_tested() -> None:
    assert {name for name, _ in answer_fields()} == set(ANSWERS)
    facts = {field.name for field in dataclasses.fields(ArtifactMetadata)}
    assert facts == {*METADATA, *_COUNTED}
    provenance = {field.name for field in dataclasses.fields(Provenance)}
    assert {("ArtifactLocation", name) for name in provenance} <= set(answer_fields())


@pytest.mark.parametrize(("answer", "field"), answer_fields())
def test_fields_of_responses_are_not_obeyed(
    answer: str, field: str, job: Job, hosted: ProtocolServer
) -> None:
    route, commands, valid = ANSWERS[answer]
    url = f"{hosted.url}/storage/1?signature=s3cret"
    hosted.verified = [1]
    hosted.uploads[1] = (job.directory / "target" / "manifest.json").read_bytes()
    for value in (ATTACK, [ATTACK], f"{url}{ATTACK}"):
        content: object = {"url": url, **valid, field: value, "detail": ATTACK, "message": ATTACK}
        if answer == "EnvironmentSummary":
            content = {**INTEGRATION, "environments": [content]}
        if route.endswith("project_integrations"):
            content = [content]
        hosted.answers[route] = replying(content)
        for command in commands:
            job.check(*command, env=hosted.access)


def test_integration_details_are_not_obeyed(job: Job, hosted: ProtocolServer) -> None:
    description = {
        **{name: [_ENTRY] for name in _ENTRIES},
        **dict.fromkeys(("name", "last_file_upload_time", "environment", ATTACK), ATTACK),
        "disabled_checks": [ATTACK],
    }
    hosted.answers["GET /dbt/v1/project_integrations/7/PROD"] = replying(description)
    job.check(*_SHOW, env=hosted.access)
    job.check("dbt", "integrations", "history", *_ID, "--rejected", env=hosted.access)


@pytest.mark.parametrize("status", [200, 302, 402, 403, 404, 422, 501])
def test_error_details_are_not_obeyed(status: int, job: Job, hosted: ProtocolServer) -> None:
    faults = [{"loc": ["body", ATTACK], "msg": ATTACK, "type": ATTACK}]
    for content in ({"ok": False, "message": ATTACK}, {"detail": ATTACK, "check": [ATTACK]}):
        for route in ("GET /dbt/v1/validate-permissions", "POST /dbt/v1/verify_upload"):
            hosted.answers = {route: replying(content, status)}
            job.check(*_ONBOARD, "--soft-fail", env=hosted.access)
            hosted.answers = {route: replying({"detail": faults}, status)}
            job.check(*_ONBOARD, env=hosted.access)
        hosted.answers = {"GET /dbt/v3/validate-credentials": replying(content, status)}
        job.check("auth", "status", env=hosted.access)
        job.check("doctor", env=hosted.access)


@pytest.mark.parametrize("fact", METADATA)
def test_artifact_metadata_is_not_obeyed(fact: str, job: Job, hosted: ProtocolServer) -> None:
    path = job.directory / "target" / "manifest.json"
    metadata = {**json.loads(path.read_bytes())["metadata"], METADATA[fact]: ATTACK}
    write_manifest(job, {"metadata": metadata})
    hosted.verified = [1]
    hosted.uploads[1] = path.read_bytes()
    for command in (["dbt", "validate", path], _ONBOARD, [*_ONBOARD, "--dry-run"], _PULL, _STATUS):
        job.check(*command, env=hosted.access)
    job.check(*_PULL, "--offline", env=hosted.access)


def test_manifest_nodes_are_not_obeyed(job: Job, hosted: ProtocolServer) -> None:
    node = {"resource_type": ATTACK, "original_file_path": ATTACK, "unique_id": ATTACK}
    path = write_manifest(job, {"nodes": {ATTACK: node, f"model.{ATTACK}": None}, ATTACK: 1})
    job.check("dbt", "validate", path, env={})
    job.check(*_ONBOARD, env=hosted.access)
    path.write_text(json.dumps({ATTACK: ATTACK}), encoding="utf-8")
    job.check("dbt", "validate", path, "--kind", "manifest", env={})
    path.write_text(f"{{{ATTACK}", encoding="utf-8")
    job.check("dbt", "validate", path, env={})


def test_catalog_nodes_are_not_obeyed(job: Job, hosted: ProtocolServer, artifacts: Path) -> None:
    catalog = json.loads((artifacts / "catalog.json").read_bytes())
    entry = next(iter(catalog["nodes"].values()))
    catalog["nodes"] = {ATTACK: {**entry, "unique_id": ATTACK}}
    catalog["sources"] = {}
    path = job.directory / "catalog.json"
    path.write_text(json.dumps(catalog), encoding="utf-8")
    job.check(*_ONBOARD, "--catalog-path", path, env=hosted.access)


def test_environment_variables_are_not_obeyed(job: Job, hosted: ProtocolServer) -> None:
    names = ("ALTIMATE_URL", "ALTIMATE_INSTANCE_NAME", "ALTIMATE_API_KEY", "DATAPILOT_TIMEOUT")
    for name in (*names, "DATAPILOT_READABLE_BY", "DATAPILOT_SOFT_FAIL", "DATAPILOT_KEYRING"):
        job.check(*_ONBOARD, env={**hosted.access, name: COMMANDS})
    job.check("dbt", "onboard", *_ID, env={**hosted.access, "DBT_TARGET_PATH": COMMANDS})
    job.check(*_STATUS, env={**hosted.access, "DATAPILOT_DBT": COMMANDS})
    job.check(*_STATUS, env={**hosted.access, "DBT_PROJECT_DIR": _FILE_NAME})


def test_arguments_are_not_obeyed(job: Job, hosted: ProtocolServer) -> None:
    job.check("dbt", "pull", "--integration-name", COMMANDS, env=hosted.access)
    for words in (
        [*_ONBOARD, COMMANDS],
        [*_ONBOARD, f"--{COMMANDS}"],
        [COMMANDS],
        ["dbt", COMMANDS],
    ):
        job.check_output(datapilot(*words, env=job.environ))
    job.check(*_ONBOARD, "--environment", COMMANDS, env=hosted.access)
    job.check(*_PULL, "--environment", COMMANDS, "--at", COMMANDS, env=hosted.access)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_file_names_are_not_obeyed(job: Job, hosted: ProtocolServer) -> None:
    name = _FILE_NAME
    job.check("dbt", "validate", name, env={})
    Path(name).write_bytes((job.directory / "target" / "manifest.json").read_bytes())
    job.check("dbt", "validate", name, env={})
    job.check(*_ONBOARD[:-1], name, env=hosted.access)
    job.check(*_ONBOARD[:-1], name, "--dry-run", env=hosted.access)
    Path(name).write_bytes(b"{")
    job.check("dbt", "validate", name, env={})
