"""The verdict on one artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Kind
from datapilot_defer.validation import dbt_versions, manifest, other_artifacts
from datapilot_defer.validation.file_type import foreign, other_kind
from datapilot_defer.validation.result import Problem, Verdict
from datapilot_defer.validation.sections import Found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.artifact import Artifact


def validate(
    artifact: Artifact,
    *,
    strict: bool = False,
    readable_by: str | None = None,
    limit: int | None = 10,
) -> Verdict:
    """Say whether an artifact is whole, and which dbt can read it.

    strict: refuse whatever the published schema does not allow, to the letter.
    readable_by: a version of dbt, such as "1.11" or "2"; refuse a manifest that it can't read.
    limit: at most so many problems; None for all, up to about a thousand.
    """
    try:
        found = _look(artifact, dbt_json.split(artifact.content), strict=strict)
    except dbt_json.NotJsonError as error:
        found = Found(problems=[Problem("$", f"the file {error}")])
    if (
        readable_by
        and artifact.kind is Kind.MANIFEST
        and not dbt_versions.covers(found.readable_by, readable_by)
    ):
        found.problems += _unreadable(found, artifact.schema_version, readable_by)
    shown = found.problems if limit is None else found.problems[:limit]
    return Verdict(
        artifact,
        problems=tuple(shown),
        warnings=tuple(found.warnings),
        drift=tuple(found.drift),
        readable_by=found.readable_by,
        more=len(found.problems) - len(shown),
        at_least=found.enough,
    )


def _look(artifact: Artifact, top: Mapping[str, Any], *, strict: bool) -> Found:
    metadata = _metadata(top)
    stranger = foreign(top, metadata, artifact.kind) or other_kind(top, metadata, artifact.kind)
    if stranger:
        return Found(problems=[Problem("$", stranger)])
    look = manifest.look if artifact.kind is Kind.MANIFEST else other_artifacts.look
    return look(artifact, top, metadata, strict=strict)


def _metadata(top: Mapping[str, Any]) -> dict[str, Any]:
    found = dbt_json.decode(top["metadata"]) if "metadata" in top else {}
    return found if isinstance(found, dict) else {}


def _unreadable(found: Found, version: int | None, wanted: str) -> list[Problem]:
    """Said only where nothing else says it."""
    if found.problems and not found.readable_by:
        return []
    if (why := found.obstacle) is not None:
        return [
            Problem(
                why.path,
                f"{why.message}: dbt 2.x wrote it, and dbt {wanted} can't read it",
                why.file,
            )
        ]
    who = dbt_versions.spelled(found.readable_by)
    return [
        Problem(
            "$.metadata.dbt_schema_version",
            f"dbt {wanted} can't read schema version {version}; {who} can",
        )
    ]
