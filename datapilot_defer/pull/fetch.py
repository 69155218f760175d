"""Fetching: every artifact is downloaded and checked before the first of them appears."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.artifact import Artifact, Kind, parse_artifact
from datapilot_defer.errors import AccessDenied, ArtifactRefused, NotFound, Unavailable, UsageError
from datapilot_defer.pull import state_directory
from datapilot_defer.pull.request import PullOptions, PullResult, Source
from datapilot_defer.pull.state_directory import PulledArtifact, StateRecord

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.client.responses import ArtifactLocation


def _locate(instance: InstanceClient, kind: Kind, wish: PullOptions) -> ArtifactLocation:
    """Where the instance has it. Raises NotFound, saying what there is instead."""
    try:
        return instance.locate_artifact(
            kind,
            wish.integration_id,
            environment=wish.environment,
            file_id=wish.file_id,
            at=wish.at,
        )
    except NotFound as error:
        raise _explain_not_found(error, instance, kind, wish) from None


def _is_same_artifact(entry: PulledArtifact, place: ArtifactLocation) -> bool:
    """Whether what the instance has is what was pulled: by its bytes, or where those are not told by its file id."""
    return entry.sha256 == place.sha256 if place.sha256 else entry.file_id == place.file_id


def _download_changed(source: Source, wish: PullOptions, *, force: bool) -> PullResult:
    """Fetch what is new, check all of it, and only then let it appear. force: write over files of others."""
    instance = source.connect(None)
    _locate(instance, wish.kinds[0], wish)  # nothing there: say so before a folder is made
    with state_directory.lock(source.folder):
        before = None if force else state_directory.read_record(source.folder)
        if source.guarded and not force:
            _check_foreign_files(source, wish, before)
        known = before if before and before.origin == source.origin(wish) else None
        # Asked again under the lock: the first answer may be older than what another process has written since.
        places = _locate_all(instance, wish, known)
        kept = {
            kind: entry
            for kind in places
            if (entry := _find_unchanged(source.folder, known, kind, places[kind], wish))
        }
        fresh: dict[Kind, Artifact] = {}
        for kind in [kind for kind in places if kind not in kept]:
            places[kind], fresh[kind] = _download_verified(
                instance, kind, places[kind], source, wish
            )
        entries = kept | {
            kind: _validate_download(artifact, places[kind], wish)
            for kind, artifact in fresh.items()
        }
        environment = places[wish.kinds[0]].environment or wish.environment
        record = StateRecord(source.origin(wish), environment, tuple(entries.values()))
        gone = [
            Kind(entry.kind)
            for entry in (before.entries if before else ())
            if Kind(entry.kind) not in entries
        ]
        state_directory.replace_artifacts(source.folder, fresh, record, gone=gone)
    _warn_if_environment_unconfirmed(source, wish, places[wish.kinds[0]])
    return PullResult(
        source.folder, tuple(entries[kind] for kind in wish.kinds), environment, unchanged=not fresh
    )


def _locate_all(
    instance: InstanceClient, wish: PullOptions, known: StateRecord | None
) -> dict[Kind, ArtifactLocation]:
    """Where everything is: what is wanted, and what was pulled beside it before, so that the set stays one set."""
    places = {kind: _locate(instance, kind, wish) for kind in wish.kinds}
    for entry in known.entries if known and wish.file_id is None else ():
        if Kind(entry.kind) not in places:
            try:
                places[Kind(entry.kind)] = _locate(instance, Kind(entry.kind), wish)
            except NotFound:
                continue  # no longer there: it leaves the set
    return places


def _find_unchanged(
    folder: Path, known: StateRecord | None, kind: Kind, place: ArtifactLocation, wish: PullOptions
) -> PulledArtifact | None:
    entry = known.entry(kind) if known else None
    if entry is None or not _is_same_artifact(entry, place) or not wish.accepts(entry):
        return None
    return entry if state_directory.is_intact(folder, entry) else None


def _download_verified(
    instance: InstanceClient, kind: Kind, there: ArtifactLocation, source: Source, wish: PullOptions
) -> tuple[ArtifactLocation, Artifact]:
    """The artifact as the instance has it, and where it was found.

    Where it is is asked anew once: a signed URL may expire in a wait, and bytes may be changed on the way.
    Raises Unavailable when they arrive damaged again.
    """
    for last in (False, True):
        try:
            content = _download_once(instance, kind, there, source)
        except AccessDenied:
            if last:
                raise
        else:
            digest = hashlib.sha256(content).hexdigest()
            if there.sha256 in (None, digest):
                return there, parse_artifact(
                    content, path=str(source.folder / kind.file_name), kind=kind
                )
            if last:
                raise Unavailable(
                    f"the {kind.value} of {wish.description} arrived damaged (sha256 {digest[:12]}…, the instance has "
                    f"{str(there.sha256)[:12]}…); what was pulled before is untouched"
                )
        there = _locate(instance, kind, wish)
    raise AssertionError("unreachable: the last try returns or raises")


def _download_once(
    instance: InstanceClient, kind: Kind, there: ArtifactLocation, source: Source
) -> bytes:
    try:
        with tempfile.TemporaryFile(dir=source.folder) as file:
            with source.progress(kind.value, there.size_bytes or 0) as progress:
                instance.download(there, file, kind.value, progress)
            file.seek(0)
            return file.read()
    except OSError as error:
        raise state_directory.not_writable_error(source.folder, error) from None


def _validate_download(
    artifact: Artifact, place: ArtifactLocation, wish: PullOptions
) -> PulledArtifact:
    """The record of an artifact. Raises ArtifactRefused when dbt could not read it."""
    from datapilot_defer.validation import validate

    verdict = validate(
        artifact, readable_by=wish.readable_by if artifact.kind is Kind.MANIFEST else None
    )
    if not verdict.is_accepted:
        reader = f" that dbt {wish.readable_by} can read" if wish.readable_by else ""
        lines = "\n".join(verdict.format_problems())
        raise ArtifactRefused(
            f"{wish.description} has no {artifact.kind.value}{reader}; nothing was changed here:\n{lines}"
        )
    return replace(
        state_directory.describe(artifact, verdict.readable_by),
        file_id=place.file_id,
        uploaded_at=place.uploaded_at,
        commit=place.commit,
        branch=place.branch,
        build_url=place.build_url,
    )


def _check_foreign_files(source: Source, wish: PullOptions, record: StateRecord | None) -> None:
    in_the_way = state_directory.find_foreign_files(source.folder, list(wish.kinds), record)
    if in_the_way:
        raise UsageError(
            f"{in_the_way[0]} was not put there by a pull; take another folder, or write over it with --force"
        )


def _warn_if_environment_unconfirmed(
    source: Source, wish: PullOptions, place: ArtifactLocation
) -> None:
    """An instance that ignores the environment hands out another one's artifact without a word."""
    if wish.environment and place.environment is None:
        source.warn(
            f"{source.url} does not say which environment it answers for, so this may not be {wish.environment}'s; "
            "it may not tell environments apart when an artifact is fetched"
        )


