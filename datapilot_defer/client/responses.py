"""What travels: an instance's answers as plain values.

Source: PROTOCOL of the public clients altimate-datapilot-cli 0.3.8, @altimateai/dbt-integration 0.2.14 and the
extension Power User for dbt. What only our own instance answers is optional everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from datapilot_defer.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True)
class IntegrationSummary:
    """The place on an instance that receives one dbt project's artifacts."""

    id: int
    name: str
    environments: tuple[str, ...]
    created_at: str | None
    last_upload_at: str | None
    type: str


@dataclass(frozen=True)
class UploadTarget:
    """Where to put one artifact, and the number under which to confirm it. The URL is a secret."""

    url: str = field(repr=False)
    file_id: int


@dataclass(frozen=True)
class UploadReceipt:
    """What the instance confirms to hold. A fact that it does not give is None."""

    file_id: int
    sha256: str | None
    size_bytes: int | None
    unchanged: bool


@dataclass(frozen=True)
class ArtifactLocation:
    """Where an artifact can be fetched, and what the instance says of it. The URL is a secret."""

    url: str = field(repr=False)
    file_id: int
    sha256: str | None
    size_bytes: int | None
    uploaded_at: str | None
    commit: str | None
    branch: str | None
    build_url: str | None
    environment: str | None


def integration(answer: object) -> IntegrationSummary:
    """Read one integration out of an answer. Raises Unavailable when it is none."""
    fields = _fields(answer)
    environments = fields.get("environments")
    entries = environments if isinstance(environments, list) else []
    return IntegrationSummary(
        id=_need(fields, "id", _int),
        name=str(fields.get("name") or ""),
        environments=tuple(
            str(entry["environment_type"])
            for entry in entries
            if "environment_type" in _fields(entry)
        ),
        created_at=_text(fields.get("created_at")),
        last_upload_at=_text(fields.get("last_file_upload_time")),
        type=str(fields.get("integration_type") or "dbt_core"),
    )


def integrations(answer: object) -> list[IntegrationSummary]:
    """Read a list of integrations, without the deleted ones."""
    if not isinstance(answer, list):
        raise _nonsense("a list of integrations")
    return [integration(entry) for entry in answer if not _fields(entry).get("is_deleted")]


def upload_place(answer: object) -> UploadTarget:
    """Read the answer to signed_url."""
    fields = _fields(answer)
    return UploadTarget(
        _need(fields, "url", _url), _need(fields, "dbt_core_integration_file_id", _int)
    )


def stored(answer: object, file_id: int) -> UploadReceipt:
    """Read the answer to verify_upload; anything that is JSON and does not say `"ok": false` confirms."""
    fields = answer if isinstance(answer, dict) else {}
    if fields.get("ok") is False:
        raise Unavailable(
            f"the instance did not confirm the upload: {error_detail(fields) or 'it gives no reason'}"
        )
    return UploadReceipt(
        file_id,
        _text(fields.get("sha256")),
        _int(fields.get("size_bytes")),
        fields.get("unchanged") is True,
    )


def download(answer: object) -> ArtifactLocation:
    """Read the answer to fetch_artifact_url."""
    fields = _fields(answer)
    return ArtifactLocation(
        url=_need(fields, "url", _url),
        file_id=_need(fields, "dbt_core_integration_file_id", _int),
        size_bytes=_int(fields.get("size_bytes")),
        **{
            name: _text(fields.get(name))
            for name in ("sha256", "uploaded_at", "commit", "branch", "build_url", "environment")
        },
    )


def error_detail(answer: object) -> str:
    """The reason that an error answer gives, in one line; "" when it gives none."""
    fields: Mapping[str, object] = answer if isinstance(answer, dict) else {}
    reason = fields.get("detail") or fields.get("message") or ""
    if isinstance(reason, list):  # FastAPI's 422: a list of {"loc": [...], "msg": ...}
        said = [_fields(item) for item in reason if isinstance(item, dict)]
        reason = "; ".join(
            f"{'.'.join(str(step) for step in _steps(item))}: {item.get('msg', '')}"
            for item in said
        )
    printable = "".join(character if character.isprintable() else " " for character in str(reason))
    return " ".join(printable.split())[:500]


def _steps(item: Mapping[str, object]) -> list[object]:
    loc = item.get("loc")
    return [step for step in loc if step not in ("body", "query")] if isinstance(loc, list) else []


def _fields(answer: object) -> Mapping[str, object]:
    if isinstance(answer, dict):
        return answer
    raise _nonsense("an object")


def _need(fields: Mapping[str, object], name: str, convert: Callable[[object], T | None]) -> T:
    value = convert(fields.get(name))
    if value is None:
        raise _nonsense(f"{name!r}")
    return value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _url(value: object) -> str | None:
    try:
        parts = urlsplit(_text(value) or "")
        _ = parts.port
    except ValueError:
        return None
    return str(value) if parts.scheme in ("http", "https") and parts.hostname else None


def _int(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) else None


def _nonsense(missing: str) -> Unavailable:
    return Unavailable(
        f"the instance's answer lacks {missing}: is the URL that of an instance, and not of its web page or of a proxy?"
    )
