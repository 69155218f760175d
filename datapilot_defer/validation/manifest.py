"""A manifest: who wrote it, who can read it, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer.validation import bundled_schemas, dbt_versions
from datapilot_defer.validation.defer_checks import DeferChecks, check_metadata
from datapilot_defer.validation.other_artifacts import describe_drift
from datapilot_defer.validation.result import Problem
from datapilot_defer.validation.sections import Findings, check_sections
from datapilot_defer.validation.violations import describe_value
from datapilot_defer.validation.whole import minimal_manifest_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.artifact import Artifact
    from datapilot_defer.validation.schema import ArtifactSchema

_VERSION = "$.metadata.dbt_schema_version"
_JAVASCRIPT = b'"javascript"'
# dbt-adapters teaches dbt-core before 1.12 this language when dbt starts; without it the loader refuses the macro.
_NEEDS_ADAPTERS = "a macro supports javascript: dbt before 1.12 reads that with the dbt-adapters that wrote it, or later"
_URL = "https://schemas.getdbt.com/dbt/manifest/v{}.json"


def check_manifest(
    artifact: Artifact, top: Mapping[str, Any], metadata: Mapping[str, Any], *, strict: bool
) -> Findings:
    """Everything that can be said about a file that means to be a manifest."""
    version = artifact.metadata.schema_version
    problem = _version_problem(metadata.get("dbt_schema_version"), version)
    if problem or version is None:
        return Findings(problems=[problem] if problem else [])
    if version > dbt_versions.NEWEST_DBT1_SCHEMA_VERSION:
        found = _check_outline_only(artifact, top, strict=strict)
    else:
        published = bundled_schemas.published_schema(
            "manifest", version, artifact.metadata.dbt_version
        )
        found = _check_supported_version(artifact, top, version, published)
        if strict and published and not found.problems:
            found = _check_strictly(top, published, found)
    found.problems[:0] = check_metadata(metadata, version)
    return found


def _version_problem(claim: object, version: int | None) -> Problem | None:
    if claim is None:
        return Problem(
            _VERSION, "is missing: no dbt writes a manifest without it, and none reads one"
        )
    if version is None or claim != _URL.format(version):
        return Problem(
            _VERSION,
            f"expected {_URL.format('N')} with a number for N, got {describe_value(claim)}",
        )
    if version < dbt_versions.OLDEST_SCHEMA_VERSION:
        says = f"schema version {version} is of dbt before 1.0: no dbt that is maintained reads it"
        return Problem(_VERSION, f"{says}; build with dbt 1.0 or later")
    return None


def _check_supported_version(
    artifact: Artifact, top: Mapping[str, Any], version: int, published: ArtifactSchema | None
) -> Findings:
    """Schema versions 4 to 12: dbt's loader decides, save for what dbt 2.x wrote."""
    found = check_sections(top, bundled_schemas.loader_schema(version), published, DeferChecks())
    if found.is_loadable:
        found.readable_by = dbt_versions.versions_reading(version)
        found.drift += [
            f"{describe_drift(name, count)}; dbt reads them"
            for name, count in found.drift_counts.items()
        ]
        if "macros" in found.drift_counts and _JAVASCRIPT in artifact.content:
            found.drift.append(_NEEDS_ADAPTERS)
    elif dbt_versions.is_written_by_dbt2(artifact):
        why = found.first_violation
        found = check_sections(top, minimal_manifest_schema(), None, DeferChecks())
        found.readable_by, found.dbt1_obstacle = ("2",) if found.is_loadable else (), why
        found.warnings.append(_dbt2_only_warning(why))
    return found


def _check_outline_only(artifact: Artifact, top: Mapping[str, Any], *, strict: bool) -> Findings:
    """Version 20 of dbt 2.x, and versions that are newer than this program."""
    found = check_sections(top, minimal_manifest_schema(), None, DeferChecks())
    version = artifact.metadata.schema_version
    if version == dbt_versions.DBT2_SCHEMA_VERSION:
        found.readable_by = ("2",)
        found.warnings.append(
            "schema version 20 is of dbt 2.x: only dbt 2.x can defer to it, dbt 1.x can't read it"
        )
    else:
        found.warnings.append(
            f"schema version {version} is newer than this program: only its outline was checked"
        )
    if strict:
        says = (
            f"--strict needs the published schema, and none is known for schema version {version}"
        )
        found.problems.append(Problem(_VERSION, says))
    return found


def _check_strictly(
    top: Mapping[str, Any], published: ArtifactSchema, before: Findings
) -> Findings:
    found = check_sections(top, published, None, DeferChecks(), strict=True)
    found.readable_by, found.warnings, found.drift = (
        before.readable_by,
        before.warnings,
        before.drift,
    )
    return found


def _dbt2_only_warning(why: Problem | None) -> str:
    example = f", for example at {why.path}: {why.message}" if why else ""
    return f"written by dbt 2.x: only dbt 2.x can defer to it, dbt 1.x can't read it{example}"
