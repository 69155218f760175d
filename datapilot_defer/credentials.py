"""Instance URL, instance name and token: always as one set.

A token goes to the URL that it was stored with and nowhere else. Each of the three is looked for as option,
environment variable, config file, keyring; the first that is found wins. What is refused is a mixture in which
a token would reach a URL that it does not belong to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from datapilot_defer import config
from datapilot_defer.config import Setting
from datapilot_defer.errors import AccessDenied, UsageError

DEFAULT_URL = "https://api.myaltimate.com"  # Source: the default of altimate-datapilot-cli 0.3.8.
_SELF_HOSTED_TOKEN_PREFIX = (  # noqa: S105 - a prefix that is public
    "dpd_"  # what the tokens of our own instance begin with, so that nobody takes them for others
)
_PARTS = ("url", "instance_name", "token")


@dataclass(frozen=True)
class Credentials:
    """What one instance needs to admit a caller. `url` has no trailing slash."""

    url: Setting
    instance_name: Setting
    token: Setting


@dataclass(frozen=True)
class CredentialSource:
    """What one place gives: any of the three may be missing.

    stored: written down earlier, as one set. pasted: given as options, perhaps with a command for another instance.
    """

    url: Setting | None = None
    instance_name: Setting | None = None
    token: Setting | None = None
    stored: bool = False
    pasted: bool = False


Ask = Callable[[str], str]
Stored = Callable[[str | None, str | None], CredentialSource | None]


def given(*, token: str | None, instance_name: str | None, url: str | None) -> CredentialSource:
    """What was given as options; an empty option counts as not given."""

    def option(part: str, value: str | None) -> Setting | None:
        return Setting(value, f"option {config.CREDENTIAL_OPTIONS[part]}") if value else None

    return CredentialSource(
        option("url", url),
        option("instance_name", instance_name),
        option("token", token),
        pasted=True,
    )


def from_environ(environ: Mapping[str, str]) -> CredentialSource:
    """What the environment variables give; `DATAPILOT_*` wins over `ALTIMATE_*`."""
    url, name, token = (
        config.read_variable(environ, config.CREDENTIAL_VARIABLES[part]) for part in _PARTS
    )
    return CredentialSource(url, name, token)


def from_file(environ: Mapping[str, str]) -> CredentialSource:
    """What the config file gives. Raises UsageError when it is broken."""
    file = config.read_config_file(environ)
    url, name, token = (file.get(config.CONFIG_FILE_KEYS[part], environ) for part in _PARTS)
    return CredentialSource(url, name, token, stored=True)


def resolve_credentials(
    options: CredentialSource,
    *,
    environ: Mapping[str, str],
    keyring: Stored | None = None,
    ask: Ask | None = None,
    allow_http: bool = False,
) -> Credentials:
    """The set to use for this call.

    keyring: looks a set up in the system's keyring by URL and instance name; None leaves the keyring alone.
    ask: asks somebody at a terminal for what is missing, hidden when it is the token; None where nobody is there.
    allow_http: the user has said that an address without TLS is meant.
    Raises UsageError when something is missing, malformed, or a mixture that would send a token elsewhere.
    """
    sources = collect_sources(options, environ, keyring)
    url_source = next((source for source in sources if source.url), None)
    url = _validate_url(
        url_source.url if url_source and url_source.url else Setting(DEFAULT_URL, "default"),
        allow_http,
    )
    name = next((source.instance_name for source in sources if source.instance_name), None)
    token_source = next((source for source in sources if source.token), None)
    if token_source is not None:
        _reject_mixed_sources(token_source, url_source, url, allow_http)
    token = token_source.token if token_source else None
    if (
        token is not None
        and url_source is None
        and token.value.startswith(_SELF_HOSTED_TOKEN_PREFIX)
    ):
        raise UsageError(
            f"the token from {token.origin} is of a self-hosted instance, but no URL says which, and {DEFAULT_URL} is "
            "none: set environment variable ALTIMATE_URL (or --backend-url)"
        )
    if ask is None and (name is None or token is None):
        raise _missing_parts_error(name, token)
    name = name or Setting(ask("instance name") if ask else "", "prompt")
    token = token or Setting(ask("token") if ask else "", "prompt")
    return Credentials(
        url, _validate_header_value("instance name", name), _validate_header_value("token", token)
    )


def collect_sources(
    options: CredentialSource, environ: Mapping[str, str], keyring: Stored | None
) -> list[CredentialSource]:
    """The places in the order in which they win; slower ones are looked at only while something is missing."""
    sources = [options, from_environ(environ)]
    if _is_complete(sources):
        return sources
    file = from_file(environ)
    if (
        keyring is None
        or any(source.token for source in sources)
        or (file.token and _matches_requested_instance(file, sources))
    ):
        return [*sources, file]
    known = sources if file.token else [*sources, file]
    kept = keyring(_first_url(known), _first_instance_name(known))
    return [*sources, kept, file] if kept else [*sources, file]


def _matches_requested_instance(stored: CredentialSource, sources: list[CredentialSource]) -> bool:
    """Whether a stored set is of the instance that was asked for, where one was."""
    url, name = _first_url(sources), _first_instance_name(sources)
    return url in (None, _first_url([stored]) or DEFAULT_URL) and name in (
        None,
        _first_instance_name([stored]) or name,
    )


def _first_url(sources: list[CredentialSource]) -> str | None:
    return next((_normalize_url(source.url.value) for source in sources if source.url), None)


def _first_instance_name(sources: list[CredentialSource]) -> str | None:
    return next((source.instance_name.value for source in sources if source.instance_name), None)


def _normalize_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}{separator}{rest.rstrip('/').lower()}"


def _is_complete(sources: list[CredentialSource]) -> bool:
    """Whether all three are there. A missing URL may be in the config file."""
    return all(any(getattr(source, part) for source in sources) for part in _PARTS)


def _reject_mixed_sources(
    token_source: CredentialSource,
    url_source: CredentialSource | None,
    url: Setting,
    allow_http: bool,
) -> None:
    token = token_source.token
    if token is None or token_source is url_source:
        return
    if token_source.url or token_source.stored:
        home = _validate_url(token_source.url or Setting(DEFAULT_URL, "default"), allow_http)
        if home.value != url.value:
            raise UsageError(
                f"the token from {token.origin} belongs to {home.value}, so it is not sent to {url.value} "
                f"({url.origin}); give the token of that instance too, with --token or DATAPILOT_TOKEN"
            )
    elif (
        token_source.pasted
        and url_source
        and url_source.stored
        and _has_different_token(url_source, token)
    ):
        raise UsageError(
            f"the token from {token.origin} would go to {url.value}, which comes from {url.origin} together with "
            "another token; say with --backend-url which instance it is for"
        )


def _has_different_token(source: CredentialSource, token: Setting) -> bool:
    return source.token is not None and source.token.value != token.value


def _missing_parts_error(name: Setting | None, token: Setting | None) -> UsageError:
    """The error for what nobody gave, and nobody is there to be asked for."""
    parts = {
        "instance name": None if name else "instance_name",
        "token": None if token else "token",
    }
    missing = {words: part for words, part in parts.items() if part}
    ways = [
        f"{config.CREDENTIAL_VARIABLES[part][-1]} (or {config.CREDENTIAL_OPTIONS[part]})"
        for part in missing.values()
    ]
    return UsageError(
        f"no {' and no '.join(missing)}: set environment variable {' and '.join(ways)}, or run `datapilot auth login`"
    )


def _validate_header_value(words: str, setting: Setting) -> Setting:
    value = setting.value
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise UsageError(
            f"the {words} from {setting.origin} holds a line break, a blank at an end or a character "
            "that is not ASCII: was it pasted whole, and nothing else?"
        )
    return setting


def _validate_url(setting: Setting, allow_http: bool) -> Setting:
    """The URL without a trailing slash, or the reason why it is none."""
    problem = _find_url_problem(setting.value, allow_http)
    if problem:
        raise UsageError(f"the instance URL from {setting.origin} can't be used: {problem}")
    parts = urlsplit(setting.value)
    return Setting(f"{parts.scheme}://{parts.netloc.lower()}", setting.origin)


def _find_url_problem(value: str, allow_http: bool) -> str | None:
    """What is wrong with an instance's URL. It is quoted only where it can hold no secret."""
    if "@" in value:
        return "it holds a user or a password; give only https://host"
    try:
        parts = urlsplit(value)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:
        return "it is malformed; it looks like https://host or https://host:port"
    if parts.scheme not in ("http", "https"):
        return f"it has to begin with https:// (it is {value.split('?')[0]!r})"
    if not parts.hostname:
        return "it names no host; it looks like https://host or https://host:port"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return f"it has a path or more; give only {parts.scheme}://{parts.netloc}"
    if not value.isascii() or not value.isprintable() or " " in value:
        return "it holds a blank or a character that is not ASCII"
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        return "http would send the token unencrypted: write https://, or add --allow-http if that is meant"
    return None


def is_loopback(host: str) -> bool:
    """Whether this host is the machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def rejected_credentials_error(credentials: Credentials) -> AccessDenied:
    """The error for a set that the instance does not accept, saying where each part came from."""
    return AccessDenied(
        f"{credentials.url.value} does not accept the token (from {credentials.token.origin}) for instance name "
        f"{credentials.instance_name.value!r} (from {credentials.instance_name.origin}); "
        "check that both belong together and that the token is not revoked"
    )
