"""The steps of a diagnosis and their results."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from datapilot_defer.errors import DatapilotError


class StepName(StrEnum):
    """The names of the steps, in order of execution. The values are stable, for `--json`."""

    PROJECT = "project"
    DBT = "dbt"
    MANIFEST_SOURCE = "manifest_source"
    CONFIGURATION = "configuration"
    KEYRING = "keyring"
    PROXY = "proxy"
    DNS = "dns"
    CONNECTION = "connection"
    CLOCK = "clock"
    CREDENTIALS = "credentials"
    INTEGRATION = "integration"
    READING = "reading"
    UPLOADING = "uploading"
    MANIFEST = "manifest"
    STORAGE_HOST = "storage_host"


class Status(StrEnum):
    """The status of a step. WARNING: a problem only for some users. SKIPPED: it did not run."""

    PASSED = "passed"
    FAILED = "failed"
    WARNING = "warning"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Step:
    """The result of one step. detail: a description. error: why it failed."""

    name: StepName
    status: Status
    detail: str
    error: DatapilotError | None = None

    def to_json(self) -> dict[str, object]:
        """Return the result as JSON values."""
        return {"name": self.name.value, "status": self.status.value, "detail": self.detail}


def passed(name: StepName, detail: str) -> Step:
    """Return the result of a step that found no problem."""
    return Step(name, Status.PASSED, detail)


def failed(name: StepName, error: DatapilotError) -> Step:
    """Return the result of a step that failed."""
    return Step(name, Status.FAILED, str(error), error)


def warned(name: StepName, detail: str) -> Step:
    """Return the result of a step with a problem for some users."""
    return Step(name, Status.WARNING, detail)


def skipped(name: StepName, reason: str) -> Step:
    """Return the result of a step that did not run."""
    return Step(name, Status.SKIPPED, reason)
