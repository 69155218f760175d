"""Errors for the status codes of an instance and of its storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from datapilot_defer.client.responses import error_detail
from datapilot_defer.credentials import rejected_credentials_error
from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)

if TYPE_CHECKING:
    from datapilot_defer.client.messages import Response
    from datapilot_defer.credentials import Credentials

REJECTED_STATUS = frozenset({400, 409, 413, 422})
Error = TypeVar("Error", bound=DatapilotError)


def with_request(error: Error, response: Response) -> Error:
    """Add the request ID and the version of the instance to an error.

    A response without a request ID leaves the error unchanged.
    """
    if response.request_id is None:
        return error
    error.details["request_id"] = response.request_id
    if response.instance_version is not None:
        error.details["instance_version"] = response.instance_version
    error.args = (f"{error} ({response.describe_request()})",)
    return error


def api_error(action: str, response: Response, credentials: Credentials) -> DatapilotError:
    """Return the error for an API call with a status code other than 2xx."""
    return with_request(_api_error(action, response, credentials), response)


def _api_error(action: str, response: Response, credentials: Credentials) -> DatapilotError:
    status = response.status
    url = credentials.url.value
    reason = error_detail(response.json())
    suffix = f" (HTTP {status})"
    if reason:
        suffix = f": {reason}"
    if status == 401:
        return rejected_credentials_error(credentials)
    if status == 402:
        return AccessDenied(f"{action}: the quota of the instance is exceeded{suffix}")
    if status == 403:
        return AccessDenied(f"{action}: not allowed{suffix}")
    if status == 404:
        return NotFound(f"{action}: not found on {url}{suffix}")
    if status in REJECTED_STATUS:
        return UsageError(f"{action}: rejected{suffix}")
    return _unexpected_status_error(f"{action}: {url} returned HTTP {status}", reason)


def rejection_error(kind: str, response: Response) -> ArtifactRefused:
    """Return the error for an upload that the instance rejected.

    Its details include the file ID and the names of the failed checks, if the instance reports
    them.
    """
    content = response.json()
    reason = error_detail(content) or f"HTTP {response.status}"
    details: dict[str, object] = {}
    if isinstance(content, dict):
        file_id = content.get("dbt_core_integration_file_id")
        failed_checks = content.get("check")
        if isinstance(file_id, int):
            details["file_id"] = file_id
        if isinstance(failed_checks, list):
            details["check"] = [name for name in failed_checks if isinstance(name, str)]
    error = ArtifactRefused(f"the instance rejected the {kind}: {reason}", details)
    return with_request(error, response)


def _unexpected_status_error(message: str, reason: str) -> Unavailable:
    if reason:
        message += f": {reason}"
    return Unavailable(message)


def storage_error(action: str, response: Response) -> DatapilotError:
    """Return the error for a signed URL that returned an error status."""
    return with_request(_storage_error(action, response), response)


def _storage_error(action: str, response: Response) -> DatapilotError:
    if response.status == 402:
        reason = error_detail(response.json()) or f"HTTP {response.status}"
        return AccessDenied(f"{action}: the quota of the instance is exceeded: {reason}")
    message = (
        f"{action}: the storage returned HTTP {response.status} for a URL that the "
        "instance has just signed"
    )
    if response.status == 404:
        return NotFound(message)
    if response.status in (400, 401, 403, 410):
        return AccessDenied(
            f"{message}. Check for a proxy, and check the clocks of this machine and of the storage"
        )
    return Unavailable(message)
