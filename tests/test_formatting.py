"""Formatting of counts, durations, sizes and untrusted text."""

from datetime import UTC, datetime, timedelta

import pytest

from datapilot_defer import formatting


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 models"), (1, "1 model"), (2, "2 models"), (1234, "1,234 models")],
)
def test_plural_matches_count(count: int, expected: str) -> None:
    assert formatting.plural(count, "model") == expected


def test_plural_accepts_irregular_form() -> None:
    assert formatting.plural(2, "entry", "entries") == "2 entries"
    assert formatting.plural(1, "entry", "entries") == "1 entry"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(45, "45 s"), (60, "1 min"), (90, "90 s"), (180, "3 min"), (3600, "1 h"), (432_000, "5 d")],
)
def test_duration_uses_largest_unit(seconds: float, expected: str) -> None:
    assert formatting.format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7200, "2 hours ago")],
)
def test_time_ago_uses_largest_unit(seconds: int, expected: str) -> None:
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    assert formatting.format_time_ago(moment) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(999, "999 B"), (4_500, "4.5 kB"), (12_300_000, "12.3 MB")]
)
def test_size_uses_decimal_units(size: int, expected: str) -> None:
    assert formatting.format_size(size) == expected


def test_control_characters_are_replaced() -> None:
    assert formatting.escape_controls("a\x1b[31m\tb\nc\x9b") == "a\ufffd[31m\tb\nc\ufffd"
    assert formatting.replace_unprintable("a\nb\u202ec") == "a\ufffdb\ufffdc"
    assert formatting.to_single_line("  a\r\n\tb \x07 c", max_length=4) == "a b "


def test_as_one_line_replaces_only_line_breaks_and_controls() -> None:
    assert formatting.as_one_line("a\n\tb\u2028c\u202ed  é\u00a0") == (
        "a\ufffd\ufffdb\ufffdc\ufffdd  é\u00a0"
    )


def test_map_strings_changes_only_strings() -> None:
    value = {"a": ["b", {"c": None}], "d": 1.5, "e": True}
    changed = {"A": ["B", {"C": None}], "D": 1.5, "E": True}
    assert formatting.map_strings(value, str.upper) == changed
