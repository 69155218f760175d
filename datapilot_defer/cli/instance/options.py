"""Options shared by commands of `datapilot instance`, and access to the data directory."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datapilot_defer.cli.instance.log import log_to_output
from datapilot_defer.cli.output import current_output
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.storage import Storage
    from datapilot_defer.storage.audit import Actor

F = TypeVar("F", bound=Callable[..., Any])

# A scheme has at least two letters, because "C://data" is a path on Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class _DataDirectory(click.Path):
    """A parameter type for a local directory.

    It rejects URLs, which would become relative paths such as "s3:/bucket".
    """

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path. Fail for a URL."""
        if _URL.match(str(value)):
            self.fail(f"{value!r} is a URL. Use a local directory.", param, ctx)
        return super().convert(value, param, ctx)


def data_option(command: F) -> F:
    """Add the option --data."""
    return click.option(
        "--data",
        required=True,
        metavar="DIR",
        envvar="DATAPILOT_INSTANCE_DATA",
        show_envvar=True,
        type=_DataDirectory(),
        help="Data directory with the records and artifacts of the instance.",
    )(command)


def instance_name_option(help_text: str) -> Callable[[F], F]:
    """Add the option --instance-name."""
    return click.option("--instance-name", metavar="NAME", help=help_text)


def admin_token_file_option(command: F) -> F:
    """Add the option --admin-token-file."""
    return click.option(
        "--admin-token-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help=(
            "Write the first admin token to this file instead of printing it. A token that the "
            "file already contains becomes an admin token."
        ),
    )(command)


def format_token_command(data: Path, instance_name: str) -> str:
    """Return the command that creates an admin token."""
    return (
        f"datapilot instance token create --data {shlex.quote(str(data))} "
        f"--instance-name {instance_name} --scope admin --name NAME"
    )


def command_line_actor() -> Actor:
    """Return the user of this command for the audit log."""
    from datapilot_defer.storage.audit import Actor

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may have no entry for its user id
        user = "unknown user"
    return Actor(f"command line ({user})")


@contextmanager
def open_storage_or_explain(data: Path, *, create: bool = True) -> Iterator[Storage]:
    """Open a data directory. Files that the block creates in it are private to this user.

    Raises UsageError with an installation command when a dependency is missing.
    """
    try:
        from datapilot_defer.storage import open_storage
        from datapilot_defer.storage.permissions import private_umask
    except ImportError as error:
        raise UsageError(
            f"an instance requires {error.name}, which is not installed. Run "
            '`pip install "datapilot-defer[instance]"`.'
        ) from None
    with (
        log_to_output(current_output()),
        private_umask(),
        open_storage(data, create=create) as storage,
    ):
        yield storage
