"""What Python's constructors take from a string, for the rules of dbt's loader.

The names occur as `format` in schemas/dbt1.11-reads.json. A format says nothing about values that are not strings.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)?)? ?(?:Z|UTC|[+-]\d\d:?(?:\d\d)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"(\d{1,4})(?:\.\d+)?", re.ASCII)
_THREE_NUMBERS = re.compile(r"(\d{1,4})[./-](\d{1,4})[./-](\d{1,4})", re.ASCII)


def python_int(text: object) -> bool:
    """Whether `int` takes it, once it is a string."""
    return not isinstance(text, str) or _is_accepted_by(int, text)


def python_float(text: object) -> bool:
    """Whether `float` takes it, once it is a string."""
    return not isinstance(text, str) or _is_accepted_by(float, text)


def python_uuid(text: object) -> bool:
    """Whether `uuid.UUID` takes it, once it is a string."""
    from uuid import UUID

    return not isinstance(text, str) or _is_accepted_by(UUID, text)


def dateutil(text: object) -> bool:
    """Whether dateutil reads a date: ISO 8601 as every dbt writes it, a day or year, or three numbers that can be one.

    dateutil would also read "5 January"; no dbt writes that.
    """
    if not isinstance(text, str):
        return True
    if found := _ISO.fullmatch(text.strip()):
        return _is_accepted_by(
            datetime.fromisoformat, " ".join(part for part in found.groups() if part)
        )
    if found := _NUMBER.fullmatch(text.strip()):
        return int(found.group(1)) not in (0, 29, 30, 31)  # days that not every month has
    numbers = _THREE_NUMBERS.fullmatch(text.strip())
    return numbers is not None and _can_be_a_date([int(part) for part in numbers.groups()])


def _can_be_a_date(numbers: list[int]) -> bool:
    """One is a month, one a day, one a year, in whichever order."""
    months = sum(1 <= number <= 12 for number in numbers)
    days = sum(1 <= number <= 31 for number in numbers)
    return months >= 1 and days >= 2


def dbt_hook(text: object) -> bool:
    """Whether dbt makes a hook of a string: its SQL, or a JSON object with `sql`; other JSON it refuses."""
    if not isinstance(text, str):
        return True
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return True
    if not isinstance(found, dict) or "sql" not in found:
        return False
    index = found.get("index")
    return index is None or (isinstance(index, (int, float, str)) and _is_accepted_by(int, index))


def dbt_hook_letters(text: object) -> bool:
    """A string where a list of hooks belongs is taken letter by letter."""
    return not isinstance(text, str) or all(dbt_hook(letter) for letter in text)


def _is_accepted_by(constructor: Callable[..., object], value: object) -> bool:
    try:
        constructor(value)
    except (ValueError, TypeError, OverflowError, AttributeError):
        return False
    return True


FORMATS: dict[str, Callable[[object], bool]] = {
    "python-int": python_int,
    "python-float": python_float,
    "python-uuid": python_uuid,
    "dateutil": dateutil,
    "dbt-hook": dbt_hook,
    "dbt-hook-letters": dbt_hook_letters,
}
