"""Validation of artifacts, and detection of the dbt versions that can read them.

A manifest is valid if dbt's own loader accepts it, even if it does not fit the published schema:
current versions of dbt-core write manifests that violate the schema that they generate, and the
loader accepts more than the schema allows. Differences from the published schema that still load
are counted as drift. `strict` requires the published schema exactly.
"""

from datapilot_defer.validation.bundled_schemas import warm_up
from datapilot_defer.validation.consistency import find_inconsistencies
from datapilot_defer.validation.result import (
    Problem,
    ProblemCode,
    ValidationOptions,
    ValidationResult,
)
from datapilot_defer.validation.run_outcome import RunOutcome, judge_run
from datapilot_defer.validation.validator import validate

__all__ = [
    "Problem",
    "ProblemCode",
    "RunOutcome",
    "ValidationOptions",
    "ValidationResult",
    "find_inconsistencies",
    "judge_run",
    "validate",
    "warm_up",
]
