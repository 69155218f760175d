"""What keeps a wrong job from breaking everybody's defer: checks of an upload before it becomes current."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from datapilot_defer import artifact, dbt_json
from datapilot_defer.artifact import Artifact, Kind
from datapilot_defer.errors import ArtifactRefused, DatapilotError
from datapilot_defer.storage.integrations import Integration
from datapilot_defer.storage.uploads import Upload


@dataclass(frozen=True)
class Facts:
    """What an artifact says of itself, as its record keeps it."""

    dbt_version: str | None
    schema_version: int | None
    project_name: str | None
    node_count: int | None
    model_count: int | None
    generated_at: datetime | None
    invocation_id: str | None


def recognised(content: bytes, kind: Kind) -> Facts:
    """Give what a whole artifact of this kind says of itself; costs one or two passes over the bytes.

    Raises ArtifactRefused when the bytes are not JSON, or not a `kind` that dbt wrote.
    """
    try:
        top = dbt_json.split(content)
    except dbt_json.NotJsonError as error:
        raise ArtifactRefused(
            f"the {kind.value} that arrived {error}; upload it again, whole"
        ) from None
    found = artifact.detect_kind(top, artifact.decode_metadata(top))
    if found is not kind:
        what = f"a {found.value}" if found else "no artifact that dbt writes"
        raise ArtifactRefused(
            f"announced as {kind.value}, but this is {what}; upload {kind.file_name}"
        )
    read = artifact.parse_artifact(content, path=kind.file_name, kind=kind)
    return _facts(read, _models(top) if kind is Kind.MANIFEST else None)


class UnsafeUpload(DatapilotError):
    """This manifest would break somebody's defer; `str()` of it says how, and the way round."""


def check_upload(integration: Integration, current: Upload | None, facts: Facts) -> None:
    """Go on only with a manifest that may become current. Raises Guarded.

    current: the manifest that it would replace.
    """
    reason = _other_project_reason(integration, facts)
    if current is not None:
        reason = reason or _older_reason(current, facts) or _smaller_reason(current, facts)
    if reason:
        raise UnsafeUpload(f"{reason}; if it is meant to be, onboard it with --force")


def _other_project_reason(integration: Integration, facts: Facts) -> str | None:
    mine, theirs = integration.project_name, facts.project_name
    if mine is None or theirs is None or _project_identifiers(mine) & _project_identifiers(theirs):
        return None
    return (
        f"integration {integration.id} ({integration.name}) belongs to the dbt project {mine!r}, "
        f"this manifest is of {theirs!r}"
    )


def _project_identifiers(project: str) -> set[str]:
    """Old manifests name their project only by the MD5 of its name (`metadata.project_id`)."""
    return {project, hashlib.md5(project.encode(), usedforsecurity=False).hexdigest()}


def _older_reason(current: Upload, facts: Facts) -> str | None:
    if (
        current.generated_at is None
        or facts.generated_at is None
        or facts.generated_at >= current.generated_at
    ):
        return None
    mine, theirs = (
        f"{moment:%Y-%m-%d %H:%M:%S} UTC" for moment in (facts.generated_at, current.generated_at)
    )
    return f"dbt wrote this manifest at {mine}, before the current one ({theirs})"


def _smaller_reason(current: Upload, facts: Facts) -> str | None:
    if (
        facts.model_count is None
        or not current.model_count
        or facts.model_count * 2 >= current.model_count
    ):
        return None
    return f"this manifest has {facts.model_count} models, less than half of the current one's {current.model_count}"


def _models(top: Mapping[str, Any]) -> int:
    try:
        return sum(key.startswith("model.") for key in dbt_json.entries(top["nodes"]))
    except (KeyError, dbt_json.NotJsonError):
        return 0


def _facts(read: Artifact, model_count: int | None) -> Facts:
    return Facts(
        dbt_version=_storable(read.metadata.dbt_version),
        schema_version=read.metadata.schema_version,
        project_name=_storable(read.metadata.project_name or read.metadata.project_id),
        node_count=read.metadata.node_count,
        model_count=model_count,
        generated_at=read.metadata.generated_at,
        invocation_id=_storable(read.metadata.invocation_id),
    )


def _storable(text: str | None) -> str | None:
    """A file may say anything; a database takes neither half a surrogate pair nor, some of them, NUL."""
    return (
        text.encode(errors="replace").decode().replace("\0", "?")[:200]
        if text is not None
        else None
    )
