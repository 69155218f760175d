"""Options, findings and result of a validation, and the problems of an artifact."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from datapilot_defer.formatting import as_one_line

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact


class ProblemCode(Enum):
    """The category of a problem, for decisions in code."""

    NOT_JSON = auto()
    WRONG_FILE = auto()
    SCHEMA_VERSION = auto()
    MISSING_PROPERTY = auto()
    SCHEMA_VIOLATION = auto()
    NOT_READABLE = auto()
    UNSAFE_TO_DEFER = auto()


@dataclass(frozen=True)
class ValidationOptions:
    """Requirements of a validation.

    strict: reject everything that the published schema does not allow.
    readable_by: a version of dbt, such as "1.11" or "2"; reject a manifest that it cannot read.
    """

    strict: bool = False
    readable_by: str | None = None


@dataclass(frozen=True)
class Problem:
    """One reason why an artifact is rejected.

    path: where it is, such as `$.nodes["model.shop.orders"].config.materialized`.
    message: the expected and the actual value. file: the entry's source, such as models/orders.sql.
    """

    path: str
    message: str
    file: str | None = None
    code: ProblemCode = ProblemCode.SCHEMA_VIOLATION

    def format_line(self, artifact_path: str) -> str:
        """Return `target/manifest.json::$.path: message (models/orders.sql)`."""
        line = f"{artifact_path}::{self.path}: {self.message}"
        if self.file:
            line += f" ({self.file})"
        return as_one_line(line)


@dataclass
class Findings:
    """The results of the checks of one artifact.

    first_violation: the first value that breaks the schema, as opposed to one unsafe to defer to.
    dbt1_obstacle: the first value that keeps dbt 1.x from reading what dbt 2.x wrote.
    drift_counts: for each section, the entries that fit the schema but not the published one.
    is_truncated: whether the search stopped at the maximum number of problems.
    """

    problems: list[Problem] = field(default_factory=list)
    first_violation: Problem | None = None
    dbt1_obstacle: Problem | None = None
    drift_counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    readable_by: tuple[str, ...] = ()
    is_truncated: bool = False

    @property
    def is_loadable(self) -> bool:
        """Return whether it fits the schema."""
        return self.first_violation is None


@dataclass(frozen=True)
class ValidationResult:
    """The result of a validation.

    problems: empty if the artifact is accepted, the most important first. drift: differences from
    the published schema that a current dbt writes and reads, without a warning. readable_by: minor
    versions of dbt, oldest first, such as ("1.8", …, "1.12", "2"). hidden_problems: the number of
    problems that are not listed. is_truncated: whether counting stopped there.
    """

    artifact: Artifact
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
    readable_by: tuple[str, ...] = ()
    hidden_problems: int = 0
    is_truncated: bool = False

    @property
    def is_accepted(self) -> bool:
        """Return whether there are no problems."""
        return not self.problems

    def format_problems(self) -> list[str]:
        """Return one line for each problem, and one with the number of hidden problems."""
        lines = [problem.format_line(self.artifact.path) for problem in self.problems]
        if self.hidden_problems:
            count = f"{self.hidden_problems:,} more"
            if self.is_truncated:
                count = f"at least {count}"
            lines.append(f"… and {count}")
        return lines
