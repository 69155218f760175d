"""The environment variables that the package reads."""

from __future__ import annotations

import ast
import re

from tests.support.environments import REPOSITORY

# Variables of this program, not those of other programs or of the tests.
VARIABLE = re.compile(r"\b(?:DATAPILOT|ALTIMATE)_[A-Z_]*[A-Z]\b")


def variables_of_package() -> set[str]:
    """Return the environment variables in string literals of the package."""
    variables: set[str] = set()
    for path in (REPOSITORY / "datapilot_defer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                variables |= set(VARIABLE.findall(node.value))
    return variables
