"""A limit on the number of values in JSON.

Python objects for small values need up to a hundred times the memory of their JSON.
"""

from __future__ import annotations

import re

# The quantifiers are possessive, because others would need memory for each escaped character.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_VALUE_STARTS = (b",", b"[", b"{")


def has_more_values(content: bytes, max_values: int) -> bool:
    """Return whether JSON contains more than about `max_values` values.

    Counts commas and opening brackets outside strings, because strings such as SQL may contain them
    too. Once the limit is exceeded, counting stops at the end of the next string.
    """
    value_count = 0
    end = 0
    for match in _STRING.finditer(content):
        value_count += _count_value_starts(content[end : match.start()])
        end = match.end()
        if value_count > max_values:
            return True
    return value_count + _count_value_starts(content[end:]) > max_values


def _count_value_starts(content: bytes) -> int:
    return sum(content.count(character) for character in _VALUE_STARTS)
