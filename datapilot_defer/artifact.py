"""dbt artifacts: the JSON files that dbt writes, with their bytes and metadata."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.dbt_file import read_dbt_file
from datapilot_defer.deadline import DEFAULT_TIMEOUT_S, Deadline
from datapilot_defer.formatting import as_one_line, to_single_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.dbt_json import NotJsonError
    from datapilot_defer.dbt_json.parser import Raw

# dbt writes about 1 kB of metadata. Decoding far more would use memory before validation.
MAX_METADATA_BYTES = 64 * 1024
_TIMESTAMP = re.compile(r"(?P<base>.*?)(?P<fraction>\.\d+)?(?P<zone>Z|[+-]\d\d:\d\d)?")
# The scheme of a URL, and the user-info after it.
_USER_INFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#]*@")
_MAX_PROVENANCE_LENGTH = 2000


class Kind(StrEnum):
    """The kind of an artifact. The value is the API's `file_type`."""

    MANIFEST = "manifest"
    CATALOG = "catalog"
    RUN_RESULTS = "run_results"
    SOURCES = "sources"
    SEMANTIC_MANIFEST = "semantic_manifest"

    @property
    def file_name(self) -> str:
        """Return dbt's name for the file, such as "run_results.json"."""
        return f"{self.value}.json"


# Combinations of sections that only one kind has, the most specific first.
_SECTION_MARKS = (
    (Kind.SEMANTIC_MANIFEST, {"semantic_models", "project_configuration"}),
    (Kind.MANIFEST, {"nodes", "macros"}),
    (Kind.CATALOG, {"nodes", "sources", "errors"}),
    (Kind.RUN_RESULTS, {"results", "elapsed_time", "args"}),
)


