"""`datapilot auth logout`: remove stored credentials."""

from __future__ import annotations

import os

import click

from datapilot_defer import credential_store
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.errors import NotFound, Unavailable


@click.command("logout", cls=Command)
@click.option(
    "--instance-name", metavar="NAME", help="Instance name. [default: the one logged in to last]"
)
@click.option("--backend-url", metavar="URL", help="URL of the instance.")
def logout(instance_name: str | None, backend_url: str | None) -> None:
    """Forget the credentials of an instance.

    They are removed from the keyring and from the config file.
    """
    output = current_output()
    url = None
    if backend_url:
        url = backend_url.rstrip("/").lower()
    locations = [
        _remove_from_keyring(output, url, instance_name),
        _remove_from_config_file(url, instance_name),
    ]
    removed_from = [location for location in locations if location]
    if not removed_from:
        raise NotFound(
            "no such credentials are kept here; `datapilot auth status` shows what is used"
        )
    output.print_result(
        {"ok": True, "removed_from": removed_from},
        f"Logged out: removed from {' and '.join(removed_from)}.",
    )


def _remove_from_keyring(output: Output, url: str | None, instance_name: str | None) -> str | None:
    """Remove the matching credentials. Return their location, as text for people."""
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
    return f"the system's keyring ({stored.instance_name} at {stored.url})"


def _remove_from_config_file(url: str | None, instance_name: str | None) -> str | None:
    """Remove the credentials if they match. Return the path of the config file."""
    stored = credential_store.find_in_config_file(os.environ)
    if stored is None:
        return None
    stored_name, stored_url = stored
    if instance_name not in (None, stored_name) or url not in (None, stored_url):
        return None
    return str(credential_store.remove_from_config_file(os.environ))
