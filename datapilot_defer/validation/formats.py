"""String formats for the schema of dbt's loader: strings that the loader can convert.

They are values of `format` in schemas/dbt1.11-reads.json. A format accepts all values that are not
strings.
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
# dateutil could read these as days, but not every month has them, and 0 is not a day.
_UNREADABLE_NUMBERS = (0, 29, 30, 31)


def is_python_int(text: object) -> bool:
    """Return whether `int` accepts a string. Return True for other types."""
    return not isinstance(text, str) or _is_accepted_by(int, text)


def is_python_float(text: object) -> bool:
    """Return whether `float` accepts a string. Return True for other types."""
    return not isinstance(text, str) or _is_accepted_by(float, text)


def is_python_uuid(text: object) -> bool:
    """Return whether `uuid.UUID` accepts a string. Return True for other types."""
    from uuid import UUID

    return not isinstance(text, str) or _is_accepted_by(UUID, text)


def is_dateutil_date(text: object) -> bool:
    """Return whether dateutil reads a string as a date. Return True for other types.

    Accepts ISO 8601 as all versions of dbt write it, a day or a year, and three numbers that can be
    a date. Rejects forms such as "5 January", which dateutil reads but dbt does not write.
    """
    if not isinstance(text, str):
        return True
    text = text.strip()
    iso = _ISO.fullmatch(text)
    if iso:
        date_and_time = " ".join(part for part in iso.groups() if part)
        return _is_accepted_by(datetime.fromisoformat, date_and_time)
    number = _NUMBER.fullmatch(text)
    if number:
        return int(number.group(1)) not in _UNREADABLE_NUMBERS
    numbers = _THREE_NUMBERS.fullmatch(text)
    return numbers is not None and _can_be_a_date([int(part) for part in numbers.groups()])


def _can_be_a_date(numbers: list[int]) -> bool:
    """Return whether three numbers can be a month, a day and a year, in any order."""
    months = sum(1 <= number <= 12 for number in numbers)
    days = sum(1 <= number <= 31 for number in numbers)
    return months >= 1 and days >= 2


def is_dbt_hook(text: object) -> bool:
    """Return whether dbt converts a string to a hook. Return True for other types.

    A hook is SQL, or a JSON object with `sql` and, optionally, an `index` that `int` accepts. dbt
    rejects other JSON.
    """
    if not isinstance(text, str):
        return True
    try:
        hook = json.loads(text)
    except (ValueError, RecursionError):
        return True
    if not isinstance(hook, dict) or "sql" not in hook:
        return False
    index = hook.get("index")
    if index is None:
        return True
    return isinstance(index, (int, float, str)) and _is_accepted_by(int, index)


def is_list_of_dbt_hooks(text: object) -> bool:
    """Return whether dbt reads a string in place of a list of hooks. Return True for other types.

    dbt converts each character to a hook.
    """
    return not isinstance(text, str) or all(is_dbt_hook(letter) for letter in set(text))


def _is_accepted_by(constructor: Callable[..., object], value: object) -> bool:
    try:
        constructor(value)
    except (ValueError, TypeError, OverflowError, AttributeError):
        return False
    return True


FORMATS: dict[str, Callable[[object], bool]] = {
    "python-int": is_python_int,
    "python-float": is_python_float,
    "python-uuid": is_python_uuid,
    "dateutil": is_dateutil_date,
    "dbt-hook": is_dbt_hook,
    "dbt-hook-letters": is_list_of_dbt_hooks,
}
