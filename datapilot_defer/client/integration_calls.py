"""API calls for integrations, one function each.

Most of these calls exist only on self-hosted instances, not on the hosted service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from datapilot_defer.client import responses
from datapilot_defer.client.instance_client import API_PATH
from datapilot_defer.client.messages import Request
from datapilot_defer.errors import NotFound, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from datapilot_defer.client.instance_client import InstanceClient

_METHOD_NOT_ALLOWED = frozenset({405})
# For a call about an integration that is known to exist, 404 means that it is not supported.
_NOT_FOUND_OR_NOT_ALLOWED = frozenset({404, 405})


def get_integration(client: InstanceClient, integration: int | str) -> responses.IntegrationSummary:
    """Return an integration, by ID or name.

    Raises NotFound, or UsageError if several have the name.
    """
    if isinstance(integration, str):
        return client.find_integration(integration)
    for candidate in client.list_integrations():
        if candidate.id == integration:
            return candidate
    raise NotFound(
        f"no integration has the ID {integration} on {client.url}. `datapilot dbt "
        "integrations list` lists the IDs"
    )


def list_deleted_integrations(client: InstanceClient) -> list[responses.IntegrationSummary]:
    """Return the deleted integrations that can be undeleted; [] if undeleting is not supported."""
    path = f"{API_PATH}/project_integrations"
    request = Request(
        "listing the deleted integrations", "GET", path, params={"include_deleted": "true"}
    )
    return responses.parse_integrations(client.call(request), deleted=True)


def get_deleted_integration(
    client: InstanceClient, integration: int | str
) -> responses.IntegrationSummary:
    """Return a deleted integration, by ID or name. Raises NotFound if there is none."""
    for candidate in list_deleted_integrations(client):
        if integration in (candidate.id, candidate.name):
            return candidate
    description = f"ID {integration}"
    if isinstance(integration, str):
        description = f"name {integration!r}"
    raise NotFound(
        f"no deleted integration has the {description} on {client.url}. `datapilot dbt "
        "integrations list --deleted` lists those that can be undeleted"
    )


def create_integration(client: InstanceClient, name: str, environment: str) -> int:
    """Create an integration for a dbt Core project. Return its ID.

    The request is not repeated if the integration may have been created.
    """
    request = Request(
        f"creating integration {name!r}",
        "POST",
        f"{API_PATH}/project_integration",
        body={"name": name, "environment": environment, "integration_type": "dbt_core"},
        repeatable=False,
    )
    return responses.parse_created_integration(client.call(request))


def rename_integration(client: InstanceClient, integration_id: int, name: str) -> None:
    """Rename an existing integration. Raises UsageError if another one has this name."""
    request = Request(
        f"renaming integration {integration_id}",
        "PATCH",
        f"{API_PATH}/project_integrations/{integration_id}",
        body={"name": name},
    )
    client.call_if_supported(request, _NOT_FOUND_OR_NOT_ALLOWED)


def delete_integration(client: InstanceClient, integration_id: int) -> responses.DeletedIntegration:
    """Delete an existing integration. The request is not repeated if it may have been received."""
    request = Request(
        f"deleting integration {integration_id}",
        "DELETE",
        f"{API_PATH}/project_integrations/{integration_id}",
        repeatable=False,
    )
    content = client.call_if_supported(request, _NOT_FOUND_OR_NOT_ALLOWED)
    return responses.parse_deleted_integration(content)


def undelete_integration(client: InstanceClient, integration_id: int) -> None:
    """Undelete a deleted integration. The request is not repeated if it may have been received."""
    request = Request(
        f"undeleting integration {integration_id}",
        "POST",
        f"{API_PATH}/project_integrations/{integration_id}/undelete",
        repeatable=False,
    )
    client.call(request)


def describe_environment(
    client: InstanceClient,
    integration_id: int,
    environment: str,
    *,
    include_rejected: bool = False,
) -> Mapping[str, object]:
    """Return an environment's description.

    Every instance reports `sync_history`; an instance of this project also reports `history`,
    `publications` and `disabled_checks`. include_rejected: include rejected uploads in `history`.
    """
    params = None
    if include_rejected:
        params = {"include_rejected": "true"}
    action = f"showing integration {integration_id}, {environment}"
    path = _environment_path(integration_id, environment)
    content = client.call(Request(action, "GET", path, params))
    if not isinstance(content, dict):
        raise Unavailable("the response of the instance does not describe an integration")
    return content


def restore_artifact(
    client: InstanceClient, integration_id: int, environment: str, file_id: int
) -> responses.UploadReceipt:
    """Make an earlier artifact current again."""
    path = f"{_environment_path(integration_id, environment)}/restore"
    body = {"dbt_core_integration_file_id": file_id}
    content = client.call(Request(f"restoring file {file_id}", "POST", path, body=body))
    return responses.parse_upload_receipt(content, file_id)


def accept_upload(client: InstanceClient, file_id: int) -> responses.AcceptedUpload:
    """Publish an upload that a check rejected.

    The request is not repeated if it may have been received. Also raises NotFound if the instance
    does not support this call.
    """
    request = Request(
        f"accepting file {file_id}",
        "POST",
        f"{API_PATH}/accept_upload",
        body={"dbt_core_integration_file_id": file_id},
        repeatable=False,
    )
    try:
        content = client.call_if_supported(request, _METHOD_NOT_ALLOWED)
    except NotFound as error:
        raise NotFound(
            f"{error}. `datapilot dbt integrations history --rejected` lists the rejected files of "
            "an environment. The hosted service and older releases cannot accept files."
        ) from None
    return responses.parse_accepted_upload(content)


def read_disabled_checks(
    client: InstanceClient, integration_id: int, environment: str
) -> frozenset[str]:
    """Return the disabled checks of an environment.

    Raises UsageError if the instance does not report them.
    """
    description = describe_environment(client, integration_id, environment)
    checks = responses.parse_disabled_checks(description)
    if checks is None:
        raise UsageError(
            f"{client.url} has no checks that can be disabled: it is the hosted service or an "
            "older release. Upgrade the instance, or skip a check with `datapilot dbt onboard "
            "--force`."
        )
    return checks


def write_disabled_checks(
    client: InstanceClient, integration_id: int, environment: str, checks: Collection[str]
) -> frozenset[str]:
    """Set the disabled checks of an existing environment. Return them."""
    request = Request(
        f"changing the checks of integration {integration_id}, {environment}",
        "POST",
        f"{_environment_path(integration_id, environment)}/checks",
        body={"disabled": sorted(checks)},
    )
    content = client.call_if_supported(request, _NOT_FOUND_OR_NOT_ALLOWED)
    return responses.parse_disabled_checks(content) or frozenset()


def _environment_path(integration_id: int, environment: str) -> str:
    return f"{API_PATH}/project_integrations/{integration_id}/{quote(environment, safe='')}"