def _explain_not_found(
    error: NotFound, instance: InstanceClient, kind: Kind, wish: PullOptions
) -> NotFound:
    """The same error with what there is instead."""
    found = next(
        (each for each in instance.list_integrations() if each.id == wish.integration_id), None
    )
    if found is None:
        known = (
            ", ".join(f"{each.id} ({each.name})" for each in instance.list_integrations()[:20])
            or "none yet"
        )
        return NotFound(
            f"no integration {wish.integration_id} on {instance.url}; there are: {known}"
        )
    names = {name.lower() for name in found.environments}
    if wish.environment and names and wish.environment.lower() not in names:
        there = ", ".join(found.environments)
        return NotFound(
            f"integration {found.id} ({found.name}) has no environment {wish.environment}; it has: {there}"
        )
    environment = wish.environment or next(iter(found.environments), "PROD")
    options = f"--integration-id {found.id} --environment {environment}"
    if wish.pin:
        none = (
            f"file {wish.pin} of {wish.description} is no"
            if wish.file_id is not None
            else f"{wish.description} has no"
        )
        at = "" if wish.file_id is not None else f" at {wish.pin}"
        return NotFound(
            f"{none} {kind.value}{at}; `datapilot dbt integrations history {options}` lists them"
        )
    if kind is not Kind.MANIFEST:  # onboarded by itself
        options += f" --{kind.value.replace('_', '-')}-path target/{kind.file_name}"
    return NotFound(
        f"{kind.file_name} was not onboarded to integration {found.id} ({found.name}), environment {environment} yet; "
        f"the production job does that with `datapilot dbt onboard {options}`"
    )
