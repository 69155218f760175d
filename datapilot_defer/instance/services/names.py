"""Rules for the names of integrations, environments and tokens."""

from __future__ import annotations

import unicodedata

from datapilot_defer.errors import UsageError

MAX_NAME_LENGTH = 200
MAX_ENVIRONMENT_LENGTH = 64
# Characters that Python considers printable but that are invisible: Unicode's
# Default_Ignorable_Code_Point (variation selectors, fillers, the joiner U+034F), the empty Braille
# pattern and the null notehead.
_INVISIBLE_RANGES = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0x1D159, 0x1D159),
    (0xE0100, 0xE01EF),
)


def validate_name(text: str, kind: str, max_length: int) -> str:
    """Return a name in the Unicode normalization form NFKC, without surrounding whitespace.

    kind: the kind of object that the error message names. Raises UsageError when the name is empty
    or too long, or contains characters that are invisible or cannot be printed.
    """
    name = unicodedata.normalize("NFKC", text.strip()).strip()
    if not 1 <= len(name) <= max_length:
        raise UsageError(f"invalid {kind} name: use 1 to {max_length} characters.")
    for character in name:
        if _is_invisible(character):
            raise UsageError(
                f"invalid {kind} name: it contains U+{ord(character):04X}, which is invisible or "
                "cannot be printed. Remove that character."
            )
    return name


def validate_environment_name(text: str) -> str:
    """Return the name of an environment as `validate_name` does.

    Also raises UsageError when the name cannot be part of a URL path.
    """
    name = validate_name(text, "environment", MAX_ENVIRONMENT_LENGTH)
    if "/" in name or "\\" in name or name in (".", ".."):
        raise UsageError(
            "invalid environment name: it must be valid in a URL path. Use a name without slashes "
            "and backslashes, other than '.' and '..'."
        )
    return name


def _is_invisible(character: str) -> bool:
    if not character.isprintable():
        return True
    number = ord(character)
    return any(first <= number <= last for first, last in _INVISIBLE_RANGES)
