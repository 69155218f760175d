"""What an artifact is: a JSON file that dbt wrote, its bytes as they are, and what its metadata says."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """Which of dbt's files an artifact is. The value is the word that travels to an instance."""

    MANIFEST = "manifest"
    CATALOG = "catalog"
    RUN_RESULTS = "run_results"
    SOURCES = "sources"
    SEMANTIC_MANIFEST = "semantic_manifest"

    @property
    def file_name(self) -> str:
        """The name under which dbt writes it, such as "run_results.json"."""
        return f"{self.value}.json"


@dataclass(frozen=True)
class Artifact:
    """One artifact, read once: what is checked, hashed and sent are these same bytes.

    path: as the user named it. sha256: 64 lowercase hex digits. schema_version: the number in
    `metadata.dbt_schema_version`. generated_at: aware, in UTC. node_count: entries of `nodes`, manifests
    only. Whatever the bytes do not say, or say unreadably, is None.
    """

    kind: Kind
    path: str
    content: bytes = field(repr=False)
    sha256: str
    schema_version: int | None = None
    dbt_version: str | None = None
    project_name: str | None = None
    project_id: str | None = None
    adapter_type: str | None = None
    generated_at: datetime | None = None
    invocation_id: str | None = None
    node_count: int | None = None

    @property
    def size_bytes(self) -> int:
        """How many bytes dbt wrote."""
        return len(self.content)


def read_artifact(path: str | Path, kind: Kind | None = Kind.MANIFEST) -> Artifact:
    """Read a file of dbt's, once.

    kind: what it must be; None recognises it by its content, then by its name.
    Raises UsageError when there is no such file, it is a folder, or it can't be read.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UsageError(_not_found_message(Path(path), kind)) from None
    except IsADirectoryError:
        raise UsageError(_is_directory_message(Path(path), kind)) from None
    except MemoryError:
        raise UsageError(f"{path}: is too large for this machine's memory") from None
    except (OSError, ValueError) as error:
        # Windows says "permission denied" for a folder; unlike Path.is_dir, this never raises that itself.
        if os.path.isdir(path):  # noqa: PTH112
            raise UsageError(_is_directory_message(Path(path), kind)) from None
        raise UsageError(
            f"{path}: can't be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    return parse_artifact(content, path=str(path), kind=kind)


def parse_artifact(content: bytes, *, path: str, kind: Kind | None) -> Artifact:
    """Take bytes that came from `path` (a name for messages) as an artifact.

    Never raises for what the bytes hold: what can't be read is None, and validation says why.
    """
    try:
        top: Mapping[str, Any] = dbt_json.split(content)
    except dbt_json.NotJsonError:
        top = {}
    metadata = decode_metadata(top)
    if kind is None:
        kind = detect_kind(top, metadata) or _kind_from_file_name(path)
    return Artifact(
        kind=kind,
        path=path,
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        schema_version=parse_schema_version(metadata.get("dbt_schema_version")),
        dbt_version=_get_string(metadata, "dbt_version"),
        project_name=_get_string(metadata, "project_name"),
        project_id=_get_string(metadata, "project_id"),
        adapter_type=_get_string(metadata, "adapter_type"),
        generated_at=_parse_timestamp(metadata.get("generated_at")),
        invocation_id=_get_string(metadata, "invocation_id"),
        node_count=_count_nodes(top) if kind is Kind.MANIFEST else None,
    )


def detect_kind(top: Mapping[str, Any], metadata: Mapping[str, Any]) -> Kind | None:
    """Which artifact this is, by what its metadata claims, else by the sections that only one kind has."""
    claim = str(metadata.get("dbt_schema_version"))
    found = re.fullmatch(r".*/dbt/([a-z-]+)/v\d+\.json", claim)
    if found and found.group(1).replace("-", "_") in set(Kind):
        return Kind(found.group(1).replace("-", "_"))
    marks = (
        (Kind.SEMANTIC_MANIFEST, {"semantic_models", "project_configuration"}),
        (Kind.MANIFEST, {"nodes", "macros"}),
        (Kind.CATALOG, {"nodes", "sources", "errors"}),
        (Kind.RUN_RESULTS, {"results", "elapsed_time", "args"}),
    )
    return next((kind for kind, keys in marks if keys <= top.keys()), None)


def parse_schema_version(claim: object) -> int | None:
    """The number in ".../dbt/manifest/v12.json"; None when there is none."""
    found = re.search(r"/v(\d{1,6})\.json$", claim) if isinstance(claim, str) else None
    return int(found.group(1)) if found else None


def decode_metadata(top: Mapping[str, Any]) -> dict[str, Any]:
    """The section `metadata` of a file that was split; {} when it has none that can be read."""
    try:
        found = dbt_json.decode(top["metadata"])
    except (KeyError, dbt_json.NotJsonError):
        return {}
    return found if isinstance(found, dict) else {}


def _get_string(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) else None


def _parse_timestamp(value: object) -> datetime | None:
    """dbt writes "2026-11-22T10:00:00.123456Z": UTC, also where the zone is left out; some give 9 decimals."""
    if not isinstance(value, str):
        return None
    found = re.fullmatch(r"(.*?)(\.\d+)?(Z|[+-]\d\d:\d\d)?", value)
    base, fraction, zone = found.groups() if found else (value, None, None)
    try:
        moment = datetime.fromisoformat(
            f"{base}{(fraction or '.0')[:7]:0<7}{(zone or 'Z').replace('Z', '+00:00')}"
        )
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _count_nodes(top: Mapping[str, Any]) -> int | None:
    try:
        return dbt_json.count(top["nodes"])
    except (KeyError, dbt_json.NotJsonError):
        return None


def _kind_from_file_name(path: str) -> Kind:
    name = re.split(r"[/\\]", path)[-1].removesuffix(".json").replace("-", "_")
    return next((kind for kind in Kind if kind.value == name), Kind.MANIFEST)


def _not_found_message(path: Path, kind: Kind | None) -> str:
    looked = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
    advice = (
        ""
        if kind not in (None, Kind.MANIFEST)
        else "; dbt writes it: run `dbt parse`, or give the right path"
    )
    return f"{path}: no such file{looked}{advice}"


def _is_directory_message(path: Path, kind: Kind | None) -> str:
    inside = path / (kind or Kind.MANIFEST).file_name
    advice = (
        f"give {inside}"
        if inside.is_file()
        else f"it holds no {inside.name}; give the path of the file itself"
    )
    return f"{path}: is a folder; {advice}"
