"""Options that several commands share, and the way from them to an instance."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from datapilot_defer import config, credential_store, credentials
from datapilot_defer.cli.output import Output
from datapilot_defer.client.connection import DEFAULT_TIMEOUT_S, ConnectionOptions
from datapilot_defer.credentials import Credentials
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable, UsageError

if TYPE_CHECKING:
    from datapilot_defer.client.instance_client import InstanceClient

F = TypeVar("F", bound=Callable[..., Any])


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

    return cast("F", legacy_connection_options(wrapper))


def legacy_connection_options(command: F) -> F:
    """Add --token, --instance-name, --backend-url, --allow-http and --timeout, passed on as `**access`."""
    for option in reversed(_INSTANCE_OPTIONS):
        command = option(command)
    return command


_INSTANCE_OPTIONS = [
    click.option(
        "--token",
        metavar="TOKEN",
        help="Token that admits you; better: environment variable ALTIMATE_API_KEY or DATAPILOT_TOKEN.",
    ),
    click.option(
        "--instance-name",
        metavar="NAME",
        help="Instance name. [ALTIMATE_INSTANCE_NAME, DATAPILOT_INSTANCE_NAME]",
    ),
    click.option(
        "--backend-url",
        metavar="URL",
        help=f"URL of the instance. [ALTIMATE_URL, DATAPILOT_URL; default: {credentials.DEFAULT_URL}]",
    ),
    click.option(
        "--allow-http",
        is_flag=True,
        help="Allow a URL without TLS for a host that is not this machine.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=1, max=86400),
        metavar="SECONDS",
        help=f"Time for the whole command. [DATAPILOT_TIMEOUT; default: {DEFAULT_TIMEOUT_S:g}]",
    ),
]


def environment_option(*, default: str | None = "PROD") -> Callable[[F], F]:
    """Add --environment in all its spellings."""
    return click.option(
        "--environment",
        "--dbt_core_integration_environment",
        "--dbt_integration_environment",
        "environment",
        metavar="NAME",
        default=default,
        show_default=True,
        help="Environment of the integration, such as PROD; upper and lower case are the same.",
    )


def integration_options(command: F) -> F:
    """Add --integration-id and --integration-name in all their spellings."""
    by_id = click.option(
        "--integration-id",
        "--dbt_core_integration_id",
        "--dbt_integration_id",
        "integration_id",
        type=click.IntRange(min=1),
        help="Id of the integration.",
    )
    by_name = click.option(
        "--integration-name",
        "--dbt_core_integration_name",
        "--dbt_integration_name",
        "integration_name",
        metavar="NAME",
        help="Name of the integration, instead of its id.",
    )
    return by_id(by_name(command))


def validation_options(command: F) -> F:
    """Add --strict and --readable-by, passed on as `validation: ValidationOptions`."""

    @wraps(command)
    def wrapper(*, strict: bool, readable_by: str | None, **others: Any) -> Any:
        from datapilot_defer.validation.result import ValidationOptions

        return command(validation=ValidationOptions(strict, readable_by), **others)

    return cast("F", legacy_validation_options(wrapper))


def legacy_validation_options(command: F) -> F:
    """Add --strict and --readable-by."""
    strict = click.option(
        "--strict",
        is_flag=True,
        help="Hold the artifacts to dbt's published schema, to the letter.",
    )
    readable_by = click.option(
        "--readable-by",
        metavar="VERSION",
        envvar="DATAPILOT_READABLE_BY",
        show_envvar=True,
        help="Refuse a manifest that this dbt, such as 1.11, can't defer to.",
    )
    return strict(readable_by(command))


def require_integration(integration_id: int | None, integration_name: str | None) -> int | str:
    """The integration as it was named. Raises UsageError unless it was named in exactly one way."""
    if integration_id is not None and integration_name:
        raise UsageError("give --integration-id or --integration-name, not both")
    named = integration_id if integration_id is not None else integration_name
    if not named:
        raise UsageError(
            "say which integration: --integration-id or --integration-name; "
            "`datapilot dbt integrations list` shows them"
        )
    return named


def find_credentials(
    report: Output,
    *,
    token: str | None,
    instance_name: str | None,
    backend_url: str | None,
    allow_http: bool,
) -> Credentials:
    """The credentials for this call; the token is hidden in all output from here on."""
    if token:
        report.hide_secret(token)
        report.warn(
            "--token shows the token in process lists and CI logs; set ALTIMATE_API_KEY instead"
        )
    options = credentials.given(token=token, instance_name=instance_name, url=backend_url)
    found = credentials.resolve_credentials(
        options,
        environ=os.environ,
        keyring=_keyring(report) if credential_store.is_keyring_enabled(os.environ) else None,
        ask=ask if report.interactive else None,
        allow_http=allow_http,
    )
    report.hide_secret(found.token.value)
    file = config.read_config_file(os.environ)
    if found.token.origin.startswith(str(file.path)) and file.is_readable_by_others():
        report.warn(
            f"others on this machine can read the token in {file.path}: chmod 600 {file.path}"
        )
    report.detail(
        f"URL from {found.url.origin}, instance name from {found.instance_name.origin}, token from {found.token.origin}"
    )
    return found


def connect(
    report: Output,
    *,
    token: str | None,
    instance_name: str | None,
    backend_url: str | None,
    allow_http: bool,
    timeout: float | None,
) -> InstanceClient:
    """The instance that the options, the environment variables and the stored credentials lead to."""
    found = find_credentials(
        report,
        token=token,
        instance_name=instance_name,
        backend_url=backend_url,
        allow_http=allow_http,
    )
    return instance_at(report, found, timeout)


def instance_at(
    report: Output, found: Credentials, timeout: float | None, *, max_tries: int | None = None
) -> InstanceClient:
    """The instance of these credentials; timeout as the option gives it."""
    from datapilot_defer.client.instance_client import MAX_TRIES, InstanceClient

    deadline = Deadline(timeout or _timeout_variable() or DEFAULT_TIMEOUT_S)
    run = report.ci_run.name if report.ci_run else ""
    return InstanceClient(
        found,
        deadline=deadline,
        note=report.note,
        detail=report.detail,
        ci=run,
        max_tries=max_tries or MAX_TRIES,
    )


def _timeout_variable() -> float | None:
    setting = config.read_variable(os.environ, ("DATAPILOT_TIMEOUT",))
    if setting is None:
        return None
    try:
        seconds = float(setting.value)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise UsageError(
            f"{setting.origin} is {setting.value!r}: set it to a number of seconds, 1 to 86400"
        )
    return seconds


def _keyring(report: Output) -> credentials.Stored:
    """The keyring as one more place to look in: when it can't be used, that is said, and the search goes on."""

    def look_up(url: str | None, instance_name: str | None) -> credentials.CredentialSource | None:
        try:
            return credential_store.find_in_keyring(url, instance_name)
        except Unavailable as error:
            report.detail(str(error))
            return None

    return look_up


def ask(words: str) -> str:
    return str(click.prompt(words.capitalize(), hide_input=words == "token", err=True))
