"""Validation of one artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datapilot_defer import dbt_json
from datapilot_defer.artifact import (
    MAX_METADATA_BYTES,
    Kind,
    decode_metadata,
    has_oversized_metadata,
)
from datapilot_defer.validation import dbt_versions
from datapilot_defer.validation.file_type import detect_foreign_file, detect_other_kind
from datapilot_defer.validation.manifest import check_manifest
from datapilot_defer.validation.other_artifacts import check_other_artifact
from datapilot_defer.validation.result import (
    Findings,
    Problem,
    ProblemCode,
    ValidationOptions,
    ValidationResult,
)

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact


_DEFAULT_OPTIONS = ValidationOptions()


def validate(
    artifact: Artifact,
    options: ValidationOptions = _DEFAULT_OPTIONS,
    *,
    max_problems: int | None = 10,
) -> ValidationResult:
    """Validate an artifact, and find the dbt versions that can read it.

    max_problems: the maximum number of problems in the result; None for all, up to about a
    thousand. Raises UsageError if the artifact is a manifest and `options.readable_by` is not a
    version of dbt.
    """
    findings = _find_problems(artifact, strict=options.strict)
    if options.readable_by and artifact.kind is Kind.MANIFEST:
        findings.problems += _unreadable_problems(artifact, findings, options.readable_by)
    problems = findings.problems[:max_problems]
    return ValidationResult(
        artifact,
        problems=tuple(problems),
        warnings=tuple(findings.warnings),
        drift=tuple(findings.drift),
        readable_by=findings.readable_by,
        hidden_problems=len(findings.problems) - len(problems),
        is_truncated=findings.is_truncated,
    )


def _find_problems(artifact: Artifact, *, strict: bool) -> Findings:
    error = artifact.not_json
    if error is None:
        try:
            return _check_artifact(artifact, strict=strict)
        except dbt_json.NotJsonError as section_error:
            error = section_error
    problem = Problem("$", f"the file {error}", code=ProblemCode.NOT_JSON)
    return Findings(problems=[problem])


def _check_artifact(artifact: Artifact, *, strict: bool) -> Findings:
    sections = artifact.sections
    if has_oversized_metadata(sections):
        size_bytes = memoryview(sections["metadata"]).nbytes
        message = f"has {size_bytes:,} bytes; the limit is {MAX_METADATA_BYTES:,} bytes"
        return Findings(problems=[Problem("$.metadata", message)])
    metadata = decode_metadata(sections)
    if not metadata and "metadata" in sections:
        dbt_json.decode(sections["metadata"])  # raises an error if this section is invalid
    wrong_file = detect_foreign_file(sections, metadata, artifact.kind)
    wrong_file = wrong_file or detect_other_kind(sections, metadata, artifact.kind)
    if wrong_file:
        return Findings(problems=[Problem("$", wrong_file, code=ProblemCode.WRONG_FILE)])
    if artifact.kind is Kind.MANIFEST:
        return check_manifest(artifact, metadata, strict=strict)
    return check_other_artifact(artifact, metadata, strict=strict)


def _unreadable_problems(artifact: Artifact, findings: Findings, version: str) -> list[Problem]:
    """Return a problem if a dbt version cannot read a manifest, unless another one explains it."""
    if dbt_versions.includes_version(findings.readable_by, version):
        return []
    if findings.problems and not findings.readable_by:
        return []
    obstacle = findings.dbt1_obstacle
    if obstacle is not None:
        message = f"{obstacle.message}: dbt 2.x wrote it, and dbt {version} cannot read it"
        return [Problem(obstacle.path, message, obstacle.file, ProblemCode.NOT_READABLE)]
    readers = dbt_versions.describe_versions(findings.readable_by)
    schema_version = artifact.metadata.schema_version
    message = f"dbt {version} cannot read schema version {schema_version}, but {readers} can"
    path = dbt_versions.SCHEMA_VERSION_PATH
    return [Problem(path, message, code=ProblemCode.NOT_READABLE)]
