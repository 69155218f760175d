"""`datapilot config show`: every effective setting and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import click

from datapilot_defer import config, credential_store, credentials
from datapilot_defer.cli.auth import masked
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.integrations import table
from datapilot_defer.cli.options import DEFAULT_TIMEOUT_S
from datapilot_defer.cli.output import current_report
from datapilot_defer.config import Setting
from datapilot_defer.errors import Unavailable

_SWITCHES = {
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
    report = current_report()
    settings = {**_access(os.environ), **_others(os.environ)}
    if token := settings.get("token"):
        settings["token"] = Setting(masked(token.value), token.origin) if token.value else token
    head = ("setting", "value", "from") if origin else ("setting", "value")
    rows = [
        (name, setting.value or "not set", setting.origin)[: len(head)]
        for name, setting in settings.items()
    ]
    data = {
        name.replace(" ", "_"): {"value": setting.value or None, "origin": setting.origin}
        for name, setting in settings.items()
    }
    report.result({"settings": data}, table(head, rows))


def _access(environ: Mapping[str, str]) -> dict[str, Setting]:
    """URL, instance name and token as the next command would find them, without refusing anything."""
    keyring = _kept if credential_store.keyring_wanted(environ) else None
    sources = credentials.sources_of(credentials.Source(), environ, keyring)
    parts: dict[str, Callable[[credentials.Source], Setting | None]] = {
        "url": lambda source: source.url,
        "instance name": lambda source: source.instance_name,
        "token": lambda source: source.token,
    }
    unset = {"url": Setting(credentials.DEFAULT_URL, "default")}
    found = {name: next(filter(None, map(part, sources)), None) for name, part in parts.items()}
    file = config.config_file(environ)
    return {
        **{
            name: setting or unset.get(name, Setting("", "not set anywhere"))
            for name, setting in found.items()
        },
        "config file": Setting(
            str(file or ""), "exists" if file and file.exists() else "does not exist"
        ),
    }


def _kept(url: str | None, instance_name: str | None) -> credentials.Source | None:
    try:
        return credential_store.look_up(url, instance_name)
    except Unavailable:
        return None


def _others(environ: Mapping[str, str]) -> dict[str, Setting]:
    found = {name: config.from_environ(environ, names) for name, (names, _) in _SWITCHES.items()}
    settings = {
        name: setting or Setting(_SWITCHES[name][1], "default") for name, setting in found.items()
    }
    settings["proxy"] = Setting(
        config.without_user(settings["proxy"].value), settings["proxy"].origin
    )
    wanted = credential_store.keyring_wanted(environ)
    told = config.from_environ(environ, ("DATAPILOT_KEYRING",))
    settings["keyring"] = Setting(
        "asked" if wanted else "not asked", told.origin if told else "default"
    )
    return settings
