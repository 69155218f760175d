"""`datapilot instance serve`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.instance.admin_token import load_first_token
from datapilot_defer.cli.instance.options import (
    admin_token_file_option,
    data_option,
    instance_name_option,
    open_storage_or_explain,
)
from datapilot_defer.cli.instance.startup import Startup
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.instance.serve import ListenAddress
    from datapilot_defer.instance.settings import InstanceSettings

_BYTE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _parse_size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Return a number of bytes, at least 1, from a text such as 1000, 500MB or 1.5GB."""
    if value is None:
        return None
    size_bytes = 0
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Z]*)", value.upper(), re.ASCII)
    if match is not None:
        size_bytes = int(float(match[1]) * _BYTE_UNITS.get(match[2], 0))
    if size_bytes == 0:
        raise click.BadParameter(
            f"{value!r} is not a size. Use a number of bytes, or a number with a unit, "
            "such as 500MB."
        )
    return size_bytes


def _parse_public_url(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> str | None:
    """Return the URL. Fail unless it is an HTTP or HTTPS URL with a host and at most a path."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    is_plain = value.isascii() and value.isprintable() and not set("@?# ") & set(value)
    if not has_host or not is_plain or parts.scheme not in ("http", "https"):
        raise click.BadParameter(
            "Use the URL that clients connect to, such as https://datapilot.example.com."
        )
    return value


@dataclass(frozen=True)
class ServeOptions:
    """Options of `serve` that configure the server."""

    host: str
    port: int
    public_url: str | None
    behind_proxy: bool
    tls_certificate: str | None
    tls_key: str | None
    requests_per_minute: int
    keep_count: int
    keep_days: int | None
    max_stored_bytes: int | None
    verification_workers: int

    @property
    def address(self) -> ListenAddress:
        """Return the address to listen on."""
        from datapilot_defer.instance.serve import ListenAddress

        return ListenAddress(self.host, self.port, self.tls_certificate, self.tls_key)

    @property
    def settings(self) -> InstanceSettings:
        """Return the settings of the instance."""
        from datapilot_defer.instance.settings import InstanceSettings

        keep_age = None
        if self.keep_days is not None:
            keep_age = timedelta(days=self.keep_days)
        return InstanceSettings(
            public_url=self.public_url,
            behind_proxy=self.behind_proxy,
            requests_per_minute=self.requests_per_minute,
            keep_count=self.keep_count,
            keep_age=keep_age,
            max_stored_bytes=self.max_stored_bytes,
            verification_workers=self.verification_workers,
        )


def _serve_options(
    command: Callable[[Path, str | None, Path | None, ServeOptions], None],
) -> Callable[..., None]:
    """Pass the options of the server to a command as one object."""

    @wraps(command)
    def run(
        data: Path, instance_name: str | None, admin_token_file: Path | None, **values: Any
    ) -> None:
        """Call the command."""
        command(data, instance_name, admin_token_file, ServeOptions(**values))

    return run


@click.command("serve", cls=Command, own_signals=True)
@data_option
@instance_name_option(
    "Instance to create if the data directory does not contain it.  "
    "[default: main, if the data directory is empty]"
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0 listens on all addresses.",
)
@click.option(
    "--port",
    default=8585,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on. 0 selects a free port.",
)
@click.option(
    "--public-url",
    metavar="URL",
    callback=_parse_public_url,
    help="Public base URL of this instance.  [default: taken from each request]",
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Trust X-Forwarded-* headers set by a reverse proxy.",
)
@click.option(
    "--tls-certificate", metavar="FILE", help="Certificate chain (PEM) for serving HTTPS."
)
@click.option("--tls-key", metavar="FILE", help="Private key of the certificate (PEM).")
@click.option(
    "--requests-per-minute",
    default=6000,
    show_default=True,
    type=click.IntRange(0),
    help="Maximum requests per minute per token, or per IP address for requests without a "
    "valid token. 0 disables the limit.",
)
@click.option(
    "--keep",
    "keep_count",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    help=(
        "Number of uploads to keep per kind and environment. Identical uploads count once. "
        "The current one is always kept."
    ),
)
@click.option(
    "--keep-days",
    type=click.IntRange(1),
    help="Delete uploads older than this many days, except current ones.",
)
@click.option(
    "--max-bytes",
    "max_stored_bytes",
    metavar="BYTES",
    callback=_parse_size,
    help="Maximum total size of an instance's artifacts, such as 50GB.  [default: no limit]",
)
@click.option(
    "--verification-workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Number of processes that verify uploads in parallel.",
)
@admin_token_file_option
@_serve_options
def serve(
    data: Path, instance_name: str | None, admin_token_file: Path | None, options: ServeOptions
) -> None:
    """Serve the API and web pages of a data directory.

    The first start creates the directory, an instance and an admin token. It prints the token once,
    with commands to copy. The server accepts connections from this machine only, unless --host
    permits others. On Ctrl+C or SIGTERM, it waits for uploads in progress and then stops.

    \b
    Examples:
      datapilot instance serve --data ~/datapilot-instance
      datapilot instance serve --data /srv/datapilot --behind-proxy
    """
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise UsageError("--tls-certificate and --tls-key must be used together")
    output = current_output()
    first_token = load_first_token(admin_token_file)
    with open_storage_or_explain(data) as storage:
        from datapilot_defer.instance.serve import serve as serve_instance
        from datapilot_defer.instance.services.instances import check_instance_name

        if instance_name is not None:
            check_instance_name(instance_name)
        startup = Startup(output, storage, data, instance_name, first_token)
        _warn_about_plain_http(output, options)
        serve_instance(storage, options.settings, options.address, on_ready=startup.announce)


def _warn_about_plain_http(output: Output, options: ServeOptions) -> None:
    is_encrypted = options.tls_certificate is not None or options.behind_proxy
    if not options.address.is_local and not is_encrypted:
        output.warn(
            "tokens are sent unencrypted. Use --tls-certificate and --tls-key, or a reverse proxy "
            "with --behind-proxy."
        )
