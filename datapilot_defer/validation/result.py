"""What validation says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datapilot_defer.artifact import Artifact


@dataclass(frozen=True)
class ValidationOptions:
    """What a validation demands.

    strict: reject whatever dbt's published schema does not allow.
    readable_by: a version of dbt, such as "1.11", that must be able to read a manifest.
    """

    strict: bool = False
    readable_by: str | None = None


@dataclass(frozen=True)
class Problem:
    """One reason why an artifact is refused.

    path: where, such as `$.nodes["model.shop.orders"].config.materialized`.
    message: what is expected and what is there. file: the node's own file, such as `models/orders.sql`.
    """

    path: str
    message: str
    file: str | None = None

    def format_line(self, artifact_path: str) -> str:
        """`target/manifest.json::$.path: message (models/orders.sql)`."""
        return f"{artifact_path}::{self.path}: {self.message}" + (
            f" ({self.file})" if self.file else ""
        )


@dataclass(frozen=True)
class ValidationResult:
    """Whether an artifact is whole and useful, and which dbt can read it.

    problems: empty when it is accepted, best first. drift: what a current dbt writes beside its published schema, and
    reads again: of interest, but no cause for a warning. more: how many problems are not listed; at_least: whether
    counting stopped there. readable_by: minor versions of dbt, oldest first, such as ("1.8", …, "1.12", "2").
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
        """Whether nothing speaks against it."""
        return not self.problems

    def format_problems(self) -> list[str]:
        """One line for each problem, and one that says how many more there are."""
        lines = [problem.format_line(self.artifact.path) for problem in self.problems]
        if self.hidden_problems:
            lines.append(
                f"… and {'at least ' if self.is_truncated else ''}{self.hidden_problems:,} more"
            )
        return lines
