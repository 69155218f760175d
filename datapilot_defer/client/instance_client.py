"""An instance as seen over HTTP: one method for each thing that can be asked of it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import BinaryIO, NoReturn
from urllib.parse import quote

from datapilot_defer.artifact import Artifact, Kind
from datapilot_defer.client import responses
from datapilot_defer.client.responses import (
    ArtifactLocation,
    IntegrationSummary,
    UploadReceipt,
    UploadTarget,
)
from datapilot_defer.client.transport import MAX_TRIES, Request, Response, Transport
from datapilot_defer.config import DEFAULT_URL
from datapilot_defer.console import Log, NoProgress, Progress
from datapilot_defer.credentials import Credentials, rejected_credentials_error
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)

__all__ = [
    "MAX_TRIES",
    "ArtifactLocation",
    "InstanceClient",
    "IntegrationSummary",
    "UploadReceipt",
    "UploadTarget",
]

_API = "/dbt/v1"
MAX_ARTIFACT_BYTES = (
    1024 * 1024 * 1024
)  # where the instance does not say how many: twice what our own takes


class InstanceClient:
    """One instance, for the length of one command. Every method raises AccessDenied, NotFound or Unavailable.

    note: told, in a line each, why and how long it waits; detail: told of each request.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        deadline: Deadline,
        log: Log,
        ci_name: str | None = None,
        max_tries: int = MAX_TRIES,
    ) -> None:
        self.credentials = credentials
        self.url = credentials.url.value
        self._transport = Transport(
            self.url,
            deadline=deadline,
            user_agent=user_agent(ci_name),
            log=log,
            max_tries=max_tries,
        )
        self._transport.authenticate(credentials.token.value, credentials.instance_name.value)

    def status_url(self, integration_id: int, environment: str) -> str:
        """The page that shows one environment of an integration to people."""
        home = self.url
        if home == DEFAULT_URL:
            home = f"https://{self.credentials.instance_name.value}.app.myaltimate.com"
        return f"{home}/settings/integrations/{integration_id}/{quote(environment, safe='')}"

    def health(self) -> str | None:
        """Raises Unavailable when nothing answers; returns the Date header, the instance's idea of the time."""
        return self._send(Request("reaching the instance", "GET", "/health")).headers.get("Date")

    def check_credentials(self) -> None:
        """Raises AccessDenied when the instance does not know the token under this instance name."""
        what = "checking the credentials"
        answer = self._send(Request(what, "GET", "/dbt/v3/validate-credentials"))
        content = None if answer.status == 403 else self._parse_response(what, answer)
        if answer.status == 403 or (isinstance(content, dict) and content.get("ok") is False):
            raise rejected_credentials_error(self.credentials)

    def check_permissions(self) -> None:
        """Raises AccessDenied when the token may not upload."""
        answer = self._call(
            "checking the permission to upload", "GET", f"{_API}/validate-permissions"
        )
        if isinstance(answer, dict) and answer.get("ok") is False:
            raise AccessDenied(
                f"the token may not upload: {responses.error_detail(answer) or 'the instance gives no reason'}"
            )

    def list_integrations(self) -> list[IntegrationSummary]:
        """Every integration that the token may see, in the instance's order."""
        return responses.integrations(
            self._call("listing the integrations", "GET", f"{_API}/project_integrations/")
        )

    def find_integration(self, name: str) -> IntegrationSummary:
        """The integration of exactly this name. Raises UsageError when several have it."""
        every = self.list_integrations()
        found = [integration for integration in every if integration.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(str(integration.id) for integration in found)
            raise UsageError(
                f"{len(found)} integrations are called {name!r} (ids {ids}): say which one with --integration-id"
            )
        names = ", ".join(repr(integration.name) for integration in every[:20]) or "none yet"
        raise NotFound(f"no integration is called {name!r} on {self.url}; there are: {names}")

    def describe_environment(self, integration_id: int, environment: str) -> Mapping[str, object]:
        """One environment of an integration as the instance describes it: `sync_history`, on ours also `history`."""
        path = f"{_API}/project_integrations/{integration_id}/{quote(environment, safe='')}"
        answer = self._call(f"showing integration {integration_id}, {environment}", "GET", path)
        if not isinstance(answer, dict):
            raise Unavailable("the instance's answer describes no integration")
        return answer

    def create_integration(self, name: str, environment: str) -> int:
        """Make an integration for a dbt Core project; returns its id. Not repeated when it may have been made."""
        body = {"name": name, "environment": environment, "integration_type": "dbt_core"}
        answer = self._call(
            f"creating integration {name!r}",
            "POST",
            f"{_API}/project_integration",
            body=body,
            repeatable=False,
        )
        made = answer.get("dbt_core_integration_id") if isinstance(answer, dict) else None
        if not isinstance(made, int):
            raise Unavailable(
                f"the instance did not say that it made the integration: {responses.error_detail(answer) or 'no reason'}"
            )
        return made

    def request_upload_url(self, kind: Kind, integration_id: int, environment: str) -> UploadTarget:
        """Where to put an artifact of this kind."""
        params = {**_environment_parameters(integration_id, environment), "file_type": kind.value}
        return responses.upload_place(
            self._call(f"asking where to put the {kind.value}", "GET", f"{_API}/signed_url", params)
        )

    def upload(
        self, place: UploadTarget, artifact: Artifact, progress: Progress
    ) -> DatapilotError | None:
        """Put the bytes there; nobody sees them before they are verified.

        Returns None, or why they are not there, when another signed URL may help. Raises what it can't help against.
        """
        what, content = artifact.kind.value, artifact.content
        request = Request(
            f"uploading the {what}", "PUT", place.url, content=content, progress=progress
        )
        answer = self._transport.send_to_storage(request)
        if answer.status == 413:
            raise ArtifactRefused(
                f"the {what} is too large for the instance ({len(content):,} bytes)"
            )
        if not 200 <= answer.status < 300:
            return _storage_error(f"uploading the {what}", answer)
        arrived = answer.headers.get("ETag", "").strip('"')  # our instance tells the sha256 there
        if len(arrived) == len(artifact.metadata.sha256) and arrived != artifact.metadata.sha256:
            return Unavailable(
                f"uploading the {what}: the bytes were changed on the way: sha256 {arrived} arrived, "
                f"{artifact.metadata.sha256} was sent; is a proxy in between?"
            )
        return None

    def verify_upload(
        self, place: UploadTarget, what: str, facts: Mapping[str, object]
    ) -> UploadReceipt:
        """Have the instance confirm that the bytes arrived whole, which makes them the current ones.

        facts: sha256, size_bytes, and where the upload comes from; an instance that does not know them ignores them.
        Raises ArtifactRefused when it refuses them.
        """
        body = {"dbt_core_integration_file_id": place.file_id}
        path, act = f"{_API}/verify_upload", f"confirming the {what}"
        answer = self._send(Request(act, "POST", path, body={**body, **facts}))
        if answer.status in (400, 422) and "extra" in responses.error_detail(answer.json()).lower():
            answer = self._send(
                Request(act, "POST", path, body=body)
            )  # an instance that forbids what it does not know
        if answer.status in (400, 409, 413, 422):
            raise ArtifactRefused(
                f"the instance refuses the {what}: {responses.error_detail(answer.json()) or f'HTTP {answer.status}'}"
            )
        return responses.stored(self._parse_response(act, answer), place.file_id)

    def start_ingestion(self, integration_id: int, environment: str) -> None:
        """Tell the instance that everything has arrived. Raises Unavailable when it does not take that up."""
        what = "starting the ingestion"
        given = self._send(
            Request(
                what,
                "POST",
                f"{_API}/start_dbt_ingestion",
                body=_environment_parameters(integration_id, environment),
            )
        )
        if given.status == 409:
            raise ArtifactRefused(
                f"the instance refuses to ingest: {responses.error_detail(given.json()) or 'it gives no reason'}"
            )
        answer = self._parse_response(what, given)
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            raise Unavailable(
                f"the instance did not start the ingestion: {responses.error_detail(answer) or 'it gives no reason'}"
            )

    def locate_artifact(
        self,
        kind: Kind,
        integration_id: int,
        *,
        environment: str | None = None,
        file_id: int | None = None,
        at: str | None = None,
    ) -> ArtifactLocation:
        """Where the current artifact of this kind is; or an earlier one, by its file id or by an ISO time."""
        params: dict[str, str | int] = {
            "artifact_type": kind.value,
            "dbt_core_integration_id": integration_id,
        }
        wishes = {"environment_type": environment, "file_id": file_id}
        params |= {
            f"dbt_core_integration_{name}": value
            for name, value in wishes.items()
            if value is not None
        }
        params |= {"at": at} if at else {}
        where = f"integration {integration_id}" + (
            f", environment {environment}" if environment else ""
        )
        return responses.download(
            self._call(
                f"finding the {kind.value} of {where}", "GET", f"{_API}/fetch_artifact_url", params
            )
        )

    def download(
        self,
        place: ArtifactLocation,
        sink: BinaryIO,
        what: str,
        progress: Progress | None = None,
    ) -> None:
        """Write the artifact's bytes to `sink`, from its beginning.

        Raises AccessDenied or NotFound when the URL is no longer good.
        """
        act, limit = f"fetching the {what}", place.size_bytes or MAX_ARTIFACT_BYTES
        answer = self._transport.send_to_storage(
            Request(
                act,
                "GET",
                place.url,
                destination=sink,
                limit_bytes=limit,
                progress=progress or NoProgress(),
            )
        )
        if answer.status != 200:
            raise _storage_error(act, answer)

    def restore(self, integration_id: int, environment: str, file_id: int) -> UploadReceipt:
        """Make an earlier artifact the current one again."""
        path = f"{_API}/project_integrations/{integration_id}/{quote(environment, safe='')}/restore"
        body = {"dbt_core_integration_file_id": file_id}
        return responses.stored(
            self._call(f"restoring file {file_id}", "POST", path, body=body), file_id
        )

    def _call(
        self,
        what: str,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        body: object = None,
        repeatable: bool = True,
    ) -> object:
        return self._parse_response(
            what, self._send(Request(what, method, path, params, body, repeatable=repeatable))
        )

    def _send(self, request: Request) -> Response:
        return self._transport.send_to_api(request)

    def _parse_response(self, what: str, answer: Response) -> object:
        content = answer.json()
        if not 200 <= answer.status < 300:
            self._raise_for_status(what, answer.status, responses.error_detail(content))
        if content is None:
            raise Unavailable(
                f"{what}: {self.url} answered something that is not JSON; "
                "is that the URL of an instance's API, and no proxy or log-in page in between?"
            )
        return content

    def _raise_for_status(self, what: str, status: int, reason: str) -> NoReturn:
        said = f": {reason}" if reason else f" (HTTP {status})"
        if status == 401:
            raise rejected_credentials_error(self.credentials)
        if status == 402:
            raise AccessDenied(f"{what}: the quota of the instance is used up{said}")
        if status == 403:
            raise AccessDenied(f"{what}: not allowed{said}")
        if status == 404:
            raise NotFound(f"{what}: not found on {self.url}{said}")
        if status in (400, 409, 413, 422):
            raise UsageError(f"{what}: refused{said}")
        raise Unavailable(
            f"{what}: {self.url} answered HTTP {status}{f': {reason}' if reason else ''}"
        )


def _storage_error(act: str, answer: Response) -> DatapilotError:
    """The error for a signed URL that does not work."""
    said = f"{act}: the storage answered HTTP {answer.status} at a URL that the instance has just signed"
    if answer.status == 404:
        return NotFound(said)
    if answer.status in (400, 401, 403, 410):
        return AccessDenied(
            f"{said}; is a proxy in between, or the clock of this machine or of the storage wrong?"
        )
    return Unavailable(said)


def _environment_parameters(integration_id: int, environment: str) -> dict[str, str | int]:
    # The id travels as a string, as altimate-datapilot-cli sends it.
    return {
        "dbt_core_integration_id": str(integration_id),
        "dbt_core_integration_environment_type": environment,
    }


def user_agent(ci_name: str | None = None) -> str:
    """Program, Python, system and, if any, CI: what an instance's log may show of us."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("datapilot-defer")
    except PackageNotFoundError:  # run from a checkout
        own = "0"
    python = ".".join(str(part) for part in sys.version_info[:2])
    suffix = f" ({ci_name})" if ci_name else ""
    return f"datapilot-defer/{own} python/{python} {platform.system().lower()}{suffix}"
