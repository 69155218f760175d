"""The way from options, environment variables and stored credentials to an instance."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from datapilot_defer import ci, config, credential_store, credentials
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datapilot_defer.client.instance_client import InstanceClient
    from datapilot_defer.console import Console
    from datapilot_defer.credentials import Credentials, CredentialSource

DEFAULT_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class ConnectionOptions:
    """Options of one call that select an instance. An empty string counts as not given."""

    token: str | None = field(default=None, repr=False)
    instance_name: str | None = None
    backend_url: str | None = None
    allow_http: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True)
class InstanceAddress:
    """URL and instance name: everything but the token. `url` has no trailing slash."""

    url: str
    instance_name: str


class Connection:
    """The instance of one command. Credentials are looked up when they are first needed.

    `address` and `credentials` raise UsageError when a part is missing, malformed, or belongs to
    another instance.
    """

    def __init__(
        self, options: ConnectionOptions, *, environ: Mapping[str, str], console: Console
    ) -> None:
        self._options = options
        self._environ = environ
        self._console = console
        self._unavailable: Unavailable | None = None

    @cached_property
    def address(self) -> InstanceAddress:
        """Return URL and instance name. They need no token, so that `pull --offline` needs none."""
        found = self.credentials
        return InstanceAddress(found.url.value, found.instance_name.value)

    @cached_property
    def credentials(self) -> Credentials:
        """Return the credentials; the token is hidden in all output from then on."""
        options = self._options
        if options.token:
            self._console.hide_secret(options.token)
            self._console.warn(
                "--token shows the token in process lists and CI logs; set ALTIMATE_API_KEY instead"
            )
        found = credentials.resolve_credentials(
            credentials.given(
                token=options.token,
                instance_name=options.instance_name,
                url=options.backend_url,
            ),
            environ=self._environ,
            keyring=self._keyring,
            ask=self._ask if self._console.interactive else None,
            allow_http=options.allow_http,
        )
        self._console.hide_secret(found.token.value)
        file = config.read_config_file(self._environ)
        if found.token.origin.startswith(str(file.path)) and file.is_readable_by_others():
            self._console.warn(
                f"others on this machine can read the token in {file.path}: chmod 600 {file.path}"
            )
        self._console.detail(
            f"URL from {found.url.origin}, instance name from {found.instance_name.origin}, "
            f"token from {found.token.origin}"
        )
        return found

    def open(
        self, timeout_s: float | None = None, *, max_tries: int | None = None
    ) -> InstanceClient:
        """Return a client whose calls take at most `timeout_s` seconds together.

        timeout_s: a shorter --timeout wins. max_tries: of each request.
        Raises the Unavailable of `mark_unavailable` again.
        """
        from datapilot_defer.client.instance_client import MAX_TRIES, InstanceClient

        if self._unavailable is not None:
            raise self._unavailable
        run = ci.detect_ci(self._environ)
        return InstanceClient(
            self.credentials,
            deadline=Deadline(self._timeout(timeout_s)),
            note=self._console.note,
            detail=self._console.detail,
            ci=run.name if run else "",
            max_tries=max_tries or MAX_TRIES,
        )

    def mark_unavailable(self, error: Unavailable) -> None:
        """Remember that the instance cannot be reached, so that nothing waits for it again."""
        self._unavailable = error

    def _timeout(self, timeout_s: float | None) -> float:
        limits = [limit for limit in (timeout_s, self._options.timeout_s) if limit is not None]
        if limits:
            return min(limits)
        return _timeout_from_environment(self._environ) or DEFAULT_TIMEOUT_S

    def _keyring(self, url: str | None, instance_name: str | None) -> CredentialSource | None:
        if not credential_store.is_keyring_enabled(self._environ):
            return None
        try:
            return credential_store.find_in_keyring(url, instance_name)
        except Unavailable as error:
            self._console.detail(str(error))
            return None

    def _ask(self, label: str) -> str:
        return self._console.ask(label, hidden=label == "token")


def _timeout_from_environment(environ: Mapping[str, str]) -> float | None:
    """Return DATAPILOT_TIMEOUT in seconds. Raises UsageError when it is out of range."""
    setting = config.read_variable(environ, ("DATAPILOT_TIMEOUT",))
    if setting is None:
        return None
    try:
        seconds = float(setting.value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise UsageError(
            f"{setting.origin} is {setting.value!r}: set it to a number of seconds, 1 to 86400"
        )
    return seconds
