"""Steps that need neither a network nor a token: project, dbt, manifest, settings, keyring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer import credential_store
from datapilot_defer.config import SettingSource
from datapilot_defer.dbt_installation import find_dbt
from datapilot_defer.dbt_project import NotInProject, find_project
from datapilot_defer.defer.project_settings import read_settings
from datapilot_defer.defer.settings_file import read_settings_files
from datapilot_defer.defer.state import prepare_state
from datapilot_defer.doctor.steps import Step, StepName, failed, passed, skipped, warned
from datapilot_defer.errors import ArtifactRefused, DatapilotError, Unavailable, UsageError
from datapilot_defer.pull.request import check_age

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from datapilot_defer.client.connection import Connection
    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.config import Setting
    from datapilot_defer.console import Console
    from datapilot_defer.dbt_installation import DbtInstallation
    from datapilot_defer.dbt_project import DbtProject
    from datapilot_defer.defer.project_settings import DeferSettings
    from datapilot_defer.pull.record import PulledArtifact


class MachineChecks:
    """The steps for this machine and the dbt project.

    project_dir, dbt_path, max_age_s: the values of options. A problem with a given value is a
    failure.

    After `run`, `settings` are those of the project, `client` is a client for the instance, and
    `outdated` is the sha256 of a pulled manifest that is too old, with the error for it. Each of
    them may be None.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        project_dir: str | None,
        dbt_path: str | None,
        max_age_s: float | None,
        environ: Mapping[str, str],
        console: Console,
    ) -> None:
        self._connection = connection
        self._project_dir = project_dir
        self._dbt_path = dbt_path
        self._max_age_s = max_age_s
        self._environ = environ
        self._console = console
        self._project: DbtProject | None = None
        self._dbt: DbtInstallation | None = None
        self._token: Setting | None = None
        self.settings: DeferSettings | None = None
        self.outdated: tuple[str, ArtifactRefused] | None = None
        self.client: InstanceClient | None = None

    def run(self) -> Iterator[Step]:
        """Run every step."""
        yield self._check_project()
        yield self._check_dbt()
        yield self._check_manifest_source()
        yield self._check_configuration()
        yield self._check_keyring()

    def _check_project(self) -> Step:
        directory = None
        if self._project_dir:
            directory = Path(self._project_dir)
        try:
            self._project = find_project(directory, self._environ)
        except NotInProject as error:
            return skipped(StepName.PROJECT, str(error))
        except UsageError as error:
            return failed(StepName.PROJECT, error)
        return passed(StepName.PROJECT, f"{self._project.name} in {self._project.folder}")

    def _check_dbt(self) -> Step:
        try:
            self._dbt = find_dbt(self._dbt_path, self._environ)
        except UsageError as error:
            if self._dbt_path:
                return failed(StepName.DBT, error)
            return warned(StepName.DBT, f"{error}. `onboard` and `pull` work without it")
        return passed(StepName.DBT, f"{self._dbt.version} at {self._dbt.path}")

    def _check_manifest_source(self) -> Step:
        """Check the manifest that the project defers to, in a directory or from an earlier pull."""
        name = StepName.MANIFEST_SOURCE
        if self._project is None:
            return skipped(name, "needs a dbt project")
        try:
            files = read_settings_files(self._project.folder, self._environ)
            self.settings = read_settings(files.effective)
        except UsageError as error:
            return failed(name, error)
        if self.settings.mode is None:
            return skipped(name, "defer is not set up for this project")
        try:
            return passed(name, self._describe_state(self._project, self.settings))
        except DatapilotError as error:
            return self._judge_source(self.settings, error)

    def _describe_state(self, project: DbtProject, settings: DeferSettings) -> str:
        """Return a description of the state that `defer run` would use offline."""
        state = prepare_state(
            project,
            settings,
            dbt=self._dbt,
            connection=self._connection,
            console=self._console,
            max_age_s=None,
            offline=True,
            environ=self._environ,
        )
        self._check_age(state.artifact, settings)
        source = f"directory {state.directory}"
        if settings.mode == "integration":
            source = f"pulled from {_describe_integration(settings)}"
        return f"{_describe_switch(settings)}; {source}; {state.artifact.describe_age()}"

    def _check_age(self, manifest: PulledArtifact, settings: DeferSettings) -> None:
        try:
            check_age(manifest, self._max_age_s)
        except ArtifactRefused as error:
            if settings.mode == "integration":
                self.outdated = (manifest.metadata.sha256, error)
            raise

    def _judge_source(self, settings: DeferSettings, error: DatapilotError) -> Step:
        name = StepName.MANIFEST_SOURCE
        if self.outdated is not None:  # the instance may have a newer one
            return warned(name, f"{_describe_switch(settings)}; pulled before: {error}")
        if settings.enabled and (settings.mode == "local" or isinstance(error, ArtifactRefused)):
            return failed(name, error)
        if isinstance(error, Unavailable):
            source = _describe_integration(settings)
            return warned(name, f"{_describe_switch(settings)}; nothing pulled from {source} yet")
        return warned(name, f"{_describe_switch(settings)}; {error}")

    def _check_configuration(self) -> Step:
        try:
            credentials = self._connection.credentials
            self.client = self._connection.open(retry_s=0)
        except UsageError as error:
            return failed(StepName.CONFIGURATION, error)
        self._token = credentials.token
        url = credentials.url
        instance_name = credentials.instance_name
        return passed(
            StepName.CONFIGURATION,
            f"{url.value} (from {url.origin}), instance name {instance_name.value} "
            f"(from {instance_name.origin}), token from {credentials.token.origin}",
        )

    def _check_keyring(self) -> Step:
        """Check the keyring.

        It is read only if no token is known, because it may ask for a password.
        """
        name = StepName.KEYRING
        try:
            if not credential_store.is_keyring_enabled(self._environ):
                return skipped(name, "not used here: in CI, or because of DATAPILOT_KEYRING")
            return passed(name, self._describe_keyring())
        except UsageError as error:
            return failed(name, error)
        except Unavailable as error:
            reason = f"{error}. Environment variables and the config file work without it"
            if self._token is None:
                return warned(name, reason)
            return skipped(name, reason)

    def _describe_keyring(self) -> str:
        """Return how the keyring is used, as text. Raises Unavailable if it cannot be used."""
        keyring = credential_store.describe_keyring()
        if self._token is None:
            credential_store.find_in_keyring(None, None)
            return f"{keyring} works, and contains no credentials for this instance"
        if self._token.source is SettingSource.KEYRING:
            return f"the token is in {keyring}"
        return f"{keyring} is not needed, because the token comes from {self._token.origin}"


def _describe_switch(settings: DeferSettings) -> str:
    if settings.enabled:
        return "defer is on"
    return "defer is off"


def _describe_integration(settings: DeferSettings) -> str:
    description = f"integration {settings.integration_id}"
    if settings.environment:
        description += f", environment {settings.environment}"
    return description
