"""Responses of an instance's API as typed values.

Source: the public clients altimate-datapilot-cli 0.3.8, @altimateai/dbt-integration 0.2.14 and the
extension Power User for dbt. Fields that only an instance of this project returns are optional.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlsplit

import msgspec

from datapilot_defer.artifact import Provenance
from datapilot_defer.errors import Unavailable
from datapilot_defer.formatting import to_single_line, utc_timestamp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

T = TypeVar("T", bound=msgspec.Struct)
# The maximum of IDs and sizes: that of a signed 64-bit integer.
Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_MAX_DETAIL_LENGTH = 2000  # enough for the reasons of all failed checks
_EXTRA_FIELD_ERRORS = ("extra_forbidden", "value_error.extra")  # pydantic 2 and 1
_RENAMED = {
    "_environments": "environments",
    "file_id": "dbt_core_integration_file_id",
    "integration_id": "dbt_core_integration_id",
    "last_upload_at": "last_file_upload_time",
    "type": "integration_type",
}


class EnvironmentSummary(msgspec.Struct, frozen=True):
    """One environment of an integration."""

    id: Id | None = None
    environment_type: str | None = None


class IntegrationSummary(msgspec.Struct, frozen=True, rename=_RENAMED):
    """An integration, which receives the artifacts of one dbt project.

    Timestamps are ISO 8601. purge_at: when the instance permanently removes a deleted integration.
    """

    id: Id
    name: str = ""
    _environments: tuple[EnvironmentSummary, ...] = ()
    created_at: str | None = None
    last_upload_at: str | None = None
    type: str = "dbt_core"
    is_deleted: bool = False
    purge_at: str | None = None

    @property
    def environments(self) -> tuple[str, ...]:
        """Return the names of its environments."""
        names = [environment.environment_type for environment in self._environments]
        return tuple(name for name in names if name is not None)

    def may_have(self, wanted: str) -> bool:
        """Return whether it has an environment with this name or ID; True if it lists none."""
        known = {name.casefold() for name in self.environments}
        known.update(str(environment.id) for environment in self._environments)
        return not known or wanted.casefold() in known

    def to_json(self) -> dict[str, object]:
        """Return the values that commands print as JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "environments": list(self.environments),
            "created_at": utc_timestamp(self.created_at),
            "last_upload_at": utc_timestamp(self.last_upload_at),
            "integration_type": self.type,
        }


class UploadTarget(msgspec.Struct, frozen=True, rename=_RENAMED):
    """The upload URL of one artifact, which is a secret, and its file ID."""

    url: str
    file_id: Id

    def __repr__(self) -> str:
        return f"UploadTarget(file_id={self.file_id})"


class ArtifactLocation(msgspec.Struct, frozen=True, rename=_RENAMED):
    """The download URL of an artifact, which is a secret, and the facts about it."""

    url: str
    file_id: Id
    sha256: str | None = None
    size_bytes: Id | None = None
    uploaded_at: str | None = None
    commit: str | None = None
    branch: str | None = None
    build_url: str | None = None
    integration_name: str | None = None
    environment: str | None = None

    @property
    def provenance(self) -> Provenance:
        """Return the provenance of the upload."""
        return Provenance(self.commit, self.branch, self.build_url)

    def __repr__(self) -> str:
        return f"ArtifactLocation(file_id={self.file_id}, sha256={self.sha256!r})"


class DeletedIntegration(msgspec.Struct, frozen=True):
    """A deleted integration. purge_at: ISO timestamp until which it can be undeleted."""

    deleted_at: str | None = None
    purge_at: str | None = None


class AcceptedUpload(msgspec.Struct, frozen=True, rename=_RENAMED):
    """A rejected upload that was accepted and became current."""

    file_id: Id
    integration_id: Id
    environment: str
    sha256: str | None = None


class _Checks(msgspec.Struct, frozen=True):
    """The disabled checks of an environment; None if the response does not contain them."""

    disabled_checks: tuple[str, ...] | None = None


@dataclass(frozen=True)
class UploadReceipt:
    """The confirmation of an upload. sha256: None if the instance does not report it.

    unchanged: the instance already had these bytes.
    """

    file_id: int
    sha256: str | None
    unchanged: bool


def parse_integrations(content: object, *, deleted: bool = False) -> list[IntegrationSummary]:
    """Return the integrations that are not deleted, or with `deleted` only those that are.

    Raises Unavailable for anything but a list of integrations.
    """
    if not isinstance(content, list):
        raise _unexpected_response_error("a list of integrations")
    integrations = [_decode(entry, IntegrationSummary) for entry in content]
    return [integration for integration in integrations if integration.is_deleted is deleted]


