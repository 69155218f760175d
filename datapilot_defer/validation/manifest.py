"""A manifest: who wrote it, who can read it, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer.validation import bundled_schemas, dbt_versions
from datapilot_defer.validation.defer_checks import Use, metadata_problems
from datapilot_defer.validation.other_artifacts import drift
from datapilot_defer.validation.result import Problem
from datapilot_defer.validation.sections import Found, go_through
from datapilot_defer.validation.violations import describe
from datapilot_defer.validation.whole import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.artifact import Artifact
    from datapilot_defer.validation.schema import Rules

_VERSION = "$.metadata.dbt_schema_version"
_JAVASCRIPT = b'"javascript"'
# dbt-adapters teaches dbt-core before 1.12 this language when dbt starts; without it the loader refuses the macro.
_NEEDS_ADAPTERS = "a macro supports javascript: dbt before 1.12 reads that with the dbt-adapters that wrote it, or later"
_URL = "https://schemas.getdbt.com/dbt/manifest/v{}.json"


def look(
    artifact: Artifact, top: Mapping[str, Any], metadata: Mapping[str, Any], *, strict: bool
) -> Found:
    """Everything that can be said about a file that means to be a manifest."""
    version = artifact.schema_version
    problem = _version_problem(metadata.get("dbt_schema_version"), version)
    if problem or version is None:
        return Found(problems=[problem] if problem else [])
    if version > dbt_versions.NEWEST:
        found = _unloadable(artifact, top, strict=strict)
    else:
        published = bundled_schemas.published("manifest", version, artifact.dbt_version)
        found = _loadable(artifact, top, version, published)
        if strict and published and not found.problems:
            found = _by_the_letter(top, published, found)
    found.problems[:0] = metadata_problems(metadata, version)
    return found


def _version_problem(claim: object, version: int | None) -> Problem | None:
    if claim is None:
        return Problem(
            _VERSION, "is missing: no dbt writes a manifest without it, and none reads one"
        )
    if version is None or claim != _URL.format(version):
        return Problem(
            _VERSION, f"expected {_URL.format('N')} with a number for N, got {describe(claim)}"
        )
    if version < dbt_versions.OLDEST:
        says = f"schema version {version} is of dbt before 1.0: no dbt that is maintained reads it"
        return Problem(_VERSION, f"{says}; build with dbt 1.0 or later")
    return None


def _loadable(
    artifact: Artifact, top: Mapping[str, Any], version: int, published: Rules | None
) -> Found:
    """Schema versions 4 to 12: dbt's loader decides, save for what dbt 2.x wrote."""
    found = go_through(top, bundled_schemas.loader(version), published, Use())
    if found.loads:
        found.readable_by = dbt_versions.readers(version)
        found.drift += [
            f"{drift(name, count)}; dbt reads them" for name, count in found.drifting.items()
        ]
        if "macros" in found.drifting and _JAVASCRIPT in artifact.content:
            found.drift.append(_NEEDS_ADAPTERS)
    elif dbt_versions.by_fusion(artifact):
        why = found.unloadable
        found = go_through(top, whole(), None, Use())
        found.readable_by, found.obstacle = ("2",) if found.loads else (), why
        found.warnings.append(_only_fusion(why))
    return found


def _unloadable(artifact: Artifact, top: Mapping[str, Any], *, strict: bool) -> Found:
    """Version 20 of dbt 2.x, and versions that are newer than this program."""
    found = go_through(top, whole(), None, Use())
    version = artifact.schema_version
    if version == dbt_versions.FUSION:
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


def _by_the_letter(top: Mapping[str, Any], published: Rules, before: Found) -> Found:
    found = go_through(top, published, None, Use(), strict=True)
    found.readable_by, found.warnings, found.drift = (
        before.readable_by,
        before.warnings,
        before.drift,
    )
    return found


def _only_fusion(why: Problem | None) -> str:
    example = f", for example at {why.path}: {why.message}" if why else ""
    return f"written by dbt 2.x: only dbt 2.x can defer to it, dbt 1.x can't read it{example}"
