"""`datapilot instance`: make, serve and administer an instance of one's own."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.integrations import format_table
from datapilot_defer.cli.output import Output, current_output
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.storage.blobs import BlobStore
    from datapilot_defer.storage.database import Database
    from datapilot_defer.storage.tokens import Token

F = TypeVar("F", bound=Callable[..., Any])


def _data_option(command: F) -> F:
    return click.option(
        "--data",
        required=True,
        metavar="DIR",
        envvar="DATAPILOT_INSTANCE_DATA",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="The data folder: records and artifacts of the instance.",
    )(command)


def _name_option(text: str) -> Callable[[F], F]:
    return click.option("--instance-name", metavar="NAME", help=text)


@click.command("init", cls=Command)
@_data_option
@click.option(
    "--instance-name", metavar="NAME", required=True, help="Travels with every request as x-tenant."
)
def init(data: Path, instance_name: str) -> None:
    """Make an instance in a data folder, and an admin token, shown this once.

    A data folder may hold several instances: each has its own integrations and tokens.
    """
    with open_storage_or_explain(data) as (records, _):
        from datapilot_defer.instance.services import instances

        token = instances.create_instance(records, instance_name)
        if token is None:
            raise UsageError(
                f"{data} holds an instance {instance_name!r} already; for another token: "
                f"datapilot instance token create --data {shlex.quote(str(data))} "
                f"--instance-name {instance_name} --scope admin --name NAME"
            )
    text = f"Instance {instance_name} is made in {data}.\nIts admin token, shown this once: {token}"
    current_output().print_result({"instance_name": instance_name, "token": token}, text)


@click.command("serve", cls=Command, own_signals=True)
@_data_option
@_name_option(
    "Make this instance first, if the data folder does not hold it.  [default: main, in an empty folder]"
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
    help=("Of one client's address; beyond: 429. 0 is any number."),
)
@click.option(
    "--keep",
    "keep_count",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    help=(
        "Uploads of one kind to keep per environment, equal ones counted once; the current one stays."
    ),
)
@click.option(
    "--keep-days", type=click.IntRange(1), help="Forget older uploads, but never a current one."
)
def serve(
    data: Path,
    instance_name: str | None,
    host: str,
    port: int,
    tls_certificate: str | None,
    tls_key: str | None,
    keep_days: int | None,
    **options: Any,
) -> None:
    """Serve the instances in a data folder: the API, and a web page at the printed URL.

    On the first start it makes the folder, an instance and an admin token, and prints them once, with the commands to
    paste. It listens on this machine only unless --host says otherwise, and ends on Ctrl+C or SIGTERM when running
    uploads are done.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise UsageError("--tls-certificate and --tls-key belong together: give both, or neither")
    report = current_output()
    with open_storage_or_explain(data) as (records, blobs), _log_to_output(report):
        from datapilot_defer.instance.serve import ListenAddress, serve
        from datapilot_defer.instance.settings import InstanceSettings

        settings = InstanceSettings(
            keep_age=timedelta(days=keep_days) if keep_days else None, **options
        )
        first = _create_first_instance(records, instance_name)
        if host not in ("127.0.0.1", "::1", "localhost") and not (
            tls_certificate or settings.behind_proxy
        ):
            report.warn(
                "tokens travel unencrypted: use --tls-certificate and --tls-key, or a proxy with --behind-proxy"
            )
        address = ListenAddress(host, port, tls_certificate, tls_key)

        def say(url: str) -> None:
            report.print_result({"url": url, **first}, _format_startup_message(url, **first))

        serve(records, blobs, settings, address, on_ready=say)


@click.group("token")
def token() -> None:
    """The tokens of an instance."""


@token.command("create", cls=Command)
@_data_option
@_name_option("Which instance, if the data folder holds several.")
@click.option("--name", required=True, help="What the history will call whoever uses it.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(
        ["read", "upload", "admin"]
    ),  # instance.secrets.SCOPES, whose import --help can do without
    help=("read: pull. upload: onboard. admin: everything. May be given twice."),
)
@click.option("--integration-id", type=click.IntRange(1), help="Opens this integration only.")
@click.option(
    "--expires-days", type=click.IntRange(1, 36500), help="Opens nothing after so many days."
)
def create(
    data: Path,
    instance_name: str | None,
    name: str,
    scopes: tuple[str, ...],
    integration_id: int | None,
    expires_days: int | None,
) -> None:
    """Make a token; it is shown this once, only a hash of it is kept."""
    expires_at = datetime.now(UTC) + timedelta(days=expires_days) if expires_days else None
    with open_storage_or_explain(data, new=False) as (records, _):
        from datapilot_defer.instance.services import instances

        made, secret = instances.create_token(
            records,
            instance_name,
            name=name,
            scopes=frozenset(scopes),
            integration_id=integration_id,
            expires_at=expires_at,
        )
    current_output().print_result({**_token_json(made), "token": secret}, secret)


