"""The act of pulling: an environment's artifacts from an instance into a state directory."""

from __future__ import annotations

from dataclasses import replace

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import Unavailable
from datapilot_defer.pull import state_directory
from datapilot_defer.pull.fetch import _download_changed, _is_same_artifact, _locate
from datapilot_defer.pull.request import PullOptions, PullResult, Source, age, check_age

__all__ = [
    "FRESHNESS_CHECK_TIMEOUT_S",
    "PullOptions",
    "PullResult",
    "Source",
    "age",
    "check_age",
    "pull",
]

FRESHNESS_CHECK_TIMEOUT_S = (
    10.0  # for asking whether there is something new, when there is something to go on with
)


def pull(
    source: Source, wish: PullOptions, *, force: bool = False, offline: bool = False
) -> PullResult:
    """Bring the state directory up to date; when it is, that costs one small request.

    Raises NotFound when nothing was onboarded, ArtifactRefused for what dbt could not read or what is too old,
    UsageError for a folder that can't be used, Unavailable when the instance can't be reached and there is
    nothing to go on with.
    """
    held = None if force else _read_usable(source, wish)
    try:
        pulled = (
            _offline(held, source, wish)
            if offline
            else _is_current(held, source, wish) or _download_changed(source, wish, force=force)
        )
    except Unavailable as error:
        if held is None or offline:
            raise
        source.warn(f"{error}; going on with what was pulled before ({age(held.manifest)})")
        pulled = replace(held, offline=True)
    check_age(pulled.manifest, wish.max_age_s)
    return pulled


def _offline(held: PullResult | None, source: Source, wish: PullOptions) -> PullResult:
    if held is None:
        raise Unavailable(
            f"offline, and nothing usable was pulled from {wish.description} to {source.folder} before"
        )
    return replace(held, offline=True)


def _read_usable(source: Source, wish: PullOptions) -> PullResult | None:
    """What is there already, when it is whole, from the right place and readable."""
    record = state_directory.read_record(source.folder)
    if record is None or record.origin != source.origin(wish):
        return None
    found = [record.entry(kind) for kind in wish.kinds]
    entries = tuple(
        entry for entry in found if entry and state_directory.is_intact(source.folder, entry)
    )
    if len(entries) < len(wish.kinds) or not all(map(wish.accepts, entries)):
        return None
    return PullResult(source.folder, entries, record.environment)


def _is_current(held: PullResult | None, source: Source, wish: PullOptions) -> PullResult | None:
    """What is held, when the instance says that it is still current: one small request per kind."""
    if held is None:
        return None
    instance = source.connect(FRESHNESS_CHECK_TIMEOUT_S)
    current = all(
        _is_same_artifact(entry, _locate(instance, Kind(entry.kind), wish))
        for entry in held.entries
    )
    return held if current else None