@dataclass(frozen=True)
class ArtifactMetadata:
    """Facts about one artifact, from its bytes and its section `metadata`.

    sha256: 64 lowercase hex digits. schema_version: the number in `metadata.dbt_schema_version`.
    generated_at: timezone-aware, in UTC. node_count: set only for manifests. model_count: set only
    for manifests, and only by an instance. A fact that the file does not state, or that cannot be
    read, is None.
    """

    kind: Kind
    sha256: str
    size_bytes: int
    schema_version: int | None = None
    dbt_version: str | None = None
    project_name: str | None = None
    project_id: str | None = None
    adapter_type: str | None = None
    generated_at: datetime | None = None
    invocation_id: str | None = None
    node_count: int | None = None
    model_count: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the facts as JSON values; `generated_at` is an ISO timestamp in UTC."""
        facts = asdict(self)
        facts["kind"] = self.kind.value
        if self.generated_at is not None:
            facts["generated_at"] = self.generated_at.isoformat()
        return facts


@dataclass(frozen=True)
class Provenance:
    """Commit, branch and build URL of the job that uploads an artifact; None if unknown."""

    commit: str | None = None
    branch: str | None = None
    build_url: str | None = None

    def cleaned(self) -> Provenance:
        """Return the facts as single lines, and the build URL without user name and password."""
        build_url = _clean_text(self.build_url)
        if build_url is not None:
            build_url = _USER_INFO.sub(r"\1", build_url)
        return Provenance(_clean_text(self.commit), _clean_text(self.branch), build_url)

    def to_json(self) -> dict[str, str]:
        """Return the known facts."""
        return {name: fact for name, fact in asdict(self).items() if fact}


@dataclass(frozen=True)
class Artifact:
    """One artifact, read, hashed and split once. The same bytes are validated and uploaded.

    path: as the user specified it. sections: the top level of the file, as views into `content`;
    empty if the file is not a JSON object. not_json: why the file could not be split, or None.
    """

    path: str
    content: bytes = field(repr=False)
    sections: Mapping[str, Raw] = field(repr=False)
    not_json: NotJsonError | None
    metadata: ArtifactMetadata

    @property
    def kind(self) -> Kind:
        """Return the kind of artifact."""
        return self.metadata.kind


def read_artifact(
    path: str | Path, kind: Kind | None = Kind.MANIFEST, *, deadline: Deadline | None = None
) -> Artifact:
    """Read an artifact from a file or a pipe.

    kind: the expected kind; None detects it from the content, or else from the file name. deadline:
    limits the wait for a pipe or a stalled file system; None allows DEFAULT_TIMEOUT_S.

    Raises UsageError if the file does not exist, is a directory or a device, is too large or cannot
    be read, and Unavailable if it cannot be read in time.
    """
    expected_kind = kind or Kind.MANIFEST
    if deadline is None:
        deadline = Deadline(DEFAULT_TIMEOUT_S)
    content = read_dbt_file(Path(path), expected_kind.file_name, deadline)
    return parse_artifact(content, path=str(path), kind=kind)


def parse_artifact(content: bytes, *, path: str, kind: Kind | None) -> Artifact:
    """Hash and split the content of a file.

    path: for messages, and for detecting the kind from the file name. kind: as for `read_artifact`.
    Never raises for invalid content, which validation reports.
    """
    sections: Mapping[str, Raw] = {}
    not_json = None
    try:
        sections = dbt_json.split(content)
    except dbt_json.NotJsonError as error:
        not_json = error
    fields = decode_metadata(sections)
    if kind is None:
        kind = detect_kind(sections, fields) or _kind_from_file_name(path)
    metadata = _describe(content, sections, fields, kind)
    return Artifact(path, content, sections, not_json, metadata)


def _describe(
    content: bytes, sections: Mapping[str, Raw], fields: Mapping[str, Any], kind: Kind
) -> ArtifactMetadata:
    node_count = None
    if kind is Kind.MANIFEST:
        node_count = _count_nodes(sections)
    return ArtifactMetadata(
        kind=kind,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        schema_version=parse_schema_version(fields.get("dbt_schema_version")),
        dbt_version=_get_string(fields, "dbt_version"),
        project_name=_get_string(fields, "project_name"),
        project_id=_get_string(fields, "project_id"),
        adapter_type=_get_string(fields, "adapter_type"),
        generated_at=_parse_timestamp(fields.get("generated_at")),
        invocation_id=_get_string(fields, "invocation_id"),
        node_count=node_count,
    )


def detect_kind(sections: Mapping[str, Any], metadata: Mapping[str, Any]) -> Kind | None:
    """Return the kind of an artifact, detected from its schema URL or else from its sections.

    metadata: the decoded section `metadata`. Returns None if neither identifies the kind.
    """
    schema_url = str(metadata.get("dbt_schema_version"))
    match = re.fullmatch(r".*/dbt/([a-z-]+)/v\d+\.json", schema_url)
    if match:
        name = match.group(1).replace("-", "_")
        if name in set(Kind):
            return Kind(name)
    return next((kind for kind, keys in _SECTION_MARKS if keys <= sections.keys()), None)


def parse_schema_version(schema_url: object) -> int | None:
    """Return the schema version in a URL such as ".../dbt/manifest/v12.json", or None."""
    if not isinstance(schema_url, str):
        return None
    match = re.search(r"/v(\d{1,6})\.json$", schema_url)
    if match is None:
        return None
    return int(match.group(1))


def decode_metadata(sections: Mapping[str, Raw]) -> dict[str, Any]:
    """Return the section `metadata`; {} if it is missing, too large or not a JSON object."""
    if has_oversized_metadata(sections):
        return {}
    try:
        metadata = dbt_json.decode(sections["metadata"])
    except (KeyError, dbt_json.NotJsonError):
        return {}
    if not isinstance(metadata, dict):
        return {}
    return metadata


def has_oversized_metadata(sections: Mapping[str, Raw]) -> bool:
    """Return whether the section `metadata` is larger than MAX_METADATA_BYTES."""
    raw = sections.get("metadata")
    return raw is not None and memoryview(raw).nbytes > MAX_METADATA_BYTES


def _clean_text(text: str | None) -> str | None:
    """Return text from outside as one line that any database can store, or None if it is empty."""
    if not text:
        return None
    storable = text.encode(errors="replace").decode()
    return to_single_line(storable, _MAX_PROVENANCE_LENGTH) or None


def _get_string(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    if not isinstance(value, str):
        return None
    return as_one_line(value)


def _parse_timestamp(value: object) -> datetime | None:
    """Return the time in UTC of a timestamp such as "2026-11-22T10:00:00.123456Z".

    Returns None for any other value. A missing time zone means UTC. Some writers use nine decimals,
    of which Python reads six.
    """
    if not isinstance(value, str):
        return None
    match = _TIMESTAMP.fullmatch(value)
    if match is None:
        return None
    fraction = (match["fraction"] or ".0")[:7].ljust(7, "0")
    zone = (match["zone"] or "Z").replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(match["base"] + fraction + zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _count_nodes(sections: Mapping[str, Raw]) -> int | None:
    try:
        return dbt_json.count(sections["nodes"])
    except (KeyError, dbt_json.NotJsonError):
        return None


def _kind_from_file_name(path: str) -> Kind:
    file_name = re.split(r"[/\\]", path)[-1]
    stem = file_name.removesuffix(".json").replace("-", "_")
    return next((kind for kind in Kind if kind.value == stem), Kind.MANIFEST)
