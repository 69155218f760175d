"""Messages between the instance and a verification process, each one line of JSON.

The instance sends a `Message`, followed by the bytes of an artifact. The process responds to each
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
    """An announcement of the bytes of an artifact.

    is_compared: a message with the previous manifest follows if this one is valid. is_previous:
    this message contains the previous manifest.
    """

    kind: Kind
    size_bytes: int
    is_compared: bool = False
    is_previous: bool = False


@dataclass(frozen=True)
class Verification:
    """The result of verifying an uploaded artifact.

    metadata: None when the artifact could not be inspected. problem: why the artifact is not valid
    or could not be verified, or None if it is valid.

    report: lines as printed by `datapilot dbt validate`. changes, relations: differences from the
    previous manifest, or None if nothing was compared. If a comparison failed, the report explains
    why.
    """

    metadata: ArtifactMetadata | None = None
    problem: str | None = None
    report: tuple[str, ...] = ()
    changes: ModelChanges | None = None
    relations: RelationChanges | None = None


@dataclass(frozen=True)
class Result:
    """The response from the process to a message.

    For a previous manifest, `verification` contains only the differences, or the problem that
    prevented the comparison. peak_bytes: the peak memory use of the process, or None where it is
    unknown. is_last: whether the process is about to end.
    """

    verification: Verification = field(default_factory=Verification)
    peak_bytes: int | None = None
    is_last: bool = False
