"""What to pull, where from and to, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Kind
from datapilot_defer.console import Progress as TransferProgress
from datapilot_defer.errors import ArtifactRefused
from datapilot_defer.pull.state_directory import PulledArtifact

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient

Say = Callable[[str], None]
Progress = Callable[[str, int], AbstractContextManager[TransferProgress]]
Connect = Callable[[float | None], "InstanceClient"]


@dataclass(frozen=True)
class PullOptions:
    """What to pull. environment None: the one that the instance chooses. file_id or at (ISO time): an earlier artifact.

    readable_by: the version of dbt that will read it, such as "1.8"; None when that is not known.
    max_age_s: how old the manifest may be, in seconds.
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
        """Names the earlier artifact that is wanted, if one is."""
        return str(self.file_id) if self.file_id is not None else self.at

    def accepts(self, entry: PulledArtifact) -> bool:
        """Whether the dbt that will read it can. Raises UsageError when `readable_by` is no version."""
        from datapilot_defer.validation.dbt_versions import includes_version

        return (
            entry.kind != Kind.MANIFEST.value
            or not self.readable_by
            or includes_version(entry.readable_by, self.readable_by)
        )

    @property
    def description(self) -> str:
        """In words for people."""
        return f"integration {self.integration_id}" + (
            f", environment {self.environment}" if self.environment else ""
        )


@dataclass(frozen=True)
class PullResult:
    """What the state directory holds. unchanged: it did before. offline: the instance had no say in it."""

    folder: Path
    entries: tuple[PulledArtifact, ...]
    environment: str | None
    unchanged: bool = True
    offline: bool = False

    @property
    def manifest(self) -> PulledArtifact | None:
        """The entry of the manifest, if that was wanted."""
        return next((entry for entry in self.entries if entry.kind == Kind.MANIFEST.value), None)


@dataclass(frozen=True)
class Source:
    """Where to pull from and to. connect: gives the instance, for so many seconds (None: as long as the command may
    take). url, instance_name: the instance's, for the record. guarded: files there that no pull put there stay."""

    connect: Connect
    url: str
    instance_name: str
    folder: Path
    guarded: bool
    warn: Say
    progress: Progress

    def origin(self, wish: PullOptions) -> str:
        """One line that says where a state directory's artifacts are from."""
        pin = f" @ {wish.pin}" if wish.pin else ""
        environment = (wish.environment or "").lower()
        instance = f"{self.url} instance {self.instance_name!r}"
        return f"{instance} integration {wish.integration_id} environment {environment}{pin}"


def check_age(manifest: PulledArtifact | None, max_age_s: float | None) -> None:
    """Raises ArtifactRefused when the manifest is older than that, or does not say how old it is."""
    if (
        manifest is None
        or max_age_s is None
        or (manifest.age_s is not None and manifest.age_s <= max_age_s)
    ):
        return
    raise ArtifactRefused(
        f"the manifest is too old: {age(manifest)}, allowed is {duration(max_age_s)}; "
        "has the production job failed to onboard a new one? A higher --max-age accepts it"
    )


def age(manifest: PulledArtifact | None) -> str:
    """How old a manifest is, in words, with its commit when that is known."""
    if manifest is None or manifest.age_s is None:
        return "of unknown age"
    commit = f", commit {manifest.commit[:10]}" if manifest.commit else ""
    return f"{duration(manifest.age_s)} old{commit}"


def duration(seconds: float) -> str:
    """A length of time as people say it, in its largest unit: "45 s", "3 min", "2 h", "5 d"."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
