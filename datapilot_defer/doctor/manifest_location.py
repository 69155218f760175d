"""File, environment and age of the current manifest of an instance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from datapilot_defer.errors import ArtifactRefused
from datapilot_defer.formatting import format_duration, utc_timestamp

if TYPE_CHECKING:
    from datapilot_defer.client.responses import ArtifactLocation


def check_upload_age(location: ArtifactLocation, max_age_s: float | None) -> None:
    """Raise ArtifactRefused if a manifest was uploaded, and thus written, too long ago."""
    age_s = _age_s(location)
    if age_s is None or max_age_s is None or age_s <= max_age_s:
        return
    raise ArtifactRefused(
        f"the manifest is too old: {describe_location(location)}, and the limit is "
        f"{format_duration(max_age_s)}"
    )


def describe_location(location: ArtifactLocation) -> str:
    """Return file, environment and age, in words."""
    detail = f"file {location.file_id}"
    if location.environment:
        detail += f" of environment {location.environment}"
    age_s = _age_s(location)
    if age_s is None:
        return f"{detail}, uploaded at an unknown time"
    return f"{detail}, uploaded {format_duration(age_s)} ago"


def _age_s(location: ArtifactLocation) -> float | None:
    """Return the seconds since an artifact was uploaded; None if that is unknown."""
    uploaded_at = utc_timestamp(location.uploaded_at)
    if uploaded_at is None:
        return None
    age = datetime.now(UTC) - datetime.fromisoformat(uploaded_at)
    return max(0.0, age.total_seconds())
