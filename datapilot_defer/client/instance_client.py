"""A client for the HTTP API of an instance, with one method for each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from datapilot_defer.client import responses
from datapilot_defer.client.hosted_pages import find_site
from datapilot_defer.client.messages import Request, Response
from datapilot_defer.client.status_errors import (
    REJECTED_STATUS,
    api_error,
    rejection_error,
    storage_error,
    with_request,
)
from datapilot_defer.client.token_expiry import parse_expiry
from datapilot_defer.client.transport import Transport
from datapilot_defer.console import NoProgress
from datapilot_defer.credentials import rejected_credentials_error
from datapilot_defer.dbt_file import MAX_FILE_BYTES
from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from datapilot_defer.artifact import Artifact, Kind, Provenance
    from datapilot_defer.client.retries import TimeLimits
    from datapilot_defer.console import Log, Progress
    from datapilot_defer.credentials import Credentials

API_PATH = "/dbt/v1"
_MAX_LISTED_INTEGRATIONS = 20


class InstanceClient:
    """A client for one instance, used for the duration of one command.

    Methods raise AccessDenied, NotFound, UsageError or Unavailable. Those for an onboarding also
    raise ArtifactRefused.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        limits: TimeLimits,
        log: Log,
        ci_name: str | None = None,
    ) -> None:
        self.credentials = credentials
        self.url = credentials.url.value
        self.deadline = limits.deadline
        self._transport = Transport(credentials, limits=limits, log=log, ci_name=ci_name)

    def status_url(self, integration_id: int, environment: str) -> str:
        """Return the URL of the web page of an integration's environment."""
        site = find_site(self.url, self.credentials.instance_name.value)
        return f"{site}/settings/integrations/{integration_id}/{quote(environment, safe='')}"

    def health(self) -> str | None:
        """Return the Date header, or None. Raises Unavailable if the instance cannot be reached."""
        request = Request("reaching the instance", "GET", "/health")
        return self._transport.send_to_api(request).headers.get("Date")

    def check_credentials(self) -> datetime | None:
        """Return when the token expires; None for never, or if the instance does not report it.

        Raises AccessDenied if the instance rejects the token or the instance name.
        """
        request = Request("checking the credentials", "GET", "/dbt/v3/validate-credentials")
        response = self._transport.send_to_api(request)
        if response.status == 403:
            raise with_request(rejected_credentials_error(self.credentials), response)
        content = self._parse_response(request, response)
        if responses.is_denied(content):
            raise rejected_credentials_error(self.credentials)
        return parse_expiry(content)

    def check_permissions(self) -> None:
        """Raise AccessDenied if the token does not permit uploads."""
        action = "checking the permission to upload"
        content = self.call(Request(action, "GET", f"{API_PATH}/validate-permissions"))
        if responses.is_denied(content):
            reason = responses.error_detail(content) or "the instance gives no reason"
            raise AccessDenied(f"the token may not upload: {reason}")

    def list_integrations(self) -> list[responses.IntegrationSummary]:
        """Return every integration that the token may list, in the order of the response."""
        request = Request("listing the integrations", "GET", f"{API_PATH}/project_integrations/")
        return responses.parse_integrations(self.call(request))

    def find_integration(self, name: str) -> responses.IntegrationSummary:
        """Return the integration with exactly this name.

        Raises NotFound, or UsageError if several integrations have it.
        """
        integrations = self.list_integrations()
        matches = [integration for integration in integrations if integration.name == name]
        if not matches:
            listed = integrations[:_MAX_LISTED_INTEGRATIONS]
            names = ", ".join(repr(integration.name) for integration in listed) or "none yet"
            raise NotFound(f"no integration is called {name!r} on {self.url}. It has: {names}")
        if len(matches) > 1:
            ids = ", ".join(str(integration.id) for integration in matches)
            raise UsageError(
                f"{len(matches)} integrations are called {name!r} (IDs {ids}). Use --integration-id"
            )
        return matches[0]

    def request_upload_url(
        self, kind: Kind, integration_id: int, environment: str
    ) -> responses.UploadTarget:
        """Request a signed URL for an artifact of this kind."""
        params = _environment_parameters(integration_id, environment) | {"file_type": kind.value}
        action = f"requesting an upload URL for the {kind.value}"
        content = self.call(Request(action, "GET", f"{API_PATH}/signed_url", params))
        return responses.parse_upload_target(content)

    def upload(
        self, target: responses.UploadTarget, artifact: Artifact, progress: Progress
    ) -> DatapilotError | None:
        """Upload one artifact. It becomes current only when it is verified.

        Returns None on success, or the error if a new signed URL may help. Raises other errors.
        """
        action = f"uploading the {artifact.kind.value}"
        content = artifact.content
        request = Request(action, "PUT", target.url, content=content, progress=progress)
        response = self._transport.send_to_storage(request)
        if response.status == 413:
            error = ArtifactRefused(
                f"the {artifact.kind.value} is too large for the instance ({len(content):,} bytes)"
            )
            raise with_request(error, response)
        if not response.is_success:
            return storage_error(action, response)
        sha256 = artifact.metadata.sha256
        # An instance of this project returns the sha256 in the ETag.
        received = response.headers.get("ETag", "").strip('"')
        if len(received) == len(sha256) and received != sha256:
            return Unavailable(
                f"{action}: the bytes were changed on the way, perhaps by a proxy: sha256 "
                f"{received} arrived, {sha256} was sent"
            )
        return None

    def verify_upload(
        self,
        target: responses.UploadTarget,
        artifact: Artifact,
        provenance: Provenance,
        *,
        force: bool = False,
        allow: Collection[str] = (),
    ) -> responses.UploadReceipt:
        """Request the verification of an upload, which makes it the current artifact.

        force: skip all safety checks of the instance. allow: the names of checks to skip. Raises
        ArtifactRefused if the upload is rejected.
        """
        action = f"verifying the {artifact.kind.value}"
        path = f"{API_PATH}/verify_upload"
        body = {"dbt_core_integration_file_id": target.file_id}
        facts: dict[str, object] = {
            "sha256": artifact.metadata.sha256,
            "size_bytes": artifact.metadata.size_bytes,
            **provenance.to_json(),
        }
        if force:
            facts["force"] = True
        if allow:
            facts["allow"] = sorted(allow)
        request = Request(action, "POST", path, body=body | facts)
        response = self._transport.send_to_api(request)
        if response.status in (400, 422) and responses.forbids_fields(response.json(), facts):
            # Other instances do not know these fields, and some reject unknown fields.
            response = self._transport.send_to_api(Request(action, "POST", path, body=body))
        if response.status in REJECTED_STATUS:
            raise rejection_error(artifact.kind.value, response)
        content = self._parse_response(request, response)
        return responses.parse_upload_receipt(content, target.file_id)

    def start_ingestion(self, integration_id: int, environment: str) -> None:
        """Report the end of an onboarding. The hosted service then starts its ingestion.

        Raises ArtifactRefused if the instance rejected an upload, and Unavailable if it does not
        confirm.
        """
        request = Request(
            "starting the ingestion",
            "POST",
            f"{API_PATH}/start_dbt_ingestion",
            body=_environment_parameters(integration_id, environment),
        )
        response = self._transport.send_to_api(request)
        reason = responses.error_detail(response.json()) or "it gives no reason"
        if response.status == 409:
            error = ArtifactRefused(f"the instance did not complete the onboarding: {reason}")
            raise with_request(error, response)
        content = self._parse_response(request, response)
        if not isinstance(content, dict) or content.get("ok") is not True:
            raise Unavailable(f"the instance did not start the ingestion: {reason}")

    def locate_artifact(
        self,
        kind: Kind,
        integration_id: int,
        *,
        environment: str | None = None,
        file_id: int | None = None,
        at: str | None = None,
    ) -> responses.ArtifactLocation:
        """Return the location of the current artifact of this kind, or of an earlier one.

        file_id: the ID of an earlier one. at: an ISO timestamp at which the artifact was current.
        """
        params: dict[str, str | int] = {
            "artifact_type": kind.value,
            "dbt_core_integration_id": integration_id,
        }
        description = f"integration {integration_id}"
        if environment is not None:
            params["dbt_core_integration_environment_type"] = environment
            description += f", environment {environment}"
        if file_id is not None:
            params["dbt_core_integration_file_id"] = file_id
        if at:
            params["at"] = at
        action = f"finding the {kind.value} of {description}"
        content = self.call(Request(action, "GET", f"{API_PATH}/fetch_artifact_url", params))
        return responses.parse_artifact_location(content)

    def download(
        self,
        location: responses.ArtifactLocation,
        destination: BinaryIO,
        kind: str,
        progress: Progress | None = None,
    ) -> None:
        """Download an artifact into `destination`, and replace its previous content.

        Raises AccessDenied or NotFound if the URL is no longer valid.
        """
        request = Request(
            f"downloading the {kind}",
            "GET",
            location.url,
            destination=destination,
            limit_bytes=min(location.size_bytes or MAX_FILE_BYTES, MAX_FILE_BYTES),
            progress=progress or NoProgress(),
        )
        response = self._transport.send_to_storage(request)
        if response.status != 200:
            raise storage_error(request.action, response)

    def call(self, request: Request) -> object:
        """Send an API call and return the JSON of its response."""
        return self._parse_response(request, self._transport.send_to_api(request))

    def call_if_supported(self, request: Request, unsupported: frozenset[int]) -> object:
        """Send an API call that some instances do not support. Otherwise the same as `call`.

        unsupported: status codes of an instance without this call. They raise UsageError.
        """
        response = self._transport.send_to_api(request)
        if response.status in unsupported:
            raise UsageError(
                f"{request.action}: {self.url} does not support this (HTTP {response.status}). "
                "It is the hosted service or an older release. Use its web page, or upgrade it."
            )
        return self._parse_response(request, response)

    def _parse_response(self, request: Request, response: Response) -> object:
        content = response.json()
        if not response.is_success:
            raise api_error(request.action, response, self.credentials)
        if content is None:
            raise Unavailable(
                f"{request.action}: the response of {self.url} is not JSON. Check that it "
                "is the URL of an instance's API, and not that of a proxy or login page"
            )
        return content


def _environment_parameters(integration_id: int, environment: str) -> dict[str, str | int]:
    # The ID is sent as a string, as altimate-datapilot-cli does.
    return {
        "dbt_core_integration_id": str(integration_id),
        "dbt_core_integration_environment_type": environment,
    }
