"""Options that several commands of `datapilot instance` share, and what they open."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.storage import Storage
    from datapilot_defer.storage.audit import Actor

F = TypeVar("F", bound=Callable[..., Any])


def data_option(command: F) -> F:
    """Add the option --data."""
    return click.option(
        "--data",
        required=True,
        metavar="DIR",
        envvar="DATAPILOT_INSTANCE_DATA",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="The data folder: records and artifacts of the instance.",
    )(command)


def instance_name_option(help_text: str) -> Callable[[F], F]:
    """Add the option --instance-name."""
    return click.option("--instance-name", metavar="NAME", help=help_text)


def command_line_actor() -> Actor:
    """Return the user of this command as the audit log names it."""
    from datapilot_defer.storage.audit import Actor

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container without an entry for its user id
        user = "unknown user"
    return Actor(f"command line ({user})")


@contextmanager
def open_storage_or_explain(data: Path, *, create: bool = True) -> Iterator[Storage]:
    """Open a data directory. Raises UsageError with the command that installs what is missing."""
    try:
        from datapilot_defer.storage import open_storage
    except ImportError as error:
        raise UsageError(
            f"an instance needs {error.name}, which is not installed: "
            'pip install "datapilot-defer[instance]"'
        ) from None
    with open_storage(data, create=create) as storage:
        yield storage
