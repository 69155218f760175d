"""Exceptions for expected errors, with the exit code of each one.

DatapilotError
├── ArtifactRefused     1   the artifact is invalid, unusable for dbt, or rejected by the instance
├── UsageError          2   an option, a local file or a setting is missing or wrong
├── AccessDenied        3   the instance denies access: token, instance name or permission
├── NotFound            4   no such instance, integration, environment or artifact
├── Unavailable         5   nothing is wrong with the request: trying again may help
└── Interrupted     128+n   ended by signal n

A message names the thing, the cause and what to do next. It never contains a token, a query string
or user-info. Exit codes are never renumbered.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping


class DatapilotError(Exception):
    """An error that a user, a file or a network causes. `str()` returns its message.

    details: facts for programs, which are also in the JSON of the error.
    """

    exit_code = 1

    def __init__(self, message: str = "", details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = dict(details or {})

    @property
    def kind(self) -> str:
        """Return a stable identifier for `--json`, such as "access_denied"."""
        # Subclasses of the classes in the tree above are internal, so they have the same kind.
        name = next(each.__name__ for each in type(self).__mro__ if each.__module__ == __name__)
        return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class ArtifactRefused(DatapilotError):
    """The artifact is invalid, unusable for dbt, or rejected by the instance."""

    exit_code = 1


class UsageError(DatapilotError):
    """An option, a local file or a setting is missing or wrong."""

    exit_code = 2


class AccessDenied(DatapilotError):
    """The instance does not accept the token or instance name, or does not permit the action."""

    exit_code = 3


class NotFound(DatapilotError):
    """No such instance, integration, environment or artifact."""

    exit_code = 4


class Unavailable(DatapilotError):
    """The instance or the network is not available now. Trying again may help."""

    exit_code = 5


class Interrupted(DatapilotError):
    """The command was ended by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name} before it was finished")
        self.exit_code = 128 + number
