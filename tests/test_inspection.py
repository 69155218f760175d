"""Inspection of artifacts by the verification process, called without the process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from datapilot_defer.artifact import Kind, parse_artifact
from datapilot_defer.instance import inspection
from datapilot_defer.instance.inspection import Inspector
from datapilot_defer.instance.verification import MAX_RESULT_BYTES, Result, Verification
from datapilot_defer.validation import validate
from tests.support.contents import with_section
from tests.support.instance_calls import catalog, manifest

EXAMPLES = Path(__file__).parent / "artifacts"
Change = Callable[[dict[str, Any]], object]


def verify(content: bytes, kind: Kind = Kind.MANIFEST) -> Verification:
    return Inspector().verify(content, kind)


def changed_manifest(change: Change) -> bytes:
    document = json.loads(manifest())
    change(document)
    return json.dumps(document).encode()


def manifest_with_metadata(**fields: object) -> bytes:
    return changed_manifest(lambda document: document["metadata"].update(fields))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.json")), ids=lambda path: path.name)
def test_verdict_equals_that_of_validate_command(path: Path) -> None:
    content = path.read_bytes()
    kind = parse_artifact(content, path=path.name, kind=None).kind
    parsed = parse_artifact(content, path=kind.file_name, kind=kind)
    result = validate(parsed)
    verification = verify(content, kind)
    assert (verification.problem is None) == result.is_accepted
    for line in (*result.format_problems(), *result.warnings, *result.drift):
        assert any(reported.startswith(line[:100]) for reported in verification.report)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (changed_manifest(lambda document: document.pop("nodes")), '"nodes" is missing'),
        (
            changed_manifest(lambda document: document.update(nodes=None)),
            "$.nodes: expected an object",
        ),
        (
            changed_manifest(lambda document: document.update(nodes={})),
            "to defer to",
        ),
        (
            changed_manifest(lambda document: document.pop("metadata")),
            "dbt_schema_version: is missing",
        ),
        (
            changed_manifest(lambda document: document["metadata"].pop("project_name")),
            "project_name",
        ),
        (manifest_with_metadata(project_name=None), "$.metadata.project_name: expected"),
        (manifest_with_metadata(project_name=None, project_id=None), "(and 1 more problem)"),
        (
            with_section(manifest(), "metadata", b'{"n": ' + b"9" * 5000 + b"}"),
            "Exceeds the limit",
        ),
        (
            with_section(manifest(), "metadata", b"[" + b"[]," * 50_000 + b"[]]"),
            "manifest.json::$.metadata: has 150,004 bytes; the limit is 65,536 bytes",
        ),
        (manifest_with_metadata(x="x" * 70_000), "the limit is 65,536 bytes"),
        (catalog(), "is a catalog.json, not a manifest.json"),
        (b'{"name": "x", "manifest_version": 3}', "a browser extension's manifest"),
        (b"", "the file is empty"),
        (manifest()[:-1], "ends after"),
        (manifest().decode().encode("utf-16"), "is UTF-16"),
        (b"\xef\xbb\xbf" + manifest(), "byte order mark"),
        (b"[" * 100_000, "contains a list"),
        (b'{"nodes": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_that_dbt_did_not_write_has_problem(content: bytes, problem: str) -> None:
    verification = verify(content)
    assert verification.problem is not None
    assert problem in verification.problem
    assert verification.metadata is not None
    assert verification.metadata.size_bytes == len(content)


def test_metadata_of_manifest() -> None:
    metadata = verify(manifest("a", "b", "c")).metadata
    assert metadata is not None
    assert metadata.project_name == "shop"
    assert metadata.model_count == 3
    assert metadata.dbt_version == "1.11.16"


def test_old_manifest_is_identified_by_project_id() -> None:
    content = (EXAMPLES / "good" / "manifest of dbt 1.0.json").read_bytes()
    metadata = verify(content).metadata
    assert metadata is not None
    assert (
        metadata.project_name
        == metadata.project_id
        == json.loads(content)["metadata"]["project_id"]
    )


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("x" * 1000, "x" * 200),
        ("a\nb\r\tc", "a\ufffdb\ufffd\ufffdc"),
        ("a\u202eb\u200bc\x00d\x1b[31m", "a\ufffdb c\ufffdd\ufffd[31m"),
        ("\ud800lone", "?lone"),
        ("\u200b", "\ufffd"),
    ],
)
def test_metadata_values_are_short_printable_lines(text: str, fact: str | None) -> None:
    content = manifest_with_metadata(dbt_version=text, adapter_type=text, invocation_id=text)
    metadata = verify(content).metadata
    assert metadata is not None
    assert metadata.dbt_version == metadata.adapter_type == metadata.invocation_id == fact


def test_problem_quotes_first_and_counts_others() -> None:
    content = changed_manifest(
        lambda document: document["nodes"].update(
            {f"model.shop.{number}": {"resource_type": "model"} for number in range(5000)}
        )
    )
    verification = verify(content)
    assert verification.problem is not None
    assert verification.problem.startswith("manifest.json::$.nodes")
    count = verification.problem.partition("(and at least ")[2].removesuffix(" more problems)")
    assert int(count.replace(",", "")) >= 999


def test_result_is_small_for_any_manifest() -> None:
    long_name = '"\\\u202e\U0001f600' * 500
    names = [f"{number}{long_name}" for number in range(300)]
    inspector = Inspector()
    new = inspector.verify(
        manifest(*names[:150], project=long_name, database=long_name),
        Kind.MANIFEST,
        is_compared=True,
    )
    differences = inspector.compare(manifest(*names[100:], project=long_name, body="2"))
    assert differences.changes is not None
    assert differences.relations is not None
    assert len(differences.changes.to_json().encode()) <= 33_000
    assert len(msgspec.json.encode(Result(new))) < MAX_RESULT_BYTES
    rejected = changed_manifest(
        lambda document: document["nodes"].update(
            {f"model.shop.{name}": {"resource_type": long_name} for name in names}
        )
    )
    verification = Inspector().verify(rejected, Kind.MANIFEST)
    assert verification.problem is not None
    assert len(verification.problem) <= 1000
    assert max(map(len, verification.report)) <= 500
    assert sum(len(line.encode()) for line in verification.report) <= 16_384
    assert len(msgspec.json.encode(Result(verification))) < MAX_RESULT_BYTES


def test_unreadable_current_manifest_is_not_compared() -> None:
    inspector = Inspector()
    assert inspector.verify(manifest(), Kind.MANIFEST, is_compared=True).problem is None
    assert inspector.compare(b"{").problem == "the current manifest cannot be read"


def test_unexpected_error_does_not_quote_upload(capsys: pytest.CaptureFixture[str]) -> None:
    text = "uploaded " + "bytes"
    try:
        int(text)
    except ValueError as error:
        inspection._print_location(ValueError, error, error.__traceback__)
    printed = capsys.readouterr().err
    assert "verification failed: ValueError" in printed
    assert "test_inspection.py" in printed
    assert text not in printed
