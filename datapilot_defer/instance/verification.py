"""What the instance and its verification process exchange, each message as one line of JSON.

The instance sends a `Message`, followed by the bytes of an artifact; the process answers each
message with a `Result` of at most MAX_RESULT_BYTES. The bytes of the previous manifest are sent
after the new one is verified, so that the process never holds both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datapilot_defer.artifact import ArtifactMetadata, Kind
from datapilot_defer.instance.model_changes import ModelChanges, RelationChanges

MAX_RESULT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Message:
    """Announces the bytes of an artifact.

    is_compared: a message with the previous manifest follows if this one is valid. is_previous:
    this is that message.
    """

    kind: Kind
    size_bytes: int
    is_compared: bool = False
    is_previous: bool = False


@dataclass(frozen=True)
class Verification:
    """What is known about an uploaded artifact.

    metadata: None when verification failed. problem: why the artifact is not valid.
    report: lines as `datapilot dbt validate` prints them. changes, relations: differences from the
    previous manifest; None when nothing was compared, which the report explains.
    """

    metadata: ArtifactMetadata | None = None
    problem: str | None = None
    report: tuple[str, ...] = ()
    changes: ModelChanges | None = None
    relations: RelationChanges | None = None


@dataclass(frozen=True)
class Result:
    """What the process answers to a message.

    For a previous manifest, `verification` has the differences only, or the problem that prevented
    the comparison. peak_bytes: memory that the process has used at most; None where it is unknown.
    is_last: the process ends.
    """

    verification: Verification = field(default_factory=Verification)
    peak_bytes: int | None = None
    is_last: bool = False
