"""The HTTP status code for each error that a service raises."""

from __future__ import annotations

from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)
from datapilot_defer.instance.services.conflicts import Conflict, QuotaExceeded
from datapilot_defer.instance.services.principal import AuthenticationFailed

# An error that is not in this table has the status code of its nearest base class.
_STATUS_OF_ERROR: dict[type[BaseException], int] = {
    UsageError: 422,
    ArtifactRefused: 422,
    QuotaExceeded: 402,
    Conflict: 409,
    AuthenticationFailed: 401,
    AccessDenied: 403,
    NotFound: 404,
    Unavailable: 503,
    DatapilotError: 400,
}


def status_of(error: DatapilotError) -> int:
    """Return the status code of the response for an error."""
    base_classes = type(error).__mro__
    return next(_STATUS_OF_ERROR[base] for base in base_classes if base in _STATUS_OF_ERROR)
