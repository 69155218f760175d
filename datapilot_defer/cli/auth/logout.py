"""`datapilot auth logout`: remove stored credentials."""

from __future__ import annotations

import os

import click

from datapilot_defer import credential_store
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.config import CREDENTIAL_VARIABLES, Setting, SettingSource
from datapilot_defer.credential_sources import (
    CredentialSource,
    collect_sources,
    normalize_url,
)
from datapilot_defer.errors import NotFound, Unavailable, UsageError


@click.command("logout", cls=Command)
@click.option(
    "--instance-name", metavar="NAME", help="Instance name. [default: that of the last login]"
)
@click.option("--backend-url", metavar="URL", help="URL of the instance.")
def logout(instance_name: str | None, backend_url: str | None) -> None:
    """Remove stored credentials of an instance.

    They are removed from the keyring and from the config file.

    \b
    Examples:
      datapilot auth logout
      datapilot auth logout --instance-name acme
    """
    output = current_output()
    url = None
    if backend_url:
        url = normalize_url(backend_url)
    # Read the file first, because an invalid one ends the command before anything is removed.
    in_config_file = credential_store.find_in_config_file(os.environ)
    locations = [
        _remove_from_keyring(output, url, instance_name),
        _remove_from_config_file(in_config_file, url, instance_name),
    ]
    removed_from = [location for location in locations if location]
    remaining = _find_remaining_token(output)
    if not removed_from:
        raise NotFound(_nothing_removed_message(remaining))
    if remaining is not None and remaining.source is not SettingSource.KEYRING:
        output.warn(f"the token from {remaining.origin} is still used. {_remedy(remaining)}")
    data = {
        "ok": True,
        "removed_from": removed_from,
        "remaining_token_origin": remaining.origin if remaining else None,
    }
    output.print_result(data, f"Logged out: removed from {' and '.join(removed_from)}.")


def _find_remaining_token(output: Output) -> Setting | None:
    """Return the token that the next command would use, or None."""
    try:
        sources = collect_sources(CredentialSource(), os.environ, output)
    except UsageError:  # the config file names a variable that is not set
        return None
    return next((source.token for source in sources if source.token), None)


def _nothing_removed_message(remaining: Setting | None) -> str:
    message = "no such credentials are stored. `datapilot auth status` shows what is used"
    if remaining is None:
        return message
    return f"{message}. The token from {remaining.origin} is still used. {_remedy(remaining)}"


def _remedy(remaining: Setting) -> str:
    if remaining.source is SettingSource.VARIABLE:
        variables = [name for name in CREDENTIAL_VARIABLES["token"] if os.environ.get(name)]
        return f"Unset {' and '.join(variables)} to stop that"
    return "`datapilot auth logout` without options removes it"


def _remove_from_keyring(output: Output, url: str | None, instance_name: str | None) -> str | None:
    """Remove the matching credentials. Return their location for a message, or None."""
    if not credential_store.is_keyring_enabled(os.environ):
        return None
    try:
        stored = credential_store.find_in_keyring(url, instance_name)
        if stored is None:
            return None
        credential_store.remove_from_keyring(stored.instance_name, stored.url)
    except Unavailable as error:
        output.warn(str(error))
        return None
    return f"the system keyring ({stored.instance_name} at {stored.url})"


def _remove_from_config_file(
    stored: tuple[str, str] | None, url: str | None, instance_name: str | None
) -> str | None:
    """Remove the credentials if they match. Return the path of the config file, or None."""
    if stored is None:
        return None
    stored_name, stored_url = stored
    if instance_name not in (None, stored_name) or url not in (None, stored_url):
        return None
    return str(credential_store.remove_from_config_file(os.environ))
