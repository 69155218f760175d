"""Checks of artifacts other than manifests: catalog, run_results, sources and semantic_manifest.

They use the schema that dbt publishes. Unless `strict` is true, the parts that change from release
to release are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer.artifact import Kind
from datapilot_defer.validation import bundled_schemas, dbt_versions
from datapilot_defer.validation.descriptions import describe_drift
from datapilot_defer.validation.result import Findings, Problem
from datapilot_defer.validation.sections import check_sections, check_top_level

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.artifact import Artifact


def check_other_artifact(
    artifact: Artifact, metadata: Mapping[str, Any], *, strict: bool
) -> Findings:
    """Check an artifact that is not a manifest.

    metadata: the decoded `metadata` section, which a semantic manifest does not have.
    """
    if artifact.kind is not Kind.SEMANTIC_MANIFEST:
        problem = _find_version_problem(artifact, metadata.get("dbt_schema_version"))
        if problem:
            return Findings(problems=[problem])
    about = artifact.metadata
    published = bundled_schemas.published_schema(
        about.kind.value, about.schema_version, about.dbt_version
    )
    if published is None:
        return _check_outline_only(artifact, strict=strict)
    if strict:
        return check_sections(artifact.sections, published, None, None, strict=True)
    findings = check_sections(artifact.sections, published.relaxed(), published, None)
    for section, count in findings.drift_counts.items():
        findings.drift.append(describe_drift(section, count))
    return findings


def _find_version_problem(artifact: Artifact, schema_url: object) -> Problem | None:
    version = dbt_versions.read_schema_version(artifact, schema_url)
    if isinstance(version, Problem):
        return version
    if version >= min(_known_versions(artifact.kind)):
        return None
    return dbt_versions.schema_version_problem(
        f"schema version {version} is of dbt before 1.0. Build with dbt 1.0 or later"
    )


def _known_versions(kind: Kind) -> list[int]:
    schemas = bundled_schemas.list_schemas()
    return [schema["schema_version"] for schema in schemas if schema["kind"] == kind.value]


def _check_outline_only(artifact: Artifact, *, strict: bool) -> Findings:
    """Check only the section names of an artifact that is newer than the bundled schemas.

    The newest of these schemas is used. strict: add a problem, because the published schema is
    unknown.
    """
    findings = Findings()
    newest_version = max(_known_versions(artifact.kind))
    newest = bundled_schemas.published_schema(artifact.kind.value, newest_version, None)
    if newest:
        findings.problems += check_top_level(newest.relaxed(), artifact.sections)
    version = artifact.metadata.schema_version
    findings.warnings.append(dbt_versions.newer_version_warning(version))
    if strict:
        findings.problems.append(dbt_versions.unknown_schema_problem(version))
    return findings
