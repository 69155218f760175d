"""`datapilot auth`: credentials, kept in the system's keyring."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer import config, credential_store, credentials
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import find_credentials, instance_at, legacy_connection_options
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.config import Setting
from datapilot_defer.credential_sources import CredentialSource
from datapilot_defer.credentials import Credentials
from datapilot_defer.errors import AccessDenied, DatapilotError, NotFound, Unavailable, UsageError

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient


@click.command("login", cls=Command)
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@click.option("--token-file", metavar="FILE", help="Read the token from a file.")
@click.option(
    "--store",
    type=click.Choice(["keyring", "file"]),
    default="keyring",
    show_default=True,
    help="Where to keep it: the system's keyring, or ~/.altimate/altimate.json, readable by you only.",
)
@legacy_connection_options
def login(
    token_stdin: bool,
    token_file: str | None,
    store: str,
    token: str | None,
    instance_name: str | None,
    backend_url: str | None,
    allow_http: bool,
    timeout: float | None,
) -> None:
    """Keep the credentials of an instance, once it has accepted them."""
    report = current_output()
    token = _read_token(report, token, token_stdin=token_stdin, token_file=token_file)
    if report.interactive:
        known = CredentialSource.from_environment(os.environ)
        urls, names = known.url or Setting(config.DEFAULT_URL, ""), known.instance_name
        backend_url = backend_url or click.prompt("Instance URL", default=urls.value, err=True)
        instance_name = instance_name or click.prompt(
            "Instance name", default=names.value if names else None, err=True
        )
        token = token or click.prompt("Token", hide_input=True, err=True)
    elif not token and not CredentialSource.from_environment(os.environ).token:
        raise UsageError(
            "no token: pipe it in with --token-stdin, or name a file with --token-file"
        )
    options = CredentialSource.from_options(
        token=token, instance_name=instance_name, url=backend_url
    )
    if options.token and (token_stdin or token_file):
        origin = f"the file {token_file}" if token_file else "standard input"
        options = replace(options, token=Setting(options.token.value, origin))
    found = credentials.resolve_credentials(
        options,
        environ=_without_tokens(os.environ) if token else os.environ,
        console=report,
        allow_http=allow_http,
    )
    report.hide_secret(found.token.value)
    instance_at(report, found, timeout).check_credentials()
    place = _store_credentials(report, found, store)
    _warn_about_precedence(report, found)
    name, url = found.instance_name.value, found.url.value
    report.print_result(
        {"ok": True, "instance_name": name, "url": url, "stored_in": place},
        f"Logged in to {url} as instance name {name!r}; the credentials are in {place}.",
    )


def _without_tokens(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables without those that hold another token than the one to be stored."""
    return {
        name: value
        for name, value in environ.items()
        if name not in config.CREDENTIAL_VARIABLES["token"]
    }


def _warn_about_precedence(report: Output, found: Credentials) -> None:
    """Say it when what was stored is not what the next command uses."""
    variable = config.read_variable(os.environ, config.CREDENTIAL_VARIABLES["token"])
    kept = credential_store.find_in_config_file(os.environ)
    if variable and variable.value != found.token.value:
        report.warn(f"the token in {variable.origin} wins over this one; unset it to use this one")
    elif kept and kept != (found.instance_name.value, found.url.value):
        report.warn(
            f"{config.config_file_path(os.environ)} holds credentials for {kept[1]} that win, "
            f"unless --backend-url or --instance-name asks for these"
        )


def _read_token(
    report: Output, token: str | None, *, token_stdin: bool, token_file: str | None
) -> str | None:
    if sum(map(bool, (token, token_stdin, token_file))) > 1:
        raise UsageError("give the token in one way only: --token-stdin, --token-file or --token")
    if token:
        report.warn(
            "--token shows the token in process lists and in the shell's history; use --token-stdin"
        )
    try:
        if token_file:
            return Path(token_file).read_text(encoding="utf-8-sig").strip()
        return sys.stdin.read().strip() if token_stdin else token
    except UnicodeDecodeError:
        raise UsageError("what was given as token is no text") from None
    except OSError as error:
        raise UsageError(
            f"can't read the token from {token_file or 'standard input'}: {error.strerror}"
        ) from None