@token.command("list", cls=Command)
@_data_option
@_name_option("Only of this instance.")
def list_(data: Path, instance_name: str | None) -> None:
    """List the tokens: names, scopes, last use; never the tokens themselves."""
    with open_storage_or_explain(data, new=False) as (records, _):
        from datapilot_defer.instance.services import instances

        found = instances.list_tokens(records, instance_name)
    head = ("id", "instance", "name", "scopes", "integration", "state", "expires", "last used")
    text = (
        format_table(head, [_token_row(name, each) for name, each in found])
        if found
        else "no tokens"
    )
    described = [{"instance_name": name, **_token_json(each)} for name, each in found]
    current_output().print_result({"tokens": described}, text)


@token.command("revoke", cls=Command)
@_data_option
@click.argument("token_id", type=click.IntRange(1), metavar="ID")
def revoke(data: Path, token_id: int) -> None:
    """Revoke a token by its id, at once and for good."""
    with open_storage_or_explain(data, new=False) as (records, _):
        from datapilot_defer.instance.services import instances

        instances.revoke_token(records, token_id)
    current_output().print_result(
        {"id": token_id, "revoked": True}, f"Token {token_id} is revoked."
    )


@contextmanager
def open_storage_or_explain(
    data: Path, *, new: bool = True
) -> Iterator[tuple[Database, BlobStore]]:
    """Open a data folder, which may be a new one or not, or say how to get what that takes."""
    try:
        from datapilot_defer.instance.services import instances
    except ImportError as error:
        raise UsageError(
            f'an instance needs {error.name}, which is not installed: pip install "datapilot-defer[instance]"'
        ) from None
    with instances.opened(data, new=new) as parts:
        yield parts


def _create_first_instance(records: Database, instance_name: str | None) -> dict[str, str]:
    """Make the instance that is asked for, or the first one; gives what to say of it, once."""
    from datapilot_defer.instance.services import instances

    if instance_name is None and instances.instance_names(records):
        return {}
    name = instance_name or "main"
    token = instances.create_instance(records, name)
    return {"instance_name": name, "token": token} if token else {}


def _format_startup_message(url: str, instance_name: str = "", token: str = "") -> str:
    if not token:
        return f"Serving at {url}"
    setting = "$env:{}='{}'" if os.name == "nt" else "export {}={}"
    values = {
        "ALTIMATE_URL": url,
        "ALTIMATE_INSTANCE_NAME": instance_name,
        "ALTIMATE_API_KEY": token,
    }
    return "\n".join(
        (
            f"Serving at {url}",
            f"Instance {instance_name} is made. Its admin token, shown this once: {token}",
            "Sign in there with it, or paste this where your dbt project is:",
            *(f"  {setting.format(name, value)}" for name, value in values.items()),
            "  datapilot dbt integrations create --name my_project --environment PROD",
            "  datapilot dbt onboard --integration-name my_project --environment PROD",
        )
    )


def _token_row(instance_name: str, made: Token) -> tuple[str, ...]:
    expires, used = (
        at.isoformat(timespec="seconds") if at else "never"
        for at in (made.expires_at, made.last_used_at)
    )
    may = (
        ",".join(sorted(made.scopes)),
        "all" if made.integration_id is None else str(made.integration_id),
    )
    return (str(made.id), instance_name, made.name, *may, _token_state(made), expires, used)


def _token_state(made: Token) -> str:
    return "revoked" if made.revoked_at else "valid" if made.is_valid else "expired"


def _token_json(made: Token) -> dict[str, Any]:
    return {
        "id": made.id,
        "name": made.name,
        "scopes": sorted(made.scopes),
        "integration_id": made.integration_id,
        "expires_at": made.expires_at.isoformat() if made.expires_at else None,
        "last_used_at": made.last_used_at.isoformat() if made.last_used_at else None,
        "state": _token_state(made),
    }


class _OutputHandler(logging.Handler):
    """Says log records with the command's voice."""

    def __init__(self, report: Output) -> None:
        super().__init__()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Say one."""
        (self._report.note if record.levelno < logging.WARNING else self._report.warn)(
            self.format(record)
        )


@contextmanager
def _log_to_output(report: Output) -> Iterator[None]:
    """Send the access log, and what goes wrong in the web server, to stderr."""
    handler = _OutputHandler(report)
    loggers = [logging.getLogger("datapilot_defer.instance"), logging.getLogger("uvicorn.error")]
    for logger, level in zip(loggers, (logging.INFO, logging.WARNING), strict=True):
        logger.setLevel(level)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
