"""`datapilot config show`: every effective setting and its origin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import click

from datapilot_defer import config, credential_store
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.output import Output, current_output, format_table, mask_token
from datapilot_defer.config import DEFAULT_URL, Setting
from datapilot_defer.credential_sources import CredentialSource, collect_sources
from datapilot_defer.deadline import DEFAULT_TIMEOUT_S

# The environment variables of settings other than credentials, and their defaults.
_DOCUMENTED_VARIABLES = {
    "timeout in seconds": (("DATAPILOT_TIMEOUT",), f"{DEFAULT_TIMEOUT_S:g}"),
    "require success": (("DATAPILOT_REQUIRE_SUCCESS",), "0"),
    "soft fail": (("DATAPILOT_SOFT_FAIL",), "0"),
    "readable by": (("DATAPILOT_READABLE_BY",), "any for onboard, dbt on PATH for pull"),
    "dbt": (("DATAPILOT_DBT",), "dbt on PATH"),
    "offline": (("DATAPILOT_OFFLINE",), "0"),
    "max age": (("DATAPILOT_MAX_AGE",), "any"),
    "debug": (("DATAPILOT_DEBUG",), "0"),
    "instance data": (("DATAPILOT_INSTANCE_DATA",), "none"),
    "system certificates": (("DATAPILOT_SYSTEM_CERTIFICATES",), "0"),
    "certificate authorities": (
        ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"),
        "those of certifi",
    ),
    "proxy": (("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "none"),
    "no proxy": (("NO_PROXY", "no_proxy"), "none"),
    "color": (("NO_COLOR",), "on a terminal"),
}


@click.command("show", cls=Command)
@click.option("--origin", is_flag=True, help="Print where each value comes from.")
def show(origin: bool) -> None:
    """Print the effective settings.

    The token is masked.

    \b
    Examples:
      datapilot config show
      datapilot config show --origin --json
    """
    output = current_output()
    settings = {**_connection_settings(os.environ, output), **_other_settings(os.environ)}
    head = ["setting", "value"]
    rows = [[name, setting.value or "not set"] for name, setting in settings.items()]
    if origin:
        head.append("from")
        for row, setting in zip(rows, settings.values(), strict=True):
            row.append(setting.origin)
    data = {
        name.replace(" ", "_"): {"value": setting.value or None, "origin": setting.origin}
        for name, setting in settings.items()
    }
    output.print_result({"ok": True, "settings": data}, format_table(head, rows))


def _connection_settings(environ: Mapping[str, str], output: Output) -> dict[str, Setting]:
    """Return URL, instance name, masked token and config file, without validating them."""
    sources = collect_sources(CredentialSource(), environ, output)
    unset = Setting("", "not set anywhere")
    url = next((source.url for source in sources if source.url), Setting(DEFAULT_URL, "default"))
    name = next((source.instance_name for source in sources if source.instance_name), unset)
    token = next((source.token for source in sources if source.token), None)
    masked_token = unset
    if token is not None:
        masked_token = Setting(mask_token(token.value), token.origin)
    return {
        "url": url,
        "instance name": name,
        "token": masked_token,
        "config file": _config_file_setting(environ),
    }


def _config_file_setting(environ: Mapping[str, str]) -> Setting:
    path = config.config_file_path(environ)
    if path is None:
        return Setting("", "does not exist")
    if not os.path.lexists(path):  # Path.exists may raise an error
        return Setting(str(path), "does not exist")
    return Setting(str(path), "exists")


def _other_settings(environ: Mapping[str, str]) -> dict[str, Setting]:
    settings = {
        name: config.read_variable(environ, variables) or Setting(default, "default")
        for name, (variables, default) in _DOCUMENTED_VARIABLES.items()
    }
    proxy = settings["proxy"]
    settings["proxy"] = replace(proxy, value=config.strip_user_info(proxy.value))
    settings["keyring"] = _keyring_setting(environ)
    return settings


def _keyring_setting(environ: Mapping[str, str]) -> Setting:
    usage = "not asked"
    if credential_store.is_keyring_enabled(environ):
        usage = "asked"
    variable = config.read_variable(environ, ("DATAPILOT_KEYRING",))
    if variable is None:
        return Setting(usage, "default")
    return replace(variable, value=usage)
