"""The record of a state directory: its artifacts and their origin."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from datapilot_defer.artifact import ArtifactMetadata, Kind, Provenance
from datapilot_defer.formatting import as_one_line, format_duration, map_strings

RECORD_VERSION = 1
_COMMIT_LENGTH = 10
# msgspec skips unknown fields recursively, so deep nesting raises RecursionError.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class PulledArtifact:
    """One pulled artifact.

    metadata: contains only the recorded facts if the artifact was read from a record. uploaded_at:
    ISO timestamp. readable_by: versions of dbt that can read it.
    """

    metadata: ArtifactMetadata
    provenance: Provenance = field(default_factory=Provenance)
    file_id: int | None = None
    uploaded_at: str | None = None
    readable_by: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Return the kind of artifact."""
        return self.metadata.kind

    @property
    def age_s(self) -> float | None:
        """Return the seconds since dbt wrote the artifact; None if it has no timestamp.

        A time in the future is treated as now. `request.check_age` rejects one that is far ahead.
        """
        if self.metadata.generated_at is None:
            return None
        age = datetime.now(UTC) - self.metadata.generated_at
        return max(0.0, age.total_seconds())

    @property
    def age_seconds(self) -> int | None:
        """Return the age in whole seconds, for JSON; None if it is unknown."""
        return None if self.age_s is None else round(self.age_s)

    def describe_age(self) -> str:
        """Return the age in words, with the commit if it is known."""
        if self.age_s is None:
            return "of unknown age"
        return f"{format_duration(self.age_s)} old{self.describe_commit()}"

    def describe_commit(self) -> str:
        """Return ", commit 0123456789", or "" for an unknown commit."""
        if not self.provenance.commit:
            return ""
        return f", commit {self.provenance.commit[:_COMMIT_LENGTH]}"

    def to_json(self) -> dict[str, object]:
        """Return the facts that the record stores, as JSON values."""
        facts = self.metadata.to_json()
        return {
            "kind": facts["kind"],
            "sha256": facts["sha256"],
            "size_bytes": facts["size_bytes"],
            "file_id": self.file_id,
            "schema_version": facts["schema_version"],
            "dbt_version": facts["dbt_version"],
            "project_name": facts["project_name"],
            "generated_at": facts["generated_at"],
            "uploaded_at": self.uploaded_at,
            "commit": self.provenance.commit,
            "branch": self.provenance.branch,
            "build_url": self.provenance.build_url,
            "readable_by": self.readable_by,
        }


@dataclass(frozen=True)
class StateRecord:
    """The contents of a state directory.

    origin: instance, integration and environment, in one line. environment, integration_name: their
    names on the instance; None if they are unknown.
    """

    origin: str
    environment: str | None
    artifacts: tuple[PulledArtifact, ...] = ()
    integration_name: str | None = None

    def find(self, kind: Kind) -> PulledArtifact | None:
        """Return the artifact of this kind, or None."""
        return next((artifact for artifact in self.artifacts if artifact.kind is kind), None)

    def to_json(self) -> bytes:
        """Return the content of the record's file."""
        record: dict[str, object] = {
            "origin": self.origin,
            "environment": self.environment,
            "entries": [artifact.to_json() for artifact in self.artifacts],
            "version": RECORD_VERSION,
        }
        if self.integration_name is not None:
            record["integration_name"] = self.integration_name
        text = json.dumps(record, indent=2, ensure_ascii=False)
        return text.encode(errors="replace")  # a response can contain an unpaired surrogate


def parse_record_version(content: bytes) -> int:
    """Return the version of a record; 0 if it is invalid."""
    try:
        return msgspec.json.decode(content, type=_StoredVersion).version
    except _UNREADABLE:
        return 0


def parse_record(content: bytes) -> StateRecord | None:
    """Return a record of the current version; None if it is invalid."""
    try:
        lines = map_strings(msgspec.json.decode(content), as_one_line)
        stored = msgspec.convert(lines, _StoredRecord)
    except _UNREADABLE:
        return None
    artifacts = tuple(entry.to_artifact() for entry in stored.entries)
    return StateRecord(stored.origin, stored.environment, artifacts, stored.integration_name)


class _StoredVersion(msgspec.Struct):
    """The field that records of all versions have in common."""

    version: int


class _StoredArtifact(msgspec.Struct):
    """The fields that the record stores for one artifact."""

    kind: Kind
    sha256: str
    size_bytes: int
    readable_by: tuple[str, ...]
    file_id: int | None = None
    schema_version: int | None = None
    dbt_version: str | None = None
    project_name: str | None = None
    generated_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    uploaded_at: str | None = None
    commit: str | None = None
    branch: str | None = None
    build_url: str | None = None

    def to_artifact(self) -> PulledArtifact:
        """Return the artifact that these fields describe."""
        metadata = ArtifactMetadata(
            kind=self.kind,
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            schema_version=self.schema_version,
            dbt_version=self.dbt_version,
            project_name=self.project_name,
            generated_at=self.generated_at,
        )
        provenance = Provenance(self.commit, self.branch, self.build_url)
        return PulledArtifact(
            metadata, provenance, self.file_id, self.uploaded_at, self.readable_by
        )


class _StoredRecord(msgspec.Struct):
    """A record as it is stored."""

    origin: str
    environment: str | None
    entries: tuple[_StoredArtifact, ...]
    integration_name: str | None = None
