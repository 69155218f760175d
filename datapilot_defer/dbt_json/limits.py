"""Limits for decoding JSON: Python needs up to a hundred times its size for small values."""

from __future__ import annotations

import re

# The quantifiers are possessive. Others would need memory for each escaped character.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_VALUE_STARTS = (b",", b"[", b"{")


def has_more_values(content: bytes, max_values: int) -> bool:
    """Return whether JSON contains more values than this. Stops at the first one beyond.

    Commas and brackets in strings, such as those of SQL, do not count.
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
