"""Sources of credentials: options, environment variables, keyring, config file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from datapilot_defer import config, credential_store
from datapilot_defer.config import (
    CONFIG_FILE_KEYS,
    CREDENTIAL_OPTIONS,
    CREDENTIAL_VARIABLES,
    DEFAULT_URL,
    Setting,
    SettingSource,
)
from datapilot_defer.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datapilot_defer.console import Log


@dataclass(frozen=True)
class CredentialSource:
    """One source of credentials. Each of the three values may be missing.

    stored: whether the values were saved earlier, as one set. pasted: whether they are options, and
    may therefore belong to another instance.
    """

    url: Setting | None = None
    instance_name: Setting | None = None
    token: Setting | None = None
    stored: bool = False
    pasted: bool = False

    @classmethod
    def from_options(
        cls, *, token: str | None, instance_name: str | None, url: str | None
    ) -> CredentialSource:
        """Return the values of command-line options. An empty value is treated as missing."""
        return cls(
            url=_option_setting("url", url),
            instance_name=_option_setting("instance_name", instance_name),
            token=_option_setting("token", token),
            pasted=True,
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> CredentialSource:
        """Return the values of environment variables.

        `DATAPILOT_*` takes precedence over `ALTIMATE_*`.
        """
        return cls(
            url=config.read_variable(environ, CREDENTIAL_VARIABLES["url"]),
            instance_name=config.read_variable(environ, CREDENTIAL_VARIABLES["instance_name"]),
            token=config.read_variable(environ, CREDENTIAL_VARIABLES["token"]),
        )

    @classmethod
    def from_config_file(cls, environ: Mapping[str, str]) -> CredentialSource:
        """Return the credentials in the config file. Raises UsageError for an invalid file."""
        file = config.read_config_file(environ)
        return cls(
            url=file.get(CONFIG_FILE_KEYS["url"], environ),
            instance_name=file.get(CONFIG_FILE_KEYS["instance_name"], environ),
            token=file.get(CONFIG_FILE_KEYS["token"], environ),
            stored=True,
        )

    @classmethod
    def from_keyring(
        cls, url: str | None, instance_name: str | None, log: Log
    ) -> CredentialSource | None:
        """Return the most recently saved credentials in the keyring for this instance, or None.

        A URL or instance name of None matches any. An unusable keyring is treated as empty.
        """
        try:
            stored = credential_store.find_in_keyring(url, instance_name)
        except Unavailable as error:
            log.detail(str(error))
            return None
        if stored is None:
            return None
        return cls(
            url=_keyring_setting(stored.url),
            instance_name=_keyring_setting(stored.instance_name),
            token=_keyring_setting(stored.token),
            stored=True,
        )


def _option_setting(part: str, value: str | None) -> Setting | None:
    if not value:
        return None
    return Setting(value, f"option {CREDENTIAL_OPTIONS[part]}", SettingSource.OPTION)


def _keyring_setting(value: str) -> Setting:
    return Setting(value, "the system keyring", SettingSource.KEYRING)


def collect_sources(
    options: CredentialSource, environ: Mapping[str, str], log: Log
) -> list[CredentialSource]:
    """Return the sources in order of precedence.

    The config file is read only if options and environment variables are incomplete. The keyring is
    read only if it is enabled, options and environment variables contain no token, and the config
    file contains none for the requested instance.
    """
    sources = [options, CredentialSource.from_environment(environ)]
    if _is_complete(sources):
        return sources
    file = CredentialSource.from_config_file(environ)
    has_token = any(source.token for source in sources)
    file_decides = file.token is not None and _matches_requested_instance(file, sources)
    if has_token or file_decides or not credential_store.is_keyring_enabled(environ):
        return [*sources, file]
    requested = list(sources)
    if file.token is None:
        requested.append(file)  # without a token, the file only selects an instance
    url = _first_url(requested)
    keyring = CredentialSource.from_keyring(url, _first_instance_name(requested), log)
    if keyring is None:
        return [*sources, file]
    return [*sources, keyring, file]


def _is_complete(sources: Sequence[CredentialSource]) -> bool:
    """Return whether all three values are known. A missing URL may be in the config file."""
    return (
        any(source.url for source in sources)
        and any(source.instance_name for source in sources)
        and any(source.token for source in sources)
    )


def _matches_requested_instance(
    stored: CredentialSource, sources: Sequence[CredentialSource]
) -> bool:
    """Return whether stored credentials match the requested instance, if one is requested."""
    url = _first_url(sources)
    name = _first_instance_name(sources)
    stored_url = _first_url([stored]) or DEFAULT_URL
    stored_name = _first_instance_name([stored]) or name
    return url in (None, stored_url) and name in (None, stored_name)


def _first_url(sources: Sequence[CredentialSource]) -> str | None:
    return next((normalize_url(source.url.value) for source in sources if source.url), None)


def _first_instance_name(sources: Sequence[CredentialSource]) -> str | None:
    return next((source.instance_name.value for source in sources if source.instance_name), None)


def normalize_url(url: str) -> str:
    """Return a URL for comparisons: in lower case and without a trailing slash."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}{separator}{rest.rstrip('/').lower()}"
