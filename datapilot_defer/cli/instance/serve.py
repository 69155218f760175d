"""`datapilot instance init` and `datapilot instance serve`."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.instance.options import (
    data_option,
    instance_name_option,
    open_storage_or_explain,
)
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.instance.serve import ListenAddress
    from datapilot_defer.instance.settings import InstanceSettings
    from datapilot_defer.storage import Storage

_LOG_LEVELS = {"datapilot_defer.instance": logging.INFO, "uvicorn.error": logging.WARNING}


@dataclass(frozen=True)
class ServeOptions:
    """Options of `serve` about the server."""

    host: str
    port: int
    public_url: str | None
    behind_proxy: bool
    tls_certificate: str | None
    tls_key: str | None
    requests_per_minute: int
    keep_count: int
    keep_days: int | None

    @property
    def address(self) -> ListenAddress:
        """Return where to listen."""
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
        )


@dataclass(frozen=True)
class FirstInstance:
    """An instance that `serve` created, with its admin token."""

    instance_name: str
    token: str


@click.command("init", cls=Command)
@data_option
@click.option(
    "--instance-name", metavar="NAME", required=True, help="Travels with every request as x-tenant."
)
def init(data: Path, instance_name: str) -> None:
    """Make an instance in a data folder, and an admin token, shown this once.

    A data folder may hold several instances: each has its own integrations and tokens.
    """
    with open_storage_or_explain(data) as storage:
        from datapilot_defer.instance.services import instances

        token = instances.create_instance(storage, instance_name)
        if token is None:
            raise UsageError(
                f"{data} holds an instance {instance_name!r} already; for another token: "
                f"datapilot instance token create --data {shlex.quote(str(data))} "
                f"--instance-name {instance_name} --scope admin --name NAME"
            )
    text = f"Instance {instance_name} is made in {data}.\nIts admin token, shown this once: {token}"
    current_output().print_result({"instance_name": instance_name, "token": token}, text)


def _serve_options(
    command: Callable[[Path, str | None, ServeOptions], None],
) -> Callable[..., None]:
    """Pass the options of the server as one object."""

    @wraps(command)
    def run(data: Path, instance_name: str | None, **values: Any) -> None:
        command(data, instance_name, ServeOptions(**values))

    return run


@click.command("serve", cls=Command, own_signals=True)
@data_option
@instance_name_option(
    "Make this instance first, if the data folder does not hold it.  "
    "[default: main, in an empty folder]"
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is all of them.",
)
@click.option(
    "--port",
    default=8585,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 takes a free one.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="What clients reach it under.  [default: what each of them used]",
)
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Believe X-Forwarded-For, -Proto and -Host: a proxy sets them.",
)
@click.option(
    "--tls-certificate", metavar="FILE", help="Serve https with this certificate chain (PEM)."
)
@click.option("--tls-key", metavar="FILE", help="The certificate's private key (PEM).")
@click.option(
    "--requests-per-minute",
    default=6000,
    show_default=True,
    type=click.IntRange(0),
    help="Of one client's address; beyond: 429. 0 is any number.",
)
@click.option(
    "--keep",
    "keep_count",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    help=(
        "Uploads of one kind to keep per environment, equal ones counted once; "
        "the current one stays."
    ),
)
@click.option(
    "--keep-days", type=click.IntRange(1), help="Forget older uploads, but never a current one."
)
@_serve_options
def serve(data: Path, instance_name: str | None, options: ServeOptions) -> None:
    """Serve the instances in a data folder: the API, and a web page at the printed URL.

    On the first start it makes the folder, an instance and an admin token, and prints them once,
    with the commands to paste. It listens on this machine only unless --host says otherwise, and
    ends on Ctrl+C or SIGTERM when running uploads are done.
    """
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise UsageError("--tls-certificate and --tls-key belong together: give both, or neither")
    output = current_output()
    with open_storage_or_explain(data) as storage, _log_to_output(output):
        from datapilot_defer.instance.serve import serve as serve_instance

        created = _create_first_instance(storage, instance_name)
        _warn_about_plain_http(output, options)

        def print_startup_message(url: str) -> None:
            output.print_result(_startup_json(url, created), _format_startup_message(url, created))

        serve_instance(storage, options.settings, options.address, on_ready=print_startup_message)


def _create_first_instance(storage: Storage, instance_name: str | None) -> FirstInstance | None:
    """Create the named instance, or "main" in an empty data directory, unless it exists."""
    from datapilot_defer.instance.services import instances

    if instance_name is None and instances.list_instance_names(storage):
        return None
    name = instance_name or "main"
    token = instances.create_instance(storage, name)
    if token is None:
        return None
    return FirstInstance(name, token)


def _warn_about_plain_http(output: Output, options: ServeOptions) -> None:
    is_encrypted = options.tls_certificate is not None or options.behind_proxy
    if not options.address.is_local and not is_encrypted:
        output.warn(
            "tokens travel unencrypted: "
            "use --tls-certificate and --tls-key, or a proxy with --behind-proxy"
        )


def _startup_json(url: str, created: FirstInstance | None) -> dict[str, object]:
    if created is None:
        return {"url": url}
    return {"url": url, "instance_name": created.instance_name, "token": created.token}


def _format_startup_message(url: str, created: FirstInstance | None) -> str:
    if created is None:
        return f"Serving at {url}"
    assignment = "export {}={}"
    if os.name == "nt":
        assignment = "$env:{}='{}'"
    variables = {
        "ALTIMATE_URL": url,
        "ALTIMATE_INSTANCE_NAME": created.instance_name,
        "ALTIMATE_API_KEY": created.token,
    }
    lines = [
        f"Serving at {url}",
        f"Instance {created.instance_name} is made. "
        f"Its admin token, shown this once: {created.token}",
        "Sign in there with it, or paste this where your dbt project is:",
        *(f"  {assignment.format(name, value)}" for name, value in variables.items()),
        "  datapilot dbt integrations create --name my_project --environment PROD",
        "  datapilot dbt onboard --integration-name my_project --environment PROD",
    ]
    return "\n".join(lines)


class _OutputHandler(logging.Handler):
    """Prints log records as messages of the command."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        text = self.format(record)
        if record.levelno < logging.WARNING:
            self._output.note(text)
        else:
            self._output.warn(text)


@contextmanager
def _log_to_output(output: Output) -> Iterator[None]:
    """Print the access log, and warnings of the web server, to stderr."""
    handler = _OutputHandler(output)
    loggers = []
    for name, level in _LOG_LEVELS.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        loggers.append(logger)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
