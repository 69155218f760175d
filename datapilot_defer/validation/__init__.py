"""The problems that an artifact has: is it whole, as dbt writes it, and which dbt can read it?

dbt's own loader decides, not the published schema: a current dbt-core violates the schema that it generates, and its
loader takes more than the schema allows. What differs from the published schema and still loads is counted as a
warning; `strict` holds an artifact to the published schema by the letter.
"""

from datapilot_defer.validation.consistency import find_inconsistencies
from datapilot_defer.validation.result import Problem, ValidationResult
from datapilot_defer.validation.validator import validate

__all__ = ["Problem", "ValidationResult", "find_inconsistencies", "validate"]
