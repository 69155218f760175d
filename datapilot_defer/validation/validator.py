"""The verdict on one artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind
from datapilot_defer.validation import dbt_versions, manifest, other_artifacts
from datapilot_defer.validation.file_type import detect_foreign_file, detect_other_kind
from datapilot_defer.validation.result import Problem, ValidationResult
from datapilot_defer.validation.sections import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.artifact import Artifact


def validate(
    artifact: Artifact,
    *,
    strict: bool = False,
    readable_by: str | None = None,
    limit: int | None = 10,
) -> ValidationResult:
    """Say whether an artifact is whole, and which dbt can read it.

    strict: refuse whatever the published schema does not allow, to the letter.
    readable_by: a version of dbt, such as "1.11" or "2"; refuse a manifest that it can't read.
    limit: at most so many problems; None for all, up to about a thousand.
    """
    try:
        found = _check_artifact(artifact, dbt_json.split(artifact.content), strict=strict)
    except dbt_json.NotJsonError as error:
        found = Findings(problems=[Problem("$", f"the file {error}")])
    if (
        readable_by
        and artifact.kind is Kind.MANIFEST
        and not dbt_versions.includes_version(found.readable_by, readable_by)
    ):
        found.problems += _unreadable_problems(found, artifact.metadata.schema_version, readable_by)
    shown = found.problems if limit is None else found.problems[:limit]
    return ValidationResult(
        artifact,
        problems=tuple(shown),
        warnings=tuple(found.warnings),
        drift=tuple(found.drift),
        readable_by=found.readable_by,
        hidden_problems=len(found.problems) - len(shown),
        is_truncated=found.is_truncated,
    )


def _check_artifact(artifact: Artifact, top: Mapping[str, Any], *, strict: bool) -> Findings:
    metadata = _metadata(top)
    stranger = detect_foreign_file(top, metadata, artifact.kind) or detect_other_kind(
        top, metadata, artifact.kind
    )
    if stranger:
        return Findings(problems=[Problem("$", stranger)])
    look = (
        manifest.check_manifest
        if artifact.kind is Kind.MANIFEST
        else other_artifacts.check_other_artifact
    )
    return look(artifact, top, metadata, strict=strict)


def _metadata(top: Mapping[str, Any]) -> dict[str, Any]:
    found = dbt_json.decode(top["metadata"]) if "metadata" in top else {}
    return found if isinstance(found, dict) else {}


def _unreadable_problems(found: Findings, version: int | None, wanted: str) -> list[Problem]:
    """Said only where nothing else says it."""
    if found.problems and not found.readable_by:
        return []
    if (why := found.dbt1_obstacle) is not None:
        return [
            Problem(
                why.path,
                f"{why.message}: dbt 2.x wrote it, and dbt {wanted} can't read it",
                why.file,
            )
        ]
    who = dbt_versions.describe_versions(found.readable_by)
    return [
        Problem(
            "$.metadata.dbt_schema_version",
            f"dbt {wanted} can't read schema version {version}; {who} can",
        )
    ]
