"""Options shared by several commands.

A decorator that builds an options object passes that object to the command instead of the
individual values.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

import click

from datapilot_defer.cli.help import Option
from datapilot_defer.client.connection import ConnectionOptions, command_timeout_s
from datapilot_defer.config import DEFAULT_URL
from datapilot_defer.deadline import DEFAULT_TIMEOUT_S, Deadline
from datapilot_defer.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

# The server's safety checks, and the manifests that they reject.
UPLOAD_CHECKS = {
    "older": "dbt wrote it before the current manifest",
    "smaller": "it has less than half of the current manifest's models",
    "project": "it is of another dbt project than the integration's",
    "relations": "most of its relations moved to another database or schema",
}


# The largest number that the databases of instances store.
MAX_ID = 2**63 - 1


class IdType(click.types.IntParamType):
    """An ID. The message for an invalid one does not repeat it, because it may be a token."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the ID. Fails if it is not an integer from 1 to MAX_ID."""
        number = 0
        with suppress(ValueError):
            number = int(value)
        if not 1 <= number <= MAX_ID:
            self.fail(f"an ID is an integer from 1 to {MAX_ID}.", param, ctx)
        return number


class NameType(click.types.StringParamType):
    """A name in UTF-8, the encoding of requests."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name. Fails if it contains bytes that are not UTF-8."""
        name = super().convert(value, param, ctx)
        try:
            name.encode()
        except UnicodeEncodeError:
            self.fail("the name must be text in UTF-8.", param, ctx)
        return name


def connection_options(command: F) -> F:
    """Add the options that select an instance, passed on as `connection: ConnectionOptions`."""

    @wraps(command)
    def wrapper(
        *,
        token: str | None,
        instance_name: str | None,
        backend_url: str | None,
        allow_http: bool,
        timeout: float | None,
        **others: Any,
    ) -> Any:
        options = ConnectionOptions(token, instance_name, backend_url, allow_http, timeout)
        return command(connection=options, **others)

    with_options: Callable[..., Any] = wrapper
    for option in reversed(_CONNECTION_OPTIONS):
        with_options = option(with_options)
    return cast("F", with_options)


