"""Formatting of text: control characters, plurals, durations, sizes and timestamps."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Characters that control a terminal, separate lines for some log readers, or reorder text.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028\u2029\u202a-\u202e\u2066-\u2069"
_MESSAGE_CONTROLS = re.compile(f"[{_CONTROLS}]")
_LINE_CONTROLS = re.compile(rf"[\t\n{_CONTROLS}]")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_DURATION_UNITS = (("d", 86400), ("h", 3600), ("min", 60))
_AGE_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))
_SIZE_UNITS = (("MB", 1_000_000), ("kB", 1_000))


def escape_controls(text: str) -> str:
    """Replace the control characters in a message, except tabs and newlines."""
    return _MESSAGE_CONTROLS.sub(REPLACEMENT, text)


def as_one_line(text: str) -> str:
    """Replace the control characters in text from outside, including tabs and line breaks.

    Other characters are kept, so that a name can still be found.
    """
    return _LINE_CONTROLS.sub(REPLACEMENT, text)


def map_strings(value: object, change: Callable[[str], str]) -> object:
    """Return a JSON value with `change` applied to each string in it, including keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_strings(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): map_strings(item, change) for key, item in value.items()}
    return value


def replace_unprintable(text: str, replacement: str = REPLACEMENT) -> str:
    """Replace each character that cannot be printed in one line, including line breaks and tabs."""
    characters = list(text)
    for index, character in enumerate(characters):
        if not character.isprintable():
            characters[index] = replacement
    return "".join(characters)


def to_single_line(text: str, max_length: int) -> str:
    """Return text from outside as one line of at most `max_length` characters."""
    words = replace_unprintable(text, " ").split()
    return " ".join(words)[:max_length]


def plural(count: int, singular: str, plural_form: str | None = None) -> str:
    """Return a count with its noun, such as "1 model" or "1,234 models"."""
    if count == 1:
        return f"1 {singular}"
    noun = plural_form or f"{singular}s"
    return f"{count:,} {noun}"


def format_duration(seconds: float) -> str:
    """Return a duration in the largest suitable unit, such as "45 s", "3 min" or "36 h".

    A unit is suitable if the duration is a multiple of it, or at least twice as long.
    """
    for unit, length in _DURATION_UNITS:
        is_exact = seconds >= length and seconds % length == 0
        if is_exact or seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def format_time_ago(moment: datetime) -> str:
    """Return the time since a moment in its largest unit: "3 days ago", "just now"."""
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    for unit, length in _AGE_UNITS:
        if seconds >= length:
            return f"{plural(seconds // length, unit)} ago"
    return "just now"


def format_size(size_bytes: int) -> str:
    """Return a size in decimal units: "12.3 MB", "4.5 kB", "999 B"."""
    for unit, length in _SIZE_UNITS:
        if size_bytes >= length:
            return f"{size_bytes / length:,.1f} {unit}"
    return f"{size_bytes} B"


def format_timestamp(moment: datetime) -> str:
    """Return a moment, which must be in UTC, to the minute: "2026-11-24 12:30 UTC"."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def strip_fraction(timestamp: str) -> str:
    """Return an ISO timestamp without the fraction of its seconds."""
    return re.sub(r"\.\d+", "", timestamp)


def utc_timestamp(timestamp: str | None) -> str | None:
    """Convert an ISO timestamp to UTC for a JSON result. Return None for any other text.

    A missing time zone means UTC.
    """
    try:
        moment = datetime.fromisoformat(timestamp or "")
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return None
