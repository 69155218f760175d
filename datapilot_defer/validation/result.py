"""Options, findings and results of validations, and problems of artifacts."""

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

    strict: reject everything that the published schema does not allow. readable_by: a dbt version,
    such as "1.11" or "2"; reject a manifest that it cannot read.
    """

    strict: bool = False
    readable_by: str | None = None


@dataclass(frozen=True)
class Problem:
    """One reason for rejecting an artifact.

    path: the location of the problem, such as `$.nodes["model.shop.orders"].config.materialized`.
    message: what is wrong, usually as the expected and the actual value. file: the source file of
    the entry, such as models/orders.sql.
    """

    path: str
    message: str
    file: str | None = None
    code: ProblemCode = ProblemCode.SCHEMA_VIOLATION

    def format_line(self, artifact_path: str) -> str:
        """Return one line, such as `target/manifest.json::$.path: message (models/orders.sql)`."""
        line = f"{artifact_path}::{self.path}: {self.message}"
        if self.file:
            line += f" ({self.file})"
        return as_one_line(line)


@dataclass
class Findings:
    """The results of checking one artifact.

    first_violation: the first violation of the schema, as opposed to a problem that only makes a
    manifest unsafe to defer to. dbt1_obstacle: the first value that prevents dbt 1.x from reading a
    manifest that dbt 2.x wrote. drift_counts: the number of entries in each section that fit the
    schema of the check but not the published one. is_truncated: whether the maximum number of
    problems was reached, so that others may be missing.
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
        """Return whether there are no violations of the schema."""
        return self.first_violation is None


@dataclass(frozen=True)
class ValidationResult:
    """The result of a validation.

    problems: the most important first; empty if the artifact is accepted. drift: differences from
    the published schema that cause no warning, because a current dbt writes and reads them.
    readable_by: the minor versions of dbt that can read a manifest, oldest first, such as ("1.8",
    …, "1.12", "2"). hidden_problems: the number of problems that were found but are not listed.
    is_truncated: whether there may be more problems than those found.
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
        """Return one line for each problem and, if problems are hidden, one with their number."""
        lines = [problem.format_line(self.artifact.path) for problem in self.problems]
        if self.hidden_problems:
            count = f"{self.hidden_problems:,} more"
            if self.is_truncated:
                count = f"at least {count}"
            lines.append(f"… and {count}")
        return lines
