"""Safety checks that keep a wrong job from breaking defer for an integration's users."""

from __future__ import annotations

import hashlib

from datapilot_defer.artifact import ArtifactMetadata
from datapilot_defer.formatting import plural
from datapilot_defer.instance.services.conflicts import UnsafeUpload
from datapilot_defer.storage.integrations import Integration


def check_upload(
    integration: Integration, current: ArtifactMetadata | None, new: ArtifactMetadata
) -> None:
    """Raise UnsafeUpload unless a manifest may become current.

    current: the manifest that it would replace.
    """
    reason = _other_project_reason(integration, new)
    if reason is None and current is not None:
        reason = _older_reason(current, new) or _smaller_reason(current, new)
    if reason is not None:
        raise UnsafeUpload(f"{reason}; if it is meant to be, onboard it with --force")


def _other_project_reason(integration: Integration, new: ArtifactMetadata) -> str | None:
    expected = integration.project_name
    if expected is None or new.project_name is None:
        return None
    if _project_identifiers(expected) & _project_identifiers(new.project_name):
        return None
    return (
        f"integration {integration.id} ({integration.name}) belongs to the dbt project "
        f"{expected!r}, this manifest is of {new.project_name!r}"
    )


def _project_identifiers(project_name: str) -> set[str]:
    """Return a project's name and its MD5, the only name in old manifests (`project_id`)."""
    md5 = hashlib.md5(project_name.encode(), usedforsecurity=False).hexdigest()
    return {project_name, md5}


def _older_reason(current: ArtifactMetadata, new: ArtifactMetadata) -> str | None:
    if current.generated_at is None or new.generated_at is None:
        return None
    if new.generated_at >= current.generated_at:
        return None
    return (
        f"dbt wrote this manifest at {new.generated_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"before the current one ({current.generated_at:%Y-%m-%d %H:%M:%S} UTC)"
    )


def _smaller_reason(current: ArtifactMetadata, new: ArtifactMetadata) -> str | None:
    if new.model_count is None or not current.model_count:
        return None
    if new.model_count * 2 >= current.model_count:
        return None
    return (
        f"this manifest has {plural(new.model_count, 'model')}, "
        f"less than half of the current one's {current.model_count:,}"
    )
