"""An instance's description of an environment, with the field names of JSON results.

The API has other names for some fields. A field that is missing or has another type is null, and an
unknown field is omitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datapilot_defer.formatting import utc_timestamp

_Fields = Mapping[str, tuple[str, str]]

# For each field of a result: its name in the API and its type.
_INTEGRATION: _Fields = {
    "id": ("id", "integer"),
    "name": ("name", "text"),
    "created_at": ("created_at", "time"),
    "last_upload_at": ("last_file_upload_time", "time"),
    "integration_type": ("integration_type", "text"),
    "project_name": ("project_name", "text"),
    "environment": ("environment", "text"),
}
_SYNC: _Fields = {
    "time": ("time", "time"),
    "type": ("type", "text"),
    "log_file": ("log_file", "text"),
}
_UPLOAD: _Fields = {
    "file_id": ("dbt_core_integration_file_id", "integer"),
    "kind": ("file_type", "text"),
    "status": ("status", "text"),
    "current": ("current", "switch"),
    "token_name": ("token_name", "text"),
    "sha256": ("sha256", "text"),
    "size_bytes": ("size_bytes", "integer"),
    "dbt_version": ("dbt_version", "text"),
    "schema_version": ("schema_version", "integer"),
    "project_name": ("project_name", "text"),
    "node_count": ("node_count", "integer"),
    "model_count": ("model_count", "integer"),
    "generated_at": ("generated_at", "time"),
    "invocation_id": ("invocation_id", "text"),
    "created_at": ("created_at", "time"),
    "uploaded_at": ("uploaded_at", "time"),
    "commit": ("commit", "text"),
    "branch": ("branch", "text"),
    "build_url": ("build_url", "text"),
    "rejection": ("rejection", "text"),
    "refusal": ("refusal", "text"),
}
_PUBLICATION: _Fields = {
    "file_id": ("dbt_core_integration_file_id", "integer"),
    "kind": ("file_type", "text"),
    "since": ("since", "time"),
    "reason": ("reason", "text"),
    "token_name": ("token_name", "text"),
}
_TYPES: Mapping[str, type] = {"integer": int, "text": str, "time": str, "switch": bool}


@dataclass(frozen=True)
class Description:
    """An environment: its integration, its uploads and its publications."""

    integration: Mapping[str, object]
    environments: list[str]
    disabled_checks: list[str]
    sync_history: list[dict[str, object]]
    history: list[dict[str, object]]
    publications: list[dict[str, object]]

    def to_json(self) -> dict[str, object]:
        """Return everything as one object."""
        facts = {name: value for name, value in vars(self).items() if name != "integration"}
        return {**self.integration, **facts}


def parse_description(
    answer: Mapping[str, object], *, integration_id: int, environment: str
) -> Description:
    """Return the description in a response.

    If the response contains no ID or environment, the requested one is used.
    """
    integration = _rename(answer, _INTEGRATION)
    for name, asked in (("id", integration_id), ("environment", environment)):
        if integration[name] is None:
            integration[name] = asked
    environments = _objects(answer, "environments")
    return Description(
        integration,
        _texts(entry.get("environment_type") for entry in environments),
        _texts(_entries(answer, "disabled_checks")),
        [_rename(entry, _SYNC) for entry in _objects(answer, "sync_history")],
        [_rename(entry, _UPLOAD) for entry in _objects(answer, "history")],
        [_rename(entry, _PUBLICATION) for entry in _objects(answer, "publications")],
    )


def format_value(fields: Mapping[str, object], name: str) -> str:
    """Return one field as text; "" for null."""
    value = fields.get(name)
    if value is None:
        return ""
    return str(value)


def _texts(values: Iterable[object]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _objects(answer: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    return [entry for entry in _entries(answer, name) if isinstance(entry, dict)]


def _entries(answer: Mapping[str, object], name: str) -> list[object]:
    """Return the list in one field of a response; [] if it is missing or has another type."""
    entries = answer.get(name)
    if not isinstance(entries, list):
        return []
    return entries


def _rename(answer: Mapping[str, object], fields: _Fields) -> dict[str, object]:
    return {
        name: _read_value(answer, api_name, type_name)
        for name, (api_name, type_name) in fields.items()
    }


def _read_value(answer: Mapping[str, object], name: str, type_name: str) -> object:
    """Return the value of a field; None if it is missing or has another type."""
    value = answer.get(name)
    if type(value) is not _TYPES[type_name]:
        return None
    if type_name == "time":
        return utc_timestamp(str(value))
    return value
