"""Instance URL, instance name and token: always as one set.

A token is sent to the URL that it was stored with and nowhere else. Each of the three is looked up
as option, environment variable, config file, keyring; the first one wins. A combination in which a
token would reach a URL that it does not belong to is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from datapilot_defer import config, credential_store
from datapilot_defer.config import (
    CONFIG_FILE_KEYS,
    CREDENTIAL_OPTIONS,
    CREDENTIAL_VARIABLES,
    DEFAULT_URL,
    Setting,
    SettingSource,
)
from datapilot_defer.credential_store import StoredCredentials
from datapilot_defer.errors import AccessDenied, Unavailable, UsageError
from datapilot_defer.instance_url import find_url_problem, normalize_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datapilot_defer.console import Console, Log

# What the tokens of a self-hosted instance begin with. The prefix is public.
_SELF_HOSTED_TOKEN_PREFIX = "dpd_"  # noqa: S105


@dataclass(frozen=True)
class Credentials:
    """What one instance needs to authenticate a caller. `url` has no trailing slash."""

    url: Setting
    instance_name: Setting
    token: Setting

    def to_stored(self) -> StoredCredentials:
        """Return the values without their origins, to store them."""
        return StoredCredentials(self.url.value, self.instance_name.value, self.token.value)


@dataclass(frozen=True)
class CredentialSource:
    """One place with credentials; each of the three may be missing.

    stored: saved earlier, as one set. pasted: given as options, perhaps for another instance.
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
        """Return the values of command-line options; an empty one counts as missing."""
        return cls(
            url=_option_setting("url", url),
            instance_name=_option_setting("instance_name", instance_name),
            token=_option_setting("token", token),
            pasted=True,
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> CredentialSource:
        """Return the environment variables; `DATAPILOT_*` wins over `ALTIMATE_*`."""
        return cls(
            url=config.read_variable(environ, CREDENTIAL_VARIABLES["url"]),
            instance_name=config.read_variable(environ, CREDENTIAL_VARIABLES["instance_name"]),
            token=config.read_variable(environ, CREDENTIAL_VARIABLES["token"]),
        )

    @classmethod
    def from_config_file(cls, environ: Mapping[str, str]) -> CredentialSource:
        """Return the set in the config file. Raises UsageError when the file is not valid."""
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
        """Return the last used set in the keyring, of this URL and instance name (None: any).

        An unusable keyring counts as an empty one.
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
    return Setting(value, "the system's keyring", SettingSource.KEYRING)


def resolve_credentials(
    options: CredentialSource,
    *,
    environ: Mapping[str, str],
    console: Console,
    allow_http: bool = False,
) -> Credentials:
    """Return the credentials of one call; ask for what is missing on a terminal.

    allow_http: accept a URL without TLS.
    Raises UsageError when a part is missing or malformed, or when a token would be sent to an
    instance that it does not belong to.
    """
    sources = collect_sources(options, environ, console)
    url, instance_name = resolve_address(sources, console=console, allow_http=allow_http)
    return Credentials(url, instance_name, resolve_token(sources, console=console))


def resolve_address(
    sources: Sequence[CredentialSource], *, console: Console, allow_http: bool
) -> tuple[Setting, Setting]:
    """Return URL and instance name, which need no token. Raises as `resolve_credentials`."""
    url_source = next((source for source in sources if source.url), CredentialSource())
    url = _validate_url(url_source.url or _default_url(), allow_http)
    token_source = next((source for source in sources if source.token), None)
    if token_source is not None and token_source.token is not None:
        _reject_mixed_sources(token_source, token_source.token, url_source, url, allow_http)
        _reject_self_hosted_token(token_source.token, url_source)
    name = next((source.instance_name for source in sources if source.instance_name), None)
    if name is None:
        if not console.interactive:
            raise _missing_parts_error(name_missing=True, token_missing=token_source is None)
        name = Setting(console.ask("instance name"), "prompt")
    return url, _validate_header_value("instance name", name)


def resolve_token(sources: Sequence[CredentialSource], *, console: Console) -> Setting:
    """Return the token. Raises as `resolve_credentials`."""
    token = next((source.token for source in sources if source.token), None)
    if token is None:
        if not console.interactive:
            raise _missing_parts_error(name_missing=False, token_missing=True)
        token = Setting(console.ask("token", hidden=True), "prompt")
    return _validate_header_value("token", token)


def collect_sources(
    options: CredentialSource, environ: Mapping[str, str], log: Log
) -> list[CredentialSource]:
    """Return the sources in the order of their precedence.

    The config file and the keyring are read only while something is missing.
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
        requested.append(file)  # it only says which instance is meant
    url = _first_url(requested)
    keyring = CredentialSource.from_keyring(url, _first_instance_name(requested), log)
    if keyring is None:
        return [*sources, file]
    return [*sources, keyring, file]


def _is_complete(sources: Sequence[CredentialSource]) -> bool:
    """Return whether all three are known. A missing URL may be in the config file."""
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


def _default_url() -> Setting:
    return Setting(DEFAULT_URL, "default")


def _reject_mixed_sources(
    token_source: CredentialSource,
    token: Setting,
    url_source: CredentialSource,
    url: Setting,
    allow_http: bool,
) -> None:
    if token_source is url_source:
        return
    if token_source.url or token_source.stored:
        home = _validate_url(token_source.url or _default_url(), allow_http)
        if home.value != url.value:
            raise UsageError(
                f"the token from {token.origin} belongs to {home.value}, so it is not sent to "
                f"{url.value} ({url.origin}); give the token of that instance too, with --token "
                "or DATAPILOT_TOKEN"
            )
    elif token_source.pasted and url_source.stored and _has_different_token(url_source, token):
        raise UsageError(
            f"the token from {token.origin} would go to {url.value}, which comes from {url.origin} "
            "together with another token; say with --backend-url which instance it is for"
        )


def _has_different_token(source: CredentialSource, token: Setting) -> bool:
    return source.token is not None and source.token.value != token.value


def _reject_self_hosted_token(token: Setting, url_source: CredentialSource) -> None:
    if url_source.url is None and token.value.startswith(_SELF_HOSTED_TOKEN_PREFIX):
        raise UsageError(
            f"the token from {token.origin} is of a self-hosted instance, but no URL says which, "
            f"and {DEFAULT_URL} is none: set environment variable ALTIMATE_URL (or --backend-url)"
        )


def _missing_parts_error(*, name_missing: bool, token_missing: bool) -> UsageError:
    labels = []
    parts = []
    if name_missing:
        labels.append("instance name")
        parts.append("instance_name")
    if token_missing:
        labels.append("token")
        parts.append("token")
    remedies = [
        f"{CREDENTIAL_VARIABLES[part][-1]} (or {CREDENTIAL_OPTIONS[part]})" for part in parts
    ]
    return UsageError(
        f"no {' and no '.join(labels)}: set environment variable {' and '.join(remedies)}, "
        "or run `datapilot auth login`"
    )


def _validate_header_value(label: str, setting: Setting) -> Setting:
    value = setting.value
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise UsageError(
            f"the {label} from {setting.origin} holds a line break, a blank at an end or a "
            "character that is not ASCII: was it pasted whole, and nothing else?"
        )
    return setting


def _validate_url(setting: Setting, allow_http: bool) -> Setting:
    """Return the URL in its normal form. Raises UsageError when it cannot be used."""
    problem = find_url_problem(setting.value, allow_http=allow_http)
    if problem:
        raise UsageError(f"the instance URL from {setting.origin} can't be used: {problem}")
    parts = urlsplit(setting.value)
    return replace(setting, value=f"{parts.scheme}://{parts.netloc.lower()}")


def rejected_credentials_error(credentials: Credentials) -> AccessDenied:
    """Return the error for credentials that the instance rejects, with the origin of each part."""
    return AccessDenied(
        f"{credentials.url.value} does not accept the token (from {credentials.token.origin}) for "
        f"instance name {credentials.instance_name.value!r} "
        f"(from {credentials.instance_name.origin}); "
        "check that both belong together and that the token is not revoked"
    )
