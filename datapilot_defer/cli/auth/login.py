"""`datapilot auth login`: check credentials and store them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import click

from datapilot_defer import config, credential_store, credentials
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import connection_options
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.client.connection import ConnectionOptions, open_instance
from datapilot_defer.config import DEFAULT_URL, Setting
from datapilot_defer.credential_sources import CredentialSource
from datapilot_defer.credentials import Credentials
from datapilot_defer.errors import Unavailable, UsageError

# A signed token (JWT) of a single sign-on has a few thousand characters.
_MAX_TOKEN_LENGTH = 65_536


@click.command("login", cls=Command)
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--token-file", metavar="FILE", help="Read the token from a file.")
@click.option(
    "--store",
    type=click.Choice(["keyring", "file"]),
    default="keyring",
    show_default=True,
    help="Where to keep it: the system's keyring, or ~/.altimate/altimate.json,"
    " readable by you only.",
)
@connection_options
def login(
    token_stdin: bool, token_file: str | None, store: str, connection: ConnectionOptions
) -> None:
    """Keep the credentials of an instance, once it has accepted them."""
    output = current_output()
    token = _read_token(output, connection.token, token_stdin=token_stdin, token_file=token_file)
    options = replace(connection, token=token)
    if output.interactive:
        options = _ask_for_missing(options)
    token_origin = _token_origin(token_stdin=token_stdin, token_file=token_file)
    login_credentials = _resolve_login(output, options, token_origin)
    output.hide_secret(login_credentials.token.value)
    client = open_instance(
        login_credentials, environ=os.environ, console=output, timeout_s=connection.timeout_s
    )
    client.check_credentials()
    location = _store_credentials(output, login_credentials, store)
    _warn_about_precedence(output, login_credentials)
    name = login_credentials.instance_name.value
    url = login_credentials.url.value
    output.print_result(
        {"ok": True, "instance_name": name, "url": url, "stored_in": location},
        f"Logged in to {url} as instance name {name!r}; the credentials are in {location}.",
    )


def _read_token(
    output: Output, token: str | None, *, token_stdin: bool, token_file: str | None
) -> str | None:
    """Read the token from the given source. Raise UsageError if there are several sources."""
    sources = [source for source in (token, token_stdin, token_file) if source]
    if len(sources) > 1:
        raise UsageError("give the token in one way only: --token-stdin, --token-file or --token")
    if token:
        output.warn(
            "--token shows the token in process lists and in the shell's history; use --token-stdin"
        )
    try:
        if token_file:
            with Path(token_file).open(encoding="utf-8-sig") as file:
                return _read_stream(file)
        if token_stdin:
            return _read_stream(sys.stdin)
    except UnicodeDecodeError:
        raise UsageError("what was given as token is no text") from None
    except OSError as error:
        source = token_file or "standard input"
        raise UsageError(f"can't read the token from {source}: {error.strerror}") from None
    return token


def _read_stream(stream: TextIO) -> str:
    """Return the token in a file or a pipe. Raise UsageError for a text that is too long for one.

    A device such as /dev/zero never ends.
    """
    text = stream.read(_MAX_TOKEN_LENGTH + 1)
    if len(text) > _MAX_TOKEN_LENGTH:
        raise UsageError(
            f"what was given as token is too long: a token has at most {_MAX_TOKEN_LENGTH:,} "
            "characters"
        )
    return text.strip()


def _token_origin(*, token_stdin: bool, token_file: str | None) -> str | None:
    """Return the origin of a token that no option holds."""
    if token_file:
        return f"the file {token_file}"
    if token_stdin:
        return "standard input"
    return None


def _ask_for_missing(options: ConnectionOptions) -> ConnectionOptions:
    """Ask for the values that no option gives, with those of environment variables as defaults."""
    defaults = CredentialSource.from_environment(os.environ)
    default_url = defaults.url or Setting(DEFAULT_URL, "default")
    return replace(
        options,
        backend_url=options.backend_url or _prompt("Instance URL", default_url),
        instance_name=options.instance_name or _prompt("Instance name", defaults.instance_name),
        token=options.token or click.prompt("Token", hide_input=True, err=True),
    )


def _prompt(label: str, default: Setting | None) -> str:
    default_value = default.value if default else None
    return str(click.prompt(label, default=default_value, err=True))


def _resolve_login(
    output: Output, options: ConnectionOptions, token_origin: str | None
) -> Credentials:
    """Return the credentials to store. They always have a token, so the keyring is not read."""
    source = CredentialSource.from_options(
        token=options.token, instance_name=options.instance_name, url=options.backend_url
    )
    if source.token and token_origin:
        source = replace(source, token=Setting(source.token.value, token_origin))
    return credentials.resolve_credentials(
        source,
        environ=_login_environment(source),
        console=output,
        allow_http=options.allow_http,
    )


def _login_environment(source: CredentialSource) -> Mapping[str, str]:
    """Return the environment variables without tokens that differ from the one to store.

    Raises UsageError when there is no token at all.
    """
    variables = config.CREDENTIAL_VARIABLES["token"]
    if source.token:
        return {name: value for name, value in os.environ.items() if name not in variables}
    if config.read_variable(os.environ, variables) is None:
        raise UsageError(
            "no token: pipe it in with --token-stdin, or name a file with --token-file"
        )
    return os.environ


def _store_credentials(output: Output, login_credentials: Credentials, store: str) -> str:
    """Store the credentials. Return the location, as text for people."""
    stored = login_credentials.to_stored()
    if store == "file":
        return str(credential_store.save_to_config_file(stored, os.environ))
    if not credential_store.is_keyring_enabled(os.environ):
        raise UsageError(
            "in CI the keyring is not used: set ALTIMATE_API_KEY there, or give --store file"
        )
    try:
        credential_store.save_to_keyring(stored)
    except Unavailable as error:
        _confirm_config_file(output, error)
        return str(credential_store.save_to_config_file(stored, os.environ))
    return "the system's keyring"


def _confirm_config_file(output: Output, error: Unavailable) -> None:
    """Ask whether to use the config file instead of the keyring. Raise UsageError if not."""
    if not output.interactive:
        raise UsageError(
            f"{error}; nothing was stored. --store file keeps them in a file instead"
        ) from None
    question = f"{error}; keep the credentials in ~/.altimate/altimate.json, readable by you only?"
    if not click.confirm(question[0].upper() + question[1:], err=True):
        raise UsageError("nothing was stored") from None


def _warn_about_precedence(output: Output, login_credentials: Credentials) -> None:
    """Warn if the next command uses other credentials than those that were stored."""
    variable = config.read_variable(os.environ, config.CREDENTIAL_VARIABLES["token"])
    in_config_file = credential_store.find_in_config_file(os.environ)
    if variable and variable.value != login_credentials.token.value:
        output.warn(f"the token in {variable.origin} wins over this one; unset it to use this one")
        return
    stored = (login_credentials.instance_name.value, login_credentials.url.value)
    if in_config_file and in_config_file != stored:
        _, url = in_config_file
        output.warn(
            f"{config.config_file_path(os.environ)} holds credentials for {url} that win, "
            f"unless --backend-url or --instance-name asks for these"
        )