def parse_created_integration(content: object) -> int:
    """Return the ID of a new integration. Raises Unavailable if the response has none."""
    if isinstance(content, dict):
        with suppress(msgspec.ValidationError):
            return msgspec.convert(content.get("dbt_core_integration_id"), Id)
    reason = error_detail(content) or "no reason given"
    raise Unavailable(f"the instance did not confirm that it created the integration: {reason}")


def parse_deleted_integration(content: object) -> DeletedIntegration:
    """Return the response to a deletion. Raises Unavailable if it is invalid."""
    return _decode(content, DeletedIntegration)


def parse_accepted_upload(content: object) -> AcceptedUpload:
    """Return the response to accept_upload. Raises Unavailable if it is invalid."""
    return _decode(content, AcceptedUpload)


def parse_disabled_checks(content: object) -> frozenset[str] | None:
    """Return the disabled checks in a response; None if it does not contain them."""
    checks = _decode(content, _Checks).disabled_checks
    if checks is None:
        return None
    return frozenset(checks)


def parse_upload_target(content: object) -> UploadTarget:
    """Return the response to signed_url. Raises Unavailable if it is invalid."""
    target = _decode(content, UploadTarget)
    _check_url(target.url)
    return target


def parse_artifact_location(content: object) -> ArtifactLocation:
    """Return the response to fetch_artifact_url. Raises Unavailable if it is invalid."""
    location = _decode(content, ArtifactLocation)
    _check_url(location.url)
    return location


def parse_upload_receipt(content: object, file_id: int) -> UploadReceipt:
    """Return the response to verify_upload.

    Any JSON confirms the upload, except for `"ok": false`, which raises Unavailable.
    """
    fields: Mapping[str, object] = content if isinstance(content, dict) else {}
    if fields.get("ok") is False:
        reason = error_detail(content) or "no reason given"
        raise Unavailable(f"the instance did not confirm the upload: {reason}")
    sha256 = fields.get("sha256")
    if not isinstance(sha256, str):
        sha256 = None
    return UploadReceipt(file_id, sha256 or None, fields.get("unchanged") is True)


def is_denied(content: object) -> bool:
    """Return whether the response denies the request with `"ok": false`."""
    return isinstance(content, dict) and content.get("ok") is False


def error_detail(content: object) -> str:
    """Return the reason in an error response, in one line; "" if there is none."""
    if not isinstance(content, dict):
        return ""
    reason = content.get("detail") or content.get("message") or ""
    with suppress(RecursionError):  # a decoded value may be nested too deeply to be formatted
        if isinstance(reason, list):
            errors = _field_errors(content)
            reason = "; ".join(f"{_location(error)}: {error.get('msg', '')}" for error in errors)
        return to_single_line(str(reason), _MAX_DETAIL_LENGTH)
    return ""


def forbids_fields(content: object, names: Collection[str]) -> bool:
    """Return whether an error response rejects one of these fields of the request as unknown."""
    for error in _field_errors(content):
        error_type = error.get("type", "extra_forbidden")  # some servers omit it
        if error_type in _EXTRA_FIELD_ERRORS and _location(error) in names:
            return True
    return False


def _field_errors(content: object) -> list[Mapping[str, object]]:
    """Return FastAPI's list of validation errors: [{"type": …, "loc": […], "msg": …}]."""
    if not isinstance(content, dict):
        return []
    errors = content.get("detail")
    if not isinstance(errors, list):
        return []
    return [error for error in errors if isinstance(error, dict)]


def _location(error: Mapping[str, object]) -> str:
    """Return the path of the field that a validation error is about, such as "name", or ""."""
    steps = error.get("loc")
    if not isinstance(steps, list):
        return ""
    return ".".join(str(step) for step in steps if step not in ("body", "query"))


def _decode(content: object, response_type: type[T]) -> T:
    """Convert a JSON object. null and "" are treated as missing. IDs may be strings."""
    if not isinstance(content, dict):
        raise _unexpected_response_error("an object")
    fields = {name: value for name, value in content.items() if value not in (None, "")}
    try:
        return msgspec.convert(fields, response_type, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter for an unpaired surrogate
        name = _find_unusable_field(fields, response_type)
        raise _unexpected_response_error(repr(name)) from None


def _find_unusable_field(fields: Mapping[str, object], response_type: type[T]) -> str:
    for field in msgspec.structs.fields(response_type):
        name = field.encode_name
        if field.required and name not in fields:
            return name
        try:
            msgspec.convert(fields.get(name, field.default), field.type, strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return name
    return "fields"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _unexpected_response_error("'url'") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _unexpected_response_error("'url'")


def _unexpected_response_error(missing: str) -> Unavailable:
    return Unavailable(
        f"invalid response from the instance: expected {missing}. Check that the URL points "
        "to an instance, and not to a web page or a proxy"
    )
