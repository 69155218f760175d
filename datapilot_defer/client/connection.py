"""The instance that options, environment variables and stored credentials select."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from datapilot_defer import ci, config
from datapilot_defer.config import Setting, SettingSource
from datapilot_defer.credential_sources import CredentialSource, collect_sources
from datapilot_defer.credentials import Credentials, resolve_address, resolve_token, resolve_url
from datapilot_defer.deadline import DEFAULT_TIMEOUT_S, Deadline
from datapilot_defer.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.console import Console

# Limits for a command that can continue with the artifacts of an earlier pull.
BRIEF_TIMEOUT_S = 5.0
UPDATE_TIMEOUT_S = 120.0
_MAX_TIMEOUT_S = 86_400


@dataclass(frozen=True)
class ConnectionOptions:
    """Connection options of one command. An empty string is treated as not given."""

    token: str | None = field(default=None, repr=False)
    instance_name: str | None = None
    backend_url: str | None = None
    allow_http: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True)
class InstanceAddress:
    """The URL and instance name of an instance. `url` has no trailing slash."""

    url: str
    instance_name: str


class Connection:
    """The instance of one command. Credentials are looked up on first access.

    `address` and `credentials` raise UsageError if a value is missing, malformed, or belongs to
    another instance. The user is asked for each missing value at most once.
    """

    def __init__(
        self, options: ConnectionOptions, *, environ: Mapping[str, str], console: Console
    ) -> None:
        self._options = options
        self._environ = environ
        self._console = console
        # The error of an earlier short request, so that later calls do not wait for the instance.
        self.unavailable: Unavailable | None = None

    @cached_property
    def deadline(self) -> Deadline:
        """Return the deadline of the command, counted from the first access."""
        return Deadline(command_timeout_s(self._options.timeout_s, self._environ))

    @cached_property
    def url(self) -> str:
        """Return the URL, which may be known without the other values.

        Raises UsageError for an invalid URL. Also raises it if no URL, instance name or token is
        set, because the default URL would only be a guess.
        """
        sources = self._sources
        if not any(source.url or source.instance_name or source.token for source in sources):
            raise UsageError("no instance is configured. Set the environment variable ALTIMATE_URL")
        return resolve_url(sources, allow_http=self._options.allow_http).value

    @cached_property
    def address(self) -> InstanceAddress:
        """Return the URL and the instance name. No token is needed, so `pull --offline` works."""
        url, instance_name = self._address_settings
        return InstanceAddress(url.value, instance_name.value)

    @cached_property
    def credentials(self) -> Credentials:
        """Return the credentials. The token is hidden in all later output."""
        url, instance_name = self._address_settings
        token = resolve_token(self._sources, console=self._console)
        self._console.hide_secret(token.value)
        self._warn_if_readable_by_others(token)
        self._console.detail(
            f"URL from {url.origin}, instance name from {instance_name.origin}, "
            f"token from {token.origin}"
        )
        return Credentials(url, instance_name, token)

    def open(
        self, max_timeout_s: float = math.inf, *, retry_s: float | None = None
    ) -> InstanceClient:
        """Return a client whose calls take at most `max_timeout_s` seconds in total.

        The deadline of the command may end them earlier. retry_s: see `open_instance`.
        """
        deadline = self.deadline
        if max_timeout_s < deadline.remaining():
            deadline = Deadline(max_timeout_s, is_option=False)
        return open_instance(
            self.credentials,
            environ=self._environ,
            console=self._console,
            deadline=deadline,
            retry_s=retry_s,
        )

    def open_without_token(self) -> InstanceClient:
        """Return a client for checks that need no token. It does not retry."""
        nothing = Setting("", "nowhere")
        return open_instance(
            Credentials(Setting(self.url, "the URL"), nothing, nothing),
            environ=self._environ,
            console=self._console,
            deadline=self.deadline,
            retry_s=0,
        )

    def open_briefly(self) -> InstanceClient:
        """Return a client that gives up after 5 seconds, for a command that can work offline."""
        return self.open(BRIEF_TIMEOUT_S, retry_s=BRIEF_TIMEOUT_S)

    def open_for_update(self) -> InstanceClient:
        """Return a client for updates of artifacts that were pulled before.

        It gives up if the instance sends nothing for 5 seconds, or after 2 minutes in total.
        """
        return self.open(UPDATE_TIMEOUT_S, retry_s=BRIEF_TIMEOUT_S)

    @cached_property
    def _sources(self) -> list[CredentialSource]:
        options = self._options
        if options.token:
            self._console.hide_secret(options.token)
            self._console.warn(
                "--token is visible in process lists and CI logs. Set ALTIMATE_API_KEY instead"
            )
        source = CredentialSource.from_options(
            token=options.token, instance_name=options.instance_name, url=options.backend_url
        )
        return collect_sources(source, self._environ, self._console)

    @cached_property
    def _address_settings(self) -> tuple[Setting, Setting]:
        return resolve_address(
            self._sources, console=self._console, allow_http=self._options.allow_http
        )

    def _warn_if_readable_by_others(self, token: Setting) -> None:
        if token.source is not SettingSource.CONFIG_FILE:
            return
        file = config.read_config_file(self._environ)
        if file.is_readable_by_others():
            self._console.warn(
                f"other users of this machine can read the token in {file.path}. Run "
                f"`chmod 600 {file.path}`"
            )


def open_instance(
    credentials: Credentials,
    *,
    environ: Mapping[str, str],
    console: Console,
    deadline: Deadline,
    retry_s: float | None = None,
) -> InstanceClient:
    """Return a client for the instance that these credentials belong to.

    retry_s: how long to repeat a failed request; 0 disables retries, and None means 30 s for a user
    at a terminal, otherwise 5 minutes. Any other value below 60 s is also the maximum wait for a
    response.
    """
    from datapilot_defer.client import retries
    from datapilot_defer.client.instance_client import InstanceClient

    ci_name = None
    run = ci.detect_ci(environ)
    if run is not None:
        ci_name = run.system.name
    read_timeout_s = retries.READ_TIMEOUT_S
    if retry_s:
        read_timeout_s = min(read_timeout_s, retry_s)
    if retry_s is None:
        retry_s = retries.UNATTENDED_RETRY_S
        if console.attended:
            retry_s = retries.ATTENDED_RETRY_S
    limits = retries.TimeLimits(deadline, retry_s, read_timeout_s)
    return InstanceClient(credentials, limits=limits, log=console, ci_name=ci_name)


def command_timeout_s(timeout_s: float | None, environ: Mapping[str, str]) -> float:
    """Return the time limit of a command in seconds.

    timeout_s: the value of --timeout; None selects DATAPILOT_TIMEOUT or the default. Raises
    UsageError if DATAPILOT_TIMEOUT is invalid.
    """
    return timeout_s or _timeout_from_environment(environ) or DEFAULT_TIMEOUT_S


def _timeout_from_environment(environ: Mapping[str, str]) -> float | None:
    """Return DATAPILOT_TIMEOUT in seconds; None if it is not set.

    Raises UsageError if it is not a number or out of range.
    """
    setting = config.read_variable(environ, ("DATAPILOT_TIMEOUT",))
    if setting is None:
        return None
    try:
        seconds = float(setting.value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= _MAX_TIMEOUT_S:
        raise UsageError(
            f"{setting.origin} is {setting.value!r}. Set it to a number of seconds from 1 to 86400"
        )
    return seconds
