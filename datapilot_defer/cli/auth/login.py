"""`datapilot auth login`: check credentials and store them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from datapilot_defer import config, credential_store, credentials
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import connection_options, start_deadline
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.client.connection import ConnectionOptions, open_instance
from datapilot_defer.config import DEFAULT_URL, Setting, SettingSource
from datapilot_defer.credential_sources import CredentialSource, normalize_url
from datapilot_defer.credentials import Credentials
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable, UsageError

_MAX_TOKEN_LENGTH = 16 * 1024


@click.command("login", cls=Command)
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--token-file", metavar="FILE", help="Read the token from a file.")
@click.option(
    "--store",
    type=click.Choice(["keyring", "file"]),
    default="keyring",
    show_default=True,
    help="Where to store the token: the system keyring, or ~/.altimate/altimate.json, "
    "readable only by you.",
)
@connection_options
def login(
    token_stdin: bool, token_file: str | None, store: str, connection: ConnectionOptions
) -> None:
    """Verify credentials and store them in the system keyring.

    Prompts for any value that is not given by an option or environment variable.

    \b
    Examples:
      datapilot auth login
      datapilot auth login --backend-url https://datapilot.example.com
      datapilot auth login --token-file token.txt --store file
    """
    output = current_output()
    source = CredentialSource.from_options(
        token=None, instance_name=connection.instance_name, url=connection.backend_url
    )
    token = _read_token(output, connection, token_stdin=token_stdin, token_file=token_file)
    source = replace(source, token=token)
    if output.interactive:
        source = _ask_for_missing(source)
    login_credentials = _resolve_login(output, source, allow_http=connection.allow_http)
    output.hide_secret(login_credentials.token.value)
    client = open_instance(
        login_credentials,
        environ=os.environ,
        console=output,
        deadline=start_deadline(connection.timeout_s),
    )
    client.check_credentials()
    location = _store_credentials(output, login_credentials, store)
    _warn_about_precedence(output, login_credentials)
    name = login_credentials.instance_name.value
    url = login_credentials.url.value
    output.print_result(
        {"ok": True, "instance_name": name, "url": url, "stored_in": location},
        f"Logged in to {url} with instance name {name!r}. The credentials are in {location}.",
    )


def _read_token(
    output: Output, connection: ConnectionOptions, *, token_stdin: bool, token_file: str | None
) -> Setting | None:
    """Read the token from the given source; None without a source.

    Raises UsageError if there are several sources, or if the token cannot be read.
    """
    token = connection.token
    sources = [source for source in (token, token_stdin, token_file) if source]
    if len(sources) > 1:
        raise UsageError("use only one of --token-stdin, --token-file and --token")
    if token:
        output.warn(
            "--token is visible in process lists and in the shell history. Use --token-stdin"
        )
        return Setting(token, "option --token", SettingSource.OPTION)
    deadline = start_deadline(connection.timeout_s)
    if token_file:
        return _read_token_from(
            f"the file {token_file}", partial(_read_file, Path(token_file)), deadline
        )
    if token_stdin:
        read = partial(sys.stdin.read, _MAX_TOKEN_LENGTH + 1)
        return _read_token_from("standard input", read, deadline)
    return None


def _read_token_from(origin: str, read: Callable[[], str], deadline: Deadline) -> Setting | None:
    """Read the token; None for an empty source. The deadline limits the wait for a pipe."""
    try:
        text = deadline.run(read, f"reading the token from {origin}")
    except UnicodeDecodeError:
        raise UsageError(f"the token in {origin} is not text") from None
    except OSError as error:
        raise UsageError(f"cannot read the token from {origin}: {error.strerror}") from None
    if len(text) > _MAX_TOKEN_LENGTH:
        raise UsageError(f"the text in {origin} is too long for a token")
    token = text.strip()
    if not token:
        return None
    return Setting(token, origin)


def _read_file(file: Path) -> str:
    """Return the text of a file, limited to one character more than a token may have."""
    with file.open(encoding="utf-8-sig") as stream:
        return stream.read(_MAX_TOKEN_LENGTH + 1)


def _ask_for_missing(source: CredentialSource) -> CredentialSource:
    """Ask for each value that is not given. Environment variables are the defaults."""
    defaults = CredentialSource.from_environment(os.environ)
    default_url = defaults.url or Setting(DEFAULT_URL, "default")
    return replace(
        source,
        url=source.url or _prompt("Instance URL", default_url),
        instance_name=source.instance_name or _prompt("Instance name", defaults.instance_name),
        token=source.token or _prompt("Token", None, hidden=True),
    )


def _prompt(label: str, default: Setting | None, *, hidden: bool = False) -> Setting:
    """Ask for a value. If the answer is the default, return the default with its origin."""
    default_value = default.value if default else None
    value = str(click.prompt(label, default=default_value, hide_input=hidden, err=True))
    if default is not None and value == default.value:
        return default
    return Setting(value, "prompt")


def _resolve_login(output: Output, source: CredentialSource, *, allow_http: bool) -> Credentials:
    """Return the credentials to store.

    The keyring is not read, because the token is already known.
    """
    return credentials.resolve_credentials(
        source, environ=_login_environment(source), console=output, allow_http=allow_http
    )


def _login_environment(source: CredentialSource) -> Mapping[str, str]:
    """Return the environment variables, without those for the token if a token is given.

    Raises UsageError when there is no token at all.
    """
    variables = config.CREDENTIAL_VARIABLES["token"]
    if source.token:
        return {name: value for name, value in os.environ.items() if name not in variables}
    if config.read_variable(os.environ, variables) is None:
        raise UsageError("no token given. Use --token-stdin or --token-file")
    return os.environ


def _store_credentials(output: Output, login_credentials: Credentials, store: str) -> str:
    """Store the credentials. Return the location for a message."""
    stored = login_credentials.to_stored()
    if store == "file":
        return str(credential_store.save_to_config_file(stored, os.environ))
    if not credential_store.is_keyring_enabled(os.environ):
        raise UsageError(
            "the keyring is disabled, in CI or by DATAPILOT_KEYRING. Set ALTIMATE_API_KEY, or use "
            "--store file"
        )
    try:
        credential_store.save_to_keyring(stored)
    except Unavailable as error:
        _confirm_config_file(output, error)
        return str(credential_store.save_to_config_file(stored, os.environ))
    return "the system keyring"


def _confirm_config_file(output: Output, error: Unavailable) -> None:
    """Ask whether to use the config file instead of the keyring.

    Raises UsageError unless the user confirms it.
    """
    if not output.interactive:
        raise UsageError(
            f"{error}. The credentials were not stored. Use --store file to store them in the "
            "config file"
        ) from None
    question = f"{error}. Store the credentials in the config file, which only you can read?"
    if not click.confirm(question[0].upper() + question[1:], err=True):
        raise UsageError("nothing was stored") from None


def _warn_about_precedence(output: Output, login_credentials: Credentials) -> None:
    """Warn if the next command would use credentials other than the stored ones."""
    url = login_credentials.url.value
    name = login_credentials.instance_name.value
    token = login_credentials.token.value
    _warn_about_variables(output, "url", "URL", url)
    _warn_about_variables(output, "instance_name", "instance name", name)
    if _warn_about_variables(output, "token", "token", token):
        return  # a token in a variable takes precedence over the config file too
    in_config_file = credential_store.find_in_config_file(os.environ)
    if in_config_file and in_config_file != (name, url):
        _, url_in_file = in_config_file
        output.warn(
            f"{config.config_file_path(os.environ)} contains credentials for "
            f"{url_in_file}, which take precedence. Use --backend-url or --instance-name "
            "to select the stored ones"
        )


def _warn_about_variables(output: Output, part: str, label: str, stored: str) -> bool:
    """Warn about each variable that overrides a stored value. Return whether there is one."""
    has_warned = False
    for name in config.CREDENTIAL_VARIABLES[part]:  # the first one that is set takes precedence
        variable = config.read_variable(os.environ, (name,))
        if variable is None:
            continue
        value = variable.value
        if part == "url":
            value = normalize_url(value)
        if value == stored:
            break
        output.warn(
            f"the {label} in {variable.origin} takes precedence over the stored one. "
            "Unset it to use the stored one"
        )
        has_warned = True
    return has_warned
