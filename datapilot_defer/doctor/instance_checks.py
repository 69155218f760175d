"""Steps that send requests to an instance.

They check connection, clock, credentials, permissions, manifest and storage. They only read, except
that a signed URL for an upload is requested if the token may upload to the given integration. The
instance stays unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from datapilot_defer.artifact import Kind
from datapilot_defer.client.allowed_urls import check_storage_url
from datapilot_defer.client.responses import IntegrationSummary
from datapilot_defer.client.token_expiry import describe_expiry
from datapilot_defer.doctor.manifest_location import check_upload_age, describe_location
from datapilot_defer.doctor.network_checks import connect_to_storage
from datapilot_defer.doctor.steps import Step, StepName, failed, passed, skipped, warned
from datapilot_defer.errors import (
    AccessDenied,
    ArtifactRefused,
    DatapilotError,
    NotFound,
    Unavailable,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.client.responses import ArtifactLocation

MAX_CLOCK_OFFSET_S = 300  # signed URLs of object stores fail at a difference of 5 to 15 minutes
_INCOMPLETE = "not tried: the configuration is not complete"
_UNREACHABLE = "not tried: the instance cannot be reached"
_REJECTED = "not tried: the instance does not accept the credentials"
_UNCHECKED = "not tried: the credentials could not be checked"
_NO_INTEGRATION = "not tried: use --integration-id or --integration-name"


@dataclass(frozen=True)
class InstanceFindings:
    """The steps, and what the token permits; None if that is unknown."""

    steps: tuple[Step, ...]
    may_read: bool | None = None
    may_upload: bool | None = None


def skip_instance_checks() -> InstanceFindings:
    """Return the steps as skipped, for a machine without a configured instance."""
    names = list(StepName)
    names = names[names.index(StepName.CONNECTION) :]
    return InstanceFindings(tuple(skipped(name, _INCOMPLETE) for name in names))


class InstanceChecks:
    """The steps for one instance.

    client: if it has no token, only the steps that need none are run. integration: ID, name or
    None. environment: None for the default of the instance. outdated: the sha256 of a manifest that
    is too old, and the error for it; None if there is none.
    """

    def __init__(
        self,
        client: InstanceClient,
        integration: int | str | None,
        environment: str | None,
        *,
        max_age_s: float | None = None,
        outdated: tuple[str, ArtifactRefused] | None = None,
    ) -> None:
        self._client = client
        self._has_token = bool(client.credentials.token.value)
        self._wanted = integration
        self._environment = environment
        self._max_age_s = max_age_s
        self._outdated = outdated
        self._date: str | None = None
        self._is_listed = False
        self._target: IntegrationSummary | None = None
        self._any_integration: IntegrationSummary | None = None
        self._location: ArtifactLocation | None = None
        self._missing: DatapilotError | None = None
        self._may_read: bool | None = None
        self._may_upload: bool | None = None

    def run(self) -> InstanceFindings:
        """Run every step. Skip those that cannot work because an earlier one failed."""
        steps = tuple(self._run_steps())
        return InstanceFindings(steps, self._may_read, self._may_upload)

    def _run_steps(self) -> Iterator[Step]:
        obstacle = ""
        for name, check in self._checks().items():
            if not obstacle and name is StepName.CREDENTIALS and not self._has_token:
                obstacle = _INCOMPLETE
            if obstacle:
                yield skipped(name, obstacle)
                continue
            try:
                yield check()
            except DatapilotError as error:
                obstacle = _obstacle(name, error)
                yield failed(name, error)

    def _checks(self) -> dict[StepName, Callable[[], Step]]:
        return {
            StepName.CONNECTION: self._check_connection,
            StepName.CLOCK: self._check_clock,
            StepName.CREDENTIALS: self._check_credentials,
            StepName.INTEGRATION: self._check_integration,
            StepName.READING: self._check_reading,
            StepName.UPLOADING: self._check_uploading,
            StepName.MANIFEST: self._check_manifest,
            StepName.STORAGE_HOST: self._check_storage_host,
        }

    def _check_connection(self) -> Step:
        self._date = self._client.health()
        detail = f"{self._client.url} responds, without TLS"
        if self._client.url.startswith("https:"):
            detail = f"{self._client.url} responds, and its TLS certificate is valid"
        return passed(StepName.CONNECTION, detail)

    def _check_clock(self) -> Step:
        """Compare the clock with the Date header of the instance."""
        try:
            server_time = parsedate_to_datetime(self._date or "")
        except (ValueError, OverflowError):
            return skipped(StepName.CLOCK, "the instance does not state its time")
        if server_time.tzinfo is None:
            server_time = server_time.replace(tzinfo=UTC)
        offset_s = abs((datetime.now(UTC) - server_time).total_seconds())
        if offset_s > MAX_CLOCK_OFFSET_S:
            message = (
                f"the clocks differ by {offset_s:.0f} s, so signed URLs will be rejected. "
                "Set the clock of this machine"
            )
            return failed(StepName.CLOCK, Unavailable(message))
        return passed(StepName.CLOCK, f"within {offset_s:.0f} s of the instance's clock")

    def _check_credentials(self) -> Step:
        expires_at = self._client.check_credentials()
        warning = describe_expiry(expires_at, self._client.url)
        if warning is not None:
            return warned(StepName.CREDENTIALS, f"accepted, but {warning}")
        return passed(StepName.CREDENTIALS, "accepted")

    def _check_integration(self) -> Step:
        """Find the selected integration, and any integration with which to check reading."""
        try:
            integrations = self._client.list_integrations()
        except AccessDenied as error:
            if isinstance(self._wanted, str):
                raise AccessDenied(
                    f"cannot look up {self._wanted!r}, because the token is not allowed "
                    f"to list integrations. Use --integration-id ({error})"
                ) from None
            if self._wanted is not None:
                self._target = IntegrationSummary(id=self._wanted)
            return warned(StepName.INTEGRATION, f"the token may not list them: {error}")
        self._is_listed = True
        self._any_integration = next(iter(integrations), None)
        if self._wanted is None:
            return skipped(StepName.INTEGRATION, _NO_INTEGRATION)
        if isinstance(self._wanted, str):
            found = self._client.find_integration(self._wanted)
        else:
            found = self._find_by_id(integrations, self._wanted)
        self._check_environment(found)
        self._target = found
        environments = ", ".join(found.environments) or "no environments"
        detail = f"{found.id} is {found.name!r}, with {environments}"
        return passed(StepName.INTEGRATION, detail)

    def _find_by_id(
        self, integrations: list[IntegrationSummary], integration_id: int
    ) -> IntegrationSummary:
        for integration in integrations:
            if integration.id == integration_id:
                return integration
        raise NotFound(
            f"no integration has the ID {integration_id} on {self._client.url}, or the "
            "token may not list it. `datapilot dbt integrations list` lists the IDs"
        )

    def _check_environment(self, integration: IntegrationSummary) -> None:
        """Raise NotFound if the integration does not have the environment."""
        if self._environment is not None and not integration.may_have(self._environment):
            raise NotFound(
                f"integration {integration.id} has no environment {self._environment!r}. "
                f"It has: {', '.join(integration.environments)}"
            )

    def _check_reading(self) -> Step:
        name = StepName.READING
        integration = self._target or self._any_integration
        if integration is None:
            return skipped(name, self._why_reading_is_not_tried())
        environment = None
        if self._target is not None:
            environment = self._environment
        try:
            self._location = self._client.locate_artifact(
                Kind.MANIFEST, integration.id, environment=environment
            )
        except AccessDenied as error:
            self._may_read = False
            return warned(name, f"the token may not read: {error}")
        except (NotFound, UsageError) as error:
            self._missing = error
        self._may_read = True
        return passed(name, "the token may read")

    def _why_reading_is_not_tried(self) -> str:
        if self._is_listed:
            return "the instance has no integration to check this with"
        return "not tried: the integrations could not be listed. Use --integration-id"

    def _check_uploading(self) -> Step:
        name = StepName.UPLOADING
        try:
            self._client.check_permissions()
        except AccessDenied as error:
            self._may_upload = False
            if self._may_read is False:
                raise AccessDenied(f"the token may neither read nor upload: {error}") from None
            return warned(name, f"the token may not upload: {error}")
        except NotFound:
            return skipped(name, "the instance does not report whether the token may upload")
        self._may_upload = True
        return passed(name, "the token may upload")

    def _check_manifest(self) -> Step:
        """Check the manifest. A missing one is only a warning if the token may upload."""
        name = StepName.MANIFEST
        if self._wanted is None:
            return skipped(name, _NO_INTEGRATION)
        if self._target is None:
            return skipped(name, "not tried: the integration was not found")
        if self._location is not None:
            self._check_age(self._location)
            return passed(name, describe_location(self._location))
        if self._may_read is None:
            return skipped(name, "not tried: reading has failed")
        if self._missing is None:
            return skipped(name, "the token may not read")
        if not self._may_upload:
            raise self._missing
        return warned(name, f"there is none yet: {self._missing}")

    def _check_age(self, location: ArtifactLocation) -> None:
        """Raise ArtifactRefused for a manifest that is too old."""
        if self._outdated is not None and self._outdated[0] == location.sha256:
            raise self._outdated[1]
        check_upload_age(location, self._max_age_s)

    def _why_no_url_is_known(self) -> str:
        if self._wanted is None:
            return _NO_INTEGRATION
        return "not tried: the instance did not sign a URL"

    def _check_storage_host(self) -> Step:
        urls = []
        if self._location is not None:
            urls.append(self._location.url)
        if self._may_upload and self._target is not None:
            target = self._client.request_upload_url(
                Kind.MANIFEST, self._target.id, self._environment or "PROD"
            )
            urls.append(target.url)
        if not urls:
            return skipped(StepName.STORAGE_HOST, self._why_no_url_is_known())
        for url in urls:
            check_storage_url(url, self._client.url, "checking where artifacts are stored")
        hosts = {urlsplit(url)[:2]: urlsplit(url) for url in urls}
        deadline = self._client.deadline
        details = [connect_to_storage(url, deadline) for url in hosts.values()]
        return passed(StepName.STORAGE_HOST, "; ".join(details))


def _obstacle(name: StepName, error: DatapilotError) -> str:
    """Return why the next steps are not tried; "" if they are."""
    if name is StepName.CONNECTION and isinstance(error, Unavailable):
        return _UNREACHABLE
    if name is not StepName.CREDENTIALS:
        return ""
    if isinstance(error, AccessDenied):
        return _REJECTED
    return _UNCHECKED
