"""`datapilot config show`: every effective setting and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import click

from datapilot_defer import config, credential_sources, credential_store
from datapilot_defer.cli.auth import mask_token
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.integrations import format_table
from datapilot_defer.cli.output import current_output
from datapilot_defer.client.connection import DEFAULT_TIMEOUT_S
from datapilot_defer.config import Setting

_DOCUMENTED_VARIABLES = {
    "timeout in seconds": (("DATAPILOT_TIMEOUT",), f"{DEFAULT_TIMEOUT_S:g}"),
    "soft fail": (("DATAPILOT_SOFT_FAIL",), "0"),
    "readable by": (("DATAPILOT_READABLE_BY",), "onboard: any dbt; pull: the dbt that is used"),
    "dbt": (("DATAPILOT_DBT",), "the one on PATH"),
    "offline": (("DATAPILOT_OFFLINE",), "0"),
    "max age": (("DATAPILOT_MAX_AGE",), "any"),
    "instance data": (("DATAPILOT_INSTANCE_DATA",), "none"),
    "system certificates": (("DATAPILOT_SYSTEM_CERTIFICATES",), "0"),
    "certificate authorities": (
        ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"),
        "those of certifi",
    ),
    "proxy": (("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "none"),
    "no proxy": (("NO_PROXY", "no_proxy"), "none"),
    "colour": (("NO_COLOR",), "on a terminal"),
}


@click.command("show", cls=Command)
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
def show(origin: bool) -> None:
    """List every effective setting; the token is masked."""
    report = current_output()
    settings = {**_connection_settings(os.environ), **_other_settings(os.environ)}
    if token := settings.get("token"):
        settings["token"] = Setting(mask_token(token.value), token.origin) if token.value else token
    head = ("setting", "value", "from") if origin else ("setting", "value")
    rows = [
        (name, setting.value or "not set", setting.origin)[: len(head)]
        for name, setting in settings.items()
    ]
    data = {
        name.replace(" ", "_"): {"value": setting.value or None, "origin": setting.origin}
        for name, setting in settings.items()
    }
    report.print_result({"settings": data}, format_table(head, rows))


def _connection_settings(environ: Mapping[str, str]) -> dict[str, Setting]:
    """URL, instance name and token as the next command would find them, without refusing anything."""
    sources = credential_sources.collect_sources(
        credential_sources.CredentialSource(), environ, current_output()
    )
    parts: dict[str, Callable[[credential_sources.CredentialSource], Setting | None]] = {
        "url": lambda source: source.url,
        "instance name": lambda source: source.instance_name,
        "token": lambda source: source.token,
    }
    unset = {"url": Setting(config.DEFAULT_URL, "default")}
    found = {name: next(filter(None, map(part, sources)), None) for name, part in parts.items()}
    file = config.config_file_path(environ)
    return {
        **{
            name: setting or unset.get(name, Setting("", "not set anywhere"))
            for name, setting in found.items()
        },
        "config file": Setting(
            str(file or ""), "exists" if file and file.exists() else "does not exist"
        ),
    }


def _other_settings(environ: Mapping[str, str]) -> dict[str, Setting]:
    found = {
        name: config.read_variable(environ, names)
        for name, (names, _) in _DOCUMENTED_VARIABLES.items()
    }
    settings = {
        name: setting or Setting(_DOCUMENTED_VARIABLES[name][1], "default")
        for name, setting in found.items()
    }
    settings["proxy"] = Setting(
        config.strip_user_info(settings["proxy"].value), settings["proxy"].origin
    )
    wanted = credential_store.is_keyring_enabled(environ)
    told = config.read_variable(environ, ("DATAPILOT_KEYRING",))
    settings["keyring"] = Setting(
        "asked" if wanted else "not asked", told.origin if told else "default"
    )
    return settings
