"""Checks that prevent a misconfigured job from breaking defer for an integration's users."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from datapilot_defer.artifact import ArtifactMetadata
from datapilot_defer.formatting import plural
from datapilot_defer.instance.model_changes import RelationChanges
from datapilot_defer.storage.integrations import Integration, UploadCheck

# The clocks of the job and the instance may differ by this much.
MAX_CLOCK_DIFFERENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class FailedCheck:
    """A check that a manifest does not pass. reason: why it does not pass, without advice."""

    check: UploadCheck
    reason: str


def describe_future(new: ArtifactMetadata, now: datetime) -> str | None:
    """Return why an artifact is rejected if its time is in the future, or otherwise None.

    If a manifest with such a time were current, the check "older" would reject every later
    manifest.
    """
    if new.generated_at is None or new.generated_at - now <= MAX_CLOCK_DIFFERENCE:
        return None
    return (
        f"dbt wrote this {new.kind.value} at {_format_time(new.generated_at)}, but the clock of "
        f"the instance shows {_format_time(now)}. Correct the clock of the machine that runs dbt "
        "or that of the instance, and run dbt again."
    )


def find_failed_checks(
    integration: Integration,
    current: ArtifactMetadata | None,
    new: ArtifactMetadata,
    relations: RelationChanges | None,
    now: datetime,
) -> list[FailedCheck]:
    """Return the checks that a manifest does not pass.

    current: the manifest that the new one would replace, or None if there is none. relations: the
    differences between the relations of the two, or None if they were not compared.
    """
    reasons = {UploadCheck.PROJECT: _other_project_reason(integration, new)}
    if current is not None:
        reasons[UploadCheck.OLDER] = _older_reason(current, new, now)
        reasons[UploadCheck.SMALLER] = _smaller_reason(current, new)
    if relations is not None:
        reasons[UploadCheck.RELATIONS] = _moved_reason(relations)
    return [FailedCheck(check, reason) for check, reason in reasons.items() if reason is not None]


def describe_allowing(failed_checks: Sequence[FailedCheck], new: ArtifactMetadata) -> str:
    """Return advice on publishing a manifest that does not pass these checks."""
    options = " ".join(f"--allow {failed.check}" for failed in failed_checks)
    advice = f"If this is intended, onboard it with {options}."
    names = {failed.check for failed in failed_checks}
    if UploadCheck.PROJECT not in names or new.project_name is None:
        return advice
    return f"{advice} From then on, the integration accepts only the project {new.project_name!r}."


def _other_project_reason(integration: Integration, new: ArtifactMetadata) -> str | None:
    expected = integration.project_name
    if expected is None:
        return None
    if new.project_name is None:
        return (
            f"integration {integration.id} ({integration.name}) belongs to the dbt project "
            f"{expected!r}, but this manifest does not name its project"
        )
    if _project_identifiers(expected) & _project_identifiers(new.project_name):
        return None
    return (
        f"integration {integration.id} ({integration.name}) belongs to the dbt project "
        f"{expected!r}, but this manifest is of the project {new.project_name!r}"
    )


def _project_identifiers(project_name: str) -> set[str]:
    """Return a project's name and the MD5 hash of the name.

    Old manifests contain only the hash, as `project_id`.
    """
    md5 = hashlib.md5(project_name.encode(), usedforsecurity=False).hexdigest()
    return {project_name, md5}


def _older_reason(current: ArtifactMetadata, new: ArtifactMetadata, now: datetime) -> str | None:
    if current.generated_at is None or new.generated_at is None:
        return None
    # Release 0.1.0 accepted manifests with a time in the future. Do not reject all later manifests.
    if describe_future(current, now) is not None:
        return None
    if new.generated_at >= current.generated_at:
        return None
    return (
        f"dbt wrote this manifest at {_format_time(new.generated_at)}, "
        f"before the current one ({_format_time(current.generated_at)})"
    )


def _smaller_reason(current: ArtifactMetadata, new: ArtifactMetadata) -> str | None:
    if new.model_count is None or not current.model_count:
        return None
    if new.model_count * 2 >= current.model_count:
        return None
    return (
        f"this manifest has {plural(new.model_count, 'model')}, "
        f"less than half of the {current.model_count:,} in the current one"
    )


def _moved_reason(relations: RelationChanges) -> str | None:
    if relations.moved * 2 <= relations.compared:
        return None
    return (
        f"{relations.moved:,} of {plural(relations.compared, 'relation')} moved to another "
        f"database or schema, such as from {relations.example_before} to "
        f"{relations.example_after}: it may have been built with another target"
    )


def _format_time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
