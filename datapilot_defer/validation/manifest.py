"""Checks of a manifest: its schema version, the dbt versions that can read it, and its problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer.validation import bundled_schemas, dbt_versions
from datapilot_defer.validation.defer_checks import DeferChecks, check_metadata
from datapilot_defer.validation.descriptions import describe_drift
from datapilot_defer.validation.result import Findings, Problem
from datapilot_defer.validation.sections import check_sections

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.artifact import Artifact
    from datapilot_defer.validation.schema import ArtifactSchema

_JAVASCRIPT = b'"javascript"'
# dbt-adapters adds this language to dbt-core before 1.12 when dbt starts. Without it the loader
# rejects the macro.
_NEEDS_ADAPTERS = (
    "a macro supports javascript. dbt before 1.12 needs the dbt-adapters that wrote it, "
    "or a later one"
)


def check_manifest(artifact: Artifact, metadata: Mapping[str, Any], *, strict: bool) -> Findings:
    """Check a file that should be a manifest.

    metadata: the decoded `metadata` section.
    """
    version = _read_supported_version(artifact, metadata.get("dbt_schema_version"))
    if isinstance(version, Problem):
        return Findings(problems=[version])
    if version > dbt_versions.NEWEST_DBT1_SCHEMA_VERSION:
        findings = _check_outline_only(artifact, version, strict=strict)
    else:
        findings = _check_supported_version(artifact, version, strict=strict)
    findings.problems[:0] = check_metadata(metadata, version)
    return findings


def _read_supported_version(artifact: Artifact, schema_url: object) -> int | Problem:
    if schema_url is None:
        return dbt_versions.schema_version_problem(
            "is missing, although every manifest of dbt has it"
        )
    version = dbt_versions.read_schema_version(artifact, schema_url)
    if isinstance(version, Problem) or version >= dbt_versions.OLDEST_SCHEMA_VERSION:
        return version
    return dbt_versions.schema_version_problem(
        f"schema version {version} is of dbt before 1.0, which no maintained dbt reads. "
        "Build with dbt 1.0 or later"
    )


def _check_supported_version(artifact: Artifact, version: int, *, strict: bool) -> Findings:
    """Check a manifest of schema version 4 to 12 against the schema of dbt's loader.

    A manifest that violates it but was written by dbt 2.x is checked against the minimal schema
    instead. strict: also check an accepted manifest against its published schema.
    """
    dbt_version = artifact.metadata.dbt_version
    published = bundled_schemas.published_schema("manifest", version, dbt_version)
    schema = bundled_schemas.loader_schema(version)
    findings = check_sections(artifact.sections, schema, published, DeferChecks())
    if findings.is_loadable:
        findings.readable_by = dbt_versions.versions_reading(version)
        findings.drift += _describe_loadable_drift(artifact, findings.drift_counts)
    elif dbt_versions.is_written_by_dbt2(artifact):
        findings = _check_dbt2_manifest(artifact, findings.first_violation)
    if strict and published and not findings.problems:
        return _check_strictly(artifact, published, findings)
    return findings


def _describe_loadable_drift(artifact: Artifact, drift_counts: Mapping[str, int]) -> list[str]:
    drift = [
        f"{describe_drift(section, count)}, which dbt reads"
        for section, count in drift_counts.items()
    ]
    if "macros" in drift_counts and _JAVASCRIPT in artifact.content:
        drift.append(_NEEDS_ADAPTERS)
    return drift


def _check_dbt2_manifest(artifact: Artifact, obstacle: Problem | None) -> Findings:
    """Check a manifest that dbt 2.x wrote under a schema version of dbt 1.x.

    obstacle: the first value that dbt 1.x cannot read.
    """
    schema = bundled_schemas.minimal_manifest_schema()
    findings = check_sections(artifact.sections, schema, None, DeferChecks())
    findings.dbt1_obstacle = obstacle
    if findings.is_loadable:
        findings.readable_by = ("2",)
    warning = "written by dbt 2.x: only dbt 2.x can defer to it, and dbt 1.x cannot read it"
    if obstacle:
        warning += f", for example at {obstacle.path}: {obstacle.message}"
    findings.warnings.append(warning)
    return findings


def _check_outline_only(artifact: Artifact, version: int, *, strict: bool) -> Findings:
    """Check a manifest of a schema version above 12 against the minimal schema.

    dbt 2.x writes version 20. Any other version is treated as newer than this program.
    """
    schema = bundled_schemas.minimal_manifest_schema()
    findings = check_sections(artifact.sections, schema, None, DeferChecks())
    if version == dbt_versions.DBT2_SCHEMA_VERSION:
        findings.readable_by = ("2",)
        findings.warnings.append(
            "schema version 20 is of dbt 2.x: only dbt 2.x can defer to it, and dbt 1.x "
            "cannot read it"
        )
    else:
        findings.warnings.append(dbt_versions.newer_version_warning(version))
    if strict:
        findings.problems.append(dbt_versions.unknown_schema_problem(version))
    return findings


def _check_strictly(artifact: Artifact, published: ArtifactSchema, by_loader: Findings) -> Findings:
    """Check an accepted manifest strictly against its published schema.

    by_loader: the findings of the check against the schema of dbt's loader.
    """
    findings = check_sections(artifact.sections, published, None, DeferChecks(), strict=True)
    findings.readable_by = by_loader.readable_by
    findings.warnings = by_loader.warnings
    findings.drift = by_loader.drift
    return findings
