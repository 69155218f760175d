"""The request for a pull, its result, and the age limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind
from datapilot_defer.errors import ArtifactRefused
from datapilot_defer.formatting import format_duration
from datapilot_defer.pull.record import PulledArtifact

if TYPE_CHECKING:
    from datapilot_defer.client.connection import InstanceAddress

# The clocks of the machine that ran dbt and of this one may differ by this much.
MAX_CLOCK_DIFFERENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class PullOptions:
    """A request for artifacts.

    environment: None lets the instance choose. file_id: the ID of an earlier artifact. at: ISO
    timestamp at which an earlier artifact was current. readable_by: the version of dbt that will
    read the manifest, such as "1.8"; None accepts every version. max_age_s: maximum age of the
    manifest, in seconds; None for no limit.
    """

    integration_id: int
    environment: str | None = None
    kinds: tuple[Kind, ...] = (Kind.MANIFEST,)
    file_id: int | None = None
    at: str | None = None
    readable_by: str | None = None
    max_age_s: float | None = None

    @property
    def pin(self) -> str | None:
        """Return the file ID or timestamp that selects an earlier artifact, or None."""
        if self.file_id is not None:
            return str(self.file_id)
        return self.at

    @property
    def description(self) -> str:
        """Return the integration and the requested environment, for messages."""
        if not self.environment:
            return f"integration {self.integration_id}"
        return f"integration {self.integration_id}, environment {self.environment}"

    def origin(self, address: InstanceAddress) -> str:
        """Return the origin of the artifacts in one line, for the record."""
        environment = (self.environment or "").lower()
        origin = (
            f"{address.url} instance {address.instance_name!r} "
            f"integration {self.integration_id} environment {environment}"
        )
        if self.pin:
            origin += f" @ {self.pin}"
        return origin

    def accepts(self, artifact: PulledArtifact) -> bool:
        """Return whether the requested version of dbt can read the artifact.

        Only a manifest is checked, and only if a version is requested. Raises UsageError if
        `readable_by` is not a version.
        """
        from datapilot_defer.validation.dbt_versions import includes_version

        if artifact.kind is not Kind.MANIFEST or not self.readable_by:
            return True
        return includes_version(artifact.readable_by, self.readable_by)


@dataclass(frozen=True)
class PullResult:
    """The contents of the state directory after a pull.

    artifacts: in the order of the requested kinds. unchanged: nothing was downloaded. offline: the
    artifacts are those of an earlier pull that the instance did not confirm. contents: the
    artifacts whose content is in memory. integration_name: None if it is not known.
    """

    directory: Path
    artifacts: tuple[PulledArtifact, ...]
    environment: str | None
    unchanged: bool = True
    offline: bool = False
    contents: Mapping[Kind, Artifact] = field(default_factory=dict, repr=False)
    integration_name: str | None = None

    @property
    def manifest(self) -> PulledArtifact | None:
        """Return the manifest; None if it was not requested."""
        manifests = (artifact for artifact in self.artifacts if artifact.kind is Kind.MANIFEST)
        return next(manifests, None)


def describe_age(manifest: PulledArtifact | None) -> str:
    """Return the age of a manifest, and its commit if known, in words."""
    if manifest is None:
        return "of unknown age"
    return manifest.describe_age()


def check_age(manifest: PulledArtifact | None, max_age_s: float | None) -> None:
    """Raise ArtifactRefused for a manifest that is too old or was written in the future.

    max_age_s: None sets no limit, and accepts an unknown age.
    """
    if manifest is None:
        return
    _check_not_in_future(manifest)
    if max_age_s is None:
        return
    if manifest.age_s is not None and manifest.age_s <= max_age_s:
        return
    raise ArtifactRefused(
        f"the manifest is too old: it is {manifest.describe_age()}, and the limit is "
        f"{format_duration(max_age_s)}. Check that the production job onboards a new one, "
        "or use a higher --max-age"
    )


def _check_not_in_future(manifest: PulledArtifact) -> None:
    generated_at = manifest.metadata.generated_at
    now = datetime.now(UTC)
    if generated_at is None or generated_at - now <= MAX_CLOCK_DIFFERENCE:
        return
    raise ArtifactRefused(
        f"the manifest was written in the future: dbt wrote it at {_format_moment(generated_at)}, "
        f"but the clock of this machine shows {_format_moment(now)}. Correct this machine's clock, "
        "or that of the machine that ran dbt, and onboard a new manifest."
    )


def _format_moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