class _SecondsType(click.FloatRange):
    """A number of seconds in a range.

    NaN is rejected separately, because comparisons with the limits do not detect it.
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


timeout_option = click.option(
    "--timeout",
    type=_SecondsType(min=1, max=86400),
    metavar="SECONDS",
    help="Time limit of the command, without the time that `defer run` runs dbt. [env "
    f"var: DATAPILOT_TIMEOUT; default: {DEFAULT_TIMEOUT_S:g}]",
)


def start_deadline(timeout_s: float | None) -> Deadline:
    """Start the time limit of a command.

    timeout_s: the value of --timeout. Raises UsageError if DATAPILOT_TIMEOUT is out of range.
    """
    return Deadline(command_timeout_s(timeout_s, os.environ))


_CONNECTION_OPTIONS = [
    click.option(
        "--token",
        metavar="TOKEN",
        help="API token. Using the environment variable is safer. [env var: "
        "ALTIMATE_API_KEY, DATAPILOT_TOKEN]",
    ),
    click.option(
        "--instance-name",
        metavar="NAME",
        help="Instance name. [env var: ALTIMATE_INSTANCE_NAME, DATAPILOT_INSTANCE_NAME]",
    ),
    click.option(
        "--backend-url",
        metavar="URL",
        help=f"URL of the instance. [env var: ALTIMATE_URL, DATAPILOT_URL; default: {DEFAULT_URL}]",
    ),
    click.option(
        "--allow-http",
        is_flag=True,
        help="Allow plain HTTP to a non-loopback host.",
    ),
    timeout_option,
]


def environment_option(*, default: str | None = "PROD") -> Callable[[F], F]:
    """Add --environment."""
    return click.option(
        "--environment",
        "environment",
        cls=Option,
        hidden_names=("--dbt_core_integration_environment", "--dbt_integration_environment"),
        type=NameType(),
        metavar="NAME",
        default=default,
        show_default=True,
        help="Environment of the integration: its name (case-insensitive) or ID.",
    )


def integration_options(command: F) -> F:
    """Add --integration-id and --integration-name, one of which must be given."""
    return _add_integration_options(command, one_required=True)


def optional_integration_options(command: F) -> F:
    """Add --integration-id and --integration-name."""
    return _add_integration_options(command, one_required=False)


def _add_integration_options(command: F, *, one_required: bool) -> F:
    by_id = click.option(
        "--integration-id",
        "integration_id",
        cls=Option,
        hidden_names=("--dbt_core_integration_id", "--dbt_integration_id"),
        one_required=one_required,
        type=IdType(),
        help="ID of the integration.",
    )
    by_name = click.option(
        "--integration-name",
        "integration_name",
        cls=Option,
        hidden_names=("--dbt_core_integration_name", "--dbt_integration_name"),
        one_required=one_required,
        type=NameType(),
        metavar="NAME",
        help="Name of the integration, instead of its ID.",
    )
    return by_id(by_name(command))


def validation_options(command: F) -> F:
    """Add --strict and --readable-by, passed on as `validation: ValidationOptions`."""

    @wraps(command)
    def wrapper(*, strict: bool, readable_by: str | None, **others: Any) -> Any:
        from datapilot_defer.validation.result import ValidationOptions

        return command(validation=ValidationOptions(strict, readable_by), **others)

    return cast("F", _strict_option(_readable_by_option(wrapper)))


_strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Reject files that differ in any way from dbt's published schemas.",
)
_readable_by_option = click.option(
    "--readable-by",
    metavar="VERSION",
    envvar="DATAPILOT_READABLE_BY",
    show_envvar=True,
    help="Reject a manifest that this version of dbt, such as 1.11, cannot defer to.",
)


_SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*([smhdw])(?:in|ours?|ays?|ecs?)?")


def _parse_duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of a duration such as 90m, 24h or 7d; None without a value."""
    if not value:
        return None
    match = _DURATION.fullmatch(value.strip().lower())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a duration; use 90m, 24h or 7d", ctx, param)
    return float(match.group(1)) * _SECONDS_PER_UNIT[match.group(2)]


max_age_option = click.option(
    "--max-age",
    callback=_parse_duration,
    metavar="AGE",
    envvar="DATAPILOT_MAX_AGE",
    show_envvar=True,
    help="Reject a manifest that dbt wrote longer ago than this, such as 24h or 7d.",
)
offline_option = click.option(
    "--offline",
    is_flag=True,
    envvar="DATAPILOT_OFFLINE",
    show_envvar=True,
    help="Use artifacts from an earlier pull, and send no requests.",
)
dbt_option = click.option(
    "--dbt",
    "dbt_path",
    metavar="FILE",
    envvar="DATAPILOT_DBT",
    show_envvar=True,
    help="Path to the dbt executable. [default: dbt on PATH]",
)


def require_value(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the value. Fails if it is empty, as from a shell variable that is not set."""
    if value == "":
        raise click.BadParameter("the value is empty. Add the path of a directory.", ctx, param)
    return value


project_dir_option = click.option(
    "--project-dir",
    metavar="DIR",
    callback=require_value,
    help="Directory of the dbt project. [default: the current directory or its nearest "
    "parent with a dbt_project.yml]",
)


def require_integration(integration_id: int | None, integration_name: str | None) -> int | str:
    """Return the ID or the name. Raises UsageError unless exactly one of them is given."""
    if integration_id is not None and integration_name:
        raise UsageError("use --integration-id or --integration-name, not both")
    integration = integration_id or integration_name
    if not integration:
        raise UsageError(
            "no integration given. Use --integration-id or --integration-name. "
            "`datapilot dbt integrations list` lists them"
        )
    return integration
