"""Instance URL, instance name and token, as one set.

Each of the three values comes from the first source that contains it: an option, an environment
variable, or the credentials stored in the config file or the keyring. A stored token is sent only
to the URL that it was stored with. A combination that would send a token to another instance is
rejected.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from datapilot_defer.config import (
    CREDENTIAL_OPTIONS,
    CREDENTIAL_VARIABLES,
    DEFAULT_URL,
    Setting,
)
from datapilot_defer.credential_sources import CredentialSource, collect_sources
from datapilot_defer.credential_store import StoredCredentials
from datapilot_defer.errors import AccessDenied, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from urllib.parse import SplitResult

    from datapilot_defer.console import Console

# An IPv4 address in one of the forms that inet_aton reads: parts in decimal, octal or hexadecimal.
_NUMERIC_HOST = re.compile(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+)){0,3}")
# The prefix of tokens of a self-hosted instance. It is public.
_SELF_HOSTED_TOKEN_PREFIX = "dpd_"  # noqa: S105


@dataclass(frozen=True)
class Credentials:
    """The credentials for one instance. `url` has no trailing slash."""

    url: Setting
    instance_name: Setting
    token: Setting

    def to_stored(self) -> StoredCredentials:
        """Return the values to store, without their origins."""
        return StoredCredentials(self.url.value, self.instance_name.value, self.token.value)


def resolve_credentials(
    options: CredentialSource,
    *,
    environ: Mapping[str, str],
    console: Console,
    allow_http: bool = False,
) -> Credentials:
    """Return the credentials for one command. Ask for a missing name or token on a terminal.

    allow_http: accept a URL without TLS.

    Raises UsageError if a value is missing or malformed, or if a token would be sent to another
    instance.
    """
    sources = collect_sources(options, environ, console)
    url, instance_name = resolve_address(sources, console=console, allow_http=allow_http)
    return Credentials(url, instance_name, resolve_token(sources, console=console))


def resolve_address(
    sources: Sequence[CredentialSource], *, console: Console, allow_http: bool
) -> tuple[Setting, Setting]:
    """Return the URL and the instance name. The token may be missing.

    Raises UsageError like `resolve_credentials`.
    """
    url = resolve_url(sources, allow_http=allow_http)
    name = next((source.instance_name for source in sources if source.instance_name), None)
    if name is None:
        token_missing = not any(source.token for source in sources)
        name = _ask_instance_name(console, token_missing=token_missing)
    return url, _validate_header_value("instance name", name)


def resolve_url(sources: Sequence[CredentialSource], *, allow_http: bool) -> Setting:
    """Return the URL of the instance. Raises UsageError like `resolve_credentials`."""
    url_source = next((source for source in sources if source.url), CredentialSource())
    token_source = next((source for source in sources if source.token), CredentialSource())
    token = token_source.token
    url = _validate_url(url_source.url or _default_url(), allow_http)
    if token is not None:
        _reject_mixed_sources(token_source, token, url_source, url, allow_http)
        _reject_self_hosted_token(token, url_source)
    return url


def _ask_instance_name(console: Console, *, token_missing: bool) -> Setting:
    if not console.interactive:
        raise _missing_parts_error(name_missing=True, token_missing=token_missing)
    return Setting(console.ask("instance name"), "prompt")


def resolve_token(sources: Sequence[CredentialSource], *, console: Console) -> Setting:
    """Return the token. Raises UsageError like `resolve_credentials`."""
    token = next((source.token for source in sources if source.token), None)
    if token is None:
        if not console.interactive:
            raise _missing_parts_error(name_missing=False, token_missing=True)
        token = Setting(console.ask("token", hidden=True), "prompt")
    return _validate_header_value("token", token)


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
                f"the token from {token.origin} belongs to {home.value}, so it is not "
                f"sent to {url.value} ({url.origin}). Set the token of that instance too, "
                "with --token or DATAPILOT_TOKEN"
            )
    elif token_source.pasted and url_source.stored and _has_different_token(url_source, token):
        raise UsageError(
            f"the token from {token.origin} would be sent to {url.value}, which comes "
            f"from {url.origin} together with another token. Specify the instance of the "
            "token with --backend-url"
        )


def _has_different_token(source: CredentialSource, token: Setting) -> bool:
    return source.token is not None and source.token.value != token.value


def _reject_self_hosted_token(token: Setting, url_source: CredentialSource) -> None:
    if url_source.url is None and token.value.startswith(_SELF_HOSTED_TOKEN_PREFIX):
        raise UsageError(
            f"the token from {token.origin} belongs to a self-hosted instance, but "
            f"{DEFAULT_URL} is not one. Set ALTIMATE_URL (or --backend-url) to the URL of "
            "your instance"
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
        f"no {' and no '.join(labels)}. Set the environment variable "
        f"{' and '.join(remedies)}, or run `datapilot auth login`"
    )


def _validate_header_value(label: str, setting: Setting) -> Setting:
    value = setting.value
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise UsageError(
            f"the {label} from {setting.origin} contains a line break or other control "
            "character, a leading or trailing space, or a non-ASCII character. Check "
            "that you pasted all of it and nothing else"
        )
    return setting


def _validate_url(setting: Setting, allow_http: bool) -> Setting:
    """Return the URL in its normal form. Raises UsageError if it cannot be used."""
    problem = _find_url_problem(setting.value, allow_http=allow_http)
    if problem:
        raise UsageError(f"the instance URL from {setting.origin} cannot be used: {problem}")
    parts = urlsplit(setting.value)
    return replace(setting, value=f"{parts.scheme}://{parts.netloc.lower()}")


def _find_url_problem(url: str, *, allow_http: bool) -> str | None:
    """Return why an instance URL cannot be used, or None.

    The text quotes no part of the URL that may contain a secret. allow_http: also accept http for a
    non-loopback host.
    """
    if "@" in url:
        return "it contains a user or a password. Use only https://host"
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:
        return "it is malformed. It must look like https://host or https://host:port"
    return (
        _find_part_problem(parts)
        or _find_text_problem(url)
        or _find_encryption_problem(parts, allow_http=allow_http)
    )


def _find_part_problem(parts: SplitResult) -> str | None:
    if parts.scheme not in ("http", "https"):
        return "it has to begin with https://"  # not quoted: it may be the token
    if not parts.hostname:
        return "it has no host. It must look like https://host or https://host:port"
    if parts.path.strip("/") or parts.query or parts.fragment:
        return f"it has a path, a query or a fragment. Use only {parts.scheme}://{parts.netloc}"
    return None


def _find_text_problem(url: str) -> str | None:
    if url.isascii() and url.isprintable() and " " not in url:
        return None
    return "it contains a space or a character that is not ASCII"


def _find_encryption_problem(parts: SplitResult, *, allow_http: bool) -> str | None:
    if parts.scheme == "https" or allow_http or is_loopback(parts.hostname or ""):
        return None
    return "http would send the token unencrypted. Use https://, or add --allow-http"


def is_loopback(host: str) -> bool:
    """Return whether this host is the local machine, in any spelling that resolves without DNS."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(_standard_address(name))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    # A connection to 0.0.0.0 or [::] goes to this machine.
    return address.is_loopback or address.is_unspecified


def _standard_address(name: str) -> str:
    """Return an IPv4 address such as 127.1 or 0x7f000001 in dotted decimal notation."""
    if not _NUMERIC_HOST.fullmatch(name):
        return name
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return name


def rejected_credentials_error(credentials: Credentials) -> AccessDenied:
    """Return the error for rejected credentials, with the origins of the token and the name."""
    return AccessDenied(
        f"{credentials.url.value} does not accept the token (from "
        f"{credentials.token.origin}) for the instance name "
        f"{credentials.instance_name.value!r} (from {credentials.instance_name.origin}). "
        "Check that both belong together, and that the token is not revoked or expired"
    )
