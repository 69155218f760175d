"""catalog, run_results, sources and semantic_manifest: by the schema that dbt publishes, known drift aside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer.artifact import Kind
from datapilot_defer.validation import bundled_schemas
from datapilot_defer.validation.result import Problem
from datapilot_defer.validation.sections import Findings, check_sections, check_top_level
from datapilot_defer.validation.violations import describe_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.artifact import Artifact

_VERSION = "$.metadata.dbt_schema_version"
_URL = "https://schemas.getdbt.com/dbt/{}/v{}.json"


def check_other_artifact(
    artifact: Artifact, top: Mapping[str, Any], metadata: Mapping[str, Any], *, strict: bool
) -> Findings:
    """Everything that can be said about an artifact that is not a manifest."""
    kind, version = artifact.kind, artifact.metadata.schema_version
    if kind is not Kind.SEMANTIC_MANIFEST:  # which has no metadata
        problem = _version_problem(kind, metadata.get("dbt_schema_version"), version)
        if problem:
            return Findings(problems=[problem])
    published = bundled_schemas.published_schema(kind.value, version, artifact.metadata.dbt_version)
    if published is None:
        return _check_outline_only(kind, version, top, strict=strict)
    if strict:
        return check_sections(top, published, None, None, strict=True)
    found = check_sections(top, published.relaxed(), published, None)
    found.drift += [describe_drift(name, count) for name, count in found.drift_counts.items()]
    return found


def describe_drift(name: str, count: int) -> str:
    """What is said of entries that are fine and not as published."""
    entries = f"1 entry of {name} differs" if count == 1 else f"{count:,} entries of {name} differ"
    return f"{entries} from the schema that dbt published: unknown properties or new values"


def _version_problem(kind: Kind, claim: object, version: int | None) -> Problem | None:
    name = kind.value.replace("_", "-")
    oldest, _ = _known_versions(kind)
    if version is None or claim != _URL.format(name, version):
        return Problem(
            _VERSION,
            f"expected {_URL.format(name, 'N')} with a number for N, got {describe_value(claim)}",
        )
    if version < oldest:
        return Problem(
            _VERSION, f"schema version {version} is of dbt before 1.0; build with dbt 1.0 or later"
        )
    return None


def _known_versions(kind: Kind) -> tuple[int, int]:
    versions = [
        entry["schema_version"]
        for entry in bundled_schemas.list_schemas()
        if entry["kind"] == kind.value
    ]
    return min(versions), max(versions)


def _check_outline_only(
    kind: Kind, version: int | None, top: Mapping[str, Any], *, strict: bool
) -> Findings:
    newest = bundled_schemas.published_schema(kind.value, _known_versions(kind)[1], None)
    found = Findings(problems=list(check_top_level(newest.relaxed(), top)) if newest else [])
    found.warnings.append(
        f"schema version {version} is newer than this program: only its outline was checked"
    )
    if strict:
        says = (
            f"--strict needs the published schema, and none is known for schema version {version}"
        )
        found.problems.append(Problem(_VERSION, says))
    return found
