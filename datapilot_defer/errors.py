"""Everything that can go wrong, and the exit code that it ends with.

DatapilotError
├── ArtifactRefused     1   the file is not what dbt wrote, or the instance does not want it
├── UsageError          2   an option, a local file or a setting is missing or wrong
├── AccessDenied        3   token, instance name or permission
├── NotFound            4   no such instance, integration, environment or artifact
├── Unavailable         5   nothing is wrong with the request: trying again may help
└── Interrupted     128+n   ended by signal n

A message names the thing, the cause and what to do next; it never holds a token, a query string
or user-info. Exit codes are never renumbered.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping


class DatapilotError(Exception):
    """An error that a user, a file or a network causes. `str()` returns its message.

    details: facts for programs, which the JSON of an error contains too.
    """

    exit_code = 1

    def __init__(self, message: str = "", details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})

    @property
    def kind(self) -> str:
        """Return a stable word for `--json`, such as "access_denied"."""
        # The class in the tree above decides. Its subclasses are details of the program.
        name = next(each.__name__ for each in type(self).__mro__ if each.__module__ == __name__)
        return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class ArtifactRefused(DatapilotError):
    """The artifact is invalid, unusable for dbt, or rejected by the instance."""

    exit_code = 1


class UsageError(DatapilotError):
    """An option, a local file or a setting is missing or wrong."""

    exit_code = 2


class AccessDenied(DatapilotError):
    """The instance denies access to this token, this instance name, or this action."""

    exit_code = 3


class NotFound(DatapilotError):
    """No such instance, integration, environment or artifact."""

    exit_code = 4


class Unavailable(DatapilotError):
    """The instance, or the network, does not work now. Trying again may help."""

    exit_code = 5


class Interrupted(DatapilotError):
    """Ended by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name} before it was finished")
        self.exit_code = 128 + number