def _store_credentials(report: Output, found: Credentials, store: str) -> str:
    """Store the set; returns where, in words."""
    if store == "file":
        return str(credential_store.save_to_config_file(found.to_stored(), os.environ))
    if not credential_store.is_keyring_enabled(os.environ):
        raise UsageError(
            "in CI the keyring is not used: set ALTIMATE_API_KEY there, or give --store file"
        )
    try:
        credential_store.save_to_keyring(found.to_stored())
    except Unavailable as error:
        offer = f"{error}; keep the credentials in ~/.altimate/altimate.json, readable by you only?"
        if not report.interactive:
            raise UsageError(
                f"{error}; nothing was stored. --store file keeps them in a file instead"
            ) from None
        if not click.confirm(offer[0].upper() + offer[1:], err=True):
            raise UsageError("nothing was stored") from None
        return str(credential_store.save_to_config_file(found.to_stored(), os.environ))
    return "the system's keyring"


@click.command("logout", cls=Command)
@click.option(
    "--instance-name", metavar="NAME", help="Instance name. [default: the one logged in to last]"
)
@click.option("--backend-url", metavar="URL", help="URL of the instance.")
def logout(instance_name: str | None, backend_url: str | None) -> None:
    """Forget the credentials of an instance.

    They are removed from the keyring and from the config file.
    """
    report = current_output()
    url = backend_url.rstrip("/").lower() if backend_url else None
    places = _remove_from_keyring(report, url, instance_name)
    kept = credential_store.find_in_config_file(os.environ)
    if kept and instance_name in (None, kept[0]) and url in (None, kept[1]):
        places.append(str(credential_store.remove_from_config_file(os.environ)))
    if not places:
        raise NotFound(
            "no such credentials are kept here; `datapilot auth status` shows what is used"
        )
    report.print_result(
        {"ok": True, "removed_from": places}, f"Logged out: removed from {' and '.join(places)}."
    )


def _remove_from_keyring(report: Output, url: str | None, instance_name: str | None) -> list[str]:
    if not credential_store.is_keyring_enabled(os.environ):
        return []
    try:
        found = credential_store.find_in_keyring(url, instance_name)
        if found is None:
            return []
        credential_store.remove_from_keyring(found.instance_name, found.url)
    except Unavailable as error:
        report.warn(str(error))
        return []
    return [f"the system's keyring ({found.instance_name} at {found.url})"]


@click.command("status", cls=Command)
@legacy_connection_options
def status(timeout: float | None, **access: Any) -> None:
    """Show which credentials would be used.

    Says where each part comes from, whether the instance accepts them, and what they allow.
    """
    report = current_output()
    found = find_credentials(report, **access)
    error, may_upload = _check_access(instance_at(report, found, timeout))
    parts = {"url": found.url, "instance_name": found.instance_name, "token": found.token}
    data: dict[str, object] = {
        "ok": error is None,
        "exit_code": error.exit_code if error else 0,
        "accepted": None if isinstance(error, Unavailable) else error is None,
        "may_upload": may_upload,
        **{
            name: {"value": _display_value(name, part), "origin": part.origin}
            for name, part in parts.items()
        },
    }
    lines = [
        f"{name.replace('_', ' ') + ':':15}{_display_value(name, part)}  ({part.origin})"
        for name, part in parts.items()
    ]
    verdict = (
        str(error)
        if error
        else f"yes{', and the token may upload' if may_upload else '; it may not upload'}"
    )
    report.print_result(data, "\n".join([*lines, f"{'accepted:':15}{verdict}"]))
    report.exit(error.exit_code if error else 0)


def _check_access(instance: InstanceClient) -> tuple[DatapilotError | None, bool | None]:
    """Why the credentials can't be used, if so; and whether they may upload, where that is known."""
    try:
        instance.check_credentials()
    except DatapilotError as error:
        return error, None
    try:
        instance.check_permissions()
    except AccessDenied:
        return None, False
    except DatapilotError:
        return None, None
    return None, True


def _display_value(name: str, part: Setting) -> str:
    return mask_token(part.value) if name == "token" else part.value


def mask_token(token: str) -> str:
    """A token as it may be shown: nothing of it but that it is there."""
    return f"*** ({len(token)} characters)"
