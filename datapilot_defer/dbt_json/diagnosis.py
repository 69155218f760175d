"""Diagnosis of bytes that the fast parser rejects, and conversion of those that dbt's parser reads.

msgspec states the cause and its position only in the messages of its errors.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from contextlib import suppress

from datapilot_defer.dbt_json.limits import has_more_values

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BYTE = re.compile(r"\(byte (\d+)\)")
_CONFLICT_MARKERS = re.compile(rb"\s*<<<<<<< |.*?\n<<<<<<< ", re.DOTALL)
_CONFLICT_SEARCH_BYTES = 4096
_NON_FINITE_NUMBERS = (b"NaN", b"Infinity")
_CONTEXT_BYTES = 24
# The maximum number of values in a file that is decoded in one step.
_MAX_VALUES = 5_000_000
_TYPE_NAMES = {"array": "a list", "str": "a string", "int": "a number", "float": "a number"}


class NotJsonError(ValueError):
    """An error for JSON that dbt's loader cannot read or that exceeds a limit.

    The message describes the cause and, for a syntax error, its position.
    """


def describe_encoding(content: bytes) -> str:
    """Describe bytes that are not UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16, but dbt uses UTF-8. PowerShell's > writes UTF-16. Copy the file instead"
    return "is not UTF-8 text, the encoding of dbt's files"


def describe_non_object(error: Exception) -> str:
    """Describe JSON that is not an object, based on msgspec's message."""
    description = "something else"
    match = re.search(r"got `(\w+)`", str(error))
    if match:
        type_name = match.group(1)
        description = _TYPE_NAMES.get(type_name, type_name)
    return f"contains {description}, but an artifact of dbt is an object"


def reencode_with_python(content: bytes, error: Exception) -> bytes:
    """Convert an object that only dbt's parser can read to JSON that the fast parser can read.

    NaN, infinities and unpaired surrogates are replaced. error: the fast parser's error. Raises
    NotJsonError if dbt's parser cannot read the bytes as an object either, or if they contain too
    many values.
    """
    if _may_be_python_only_json(content, error):
        if has_more_values(content, _MAX_VALUES):
            raise NotJsonError(
                f"contains over {_MAX_VALUES:,} values, and NaN, infinities or half a "
                "surrogate pair"
            )
        with suppress(ValueError, RecursionError):
            document = json.loads(
                content.decode().strip(),
                parse_constant=_replace_non_finite,
                parse_float=_replace_non_finite,
            )
            if isinstance(document, dict):
                return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
    raise NotJsonError(_diagnose(content, error))


def _replace_non_finite(text: str) -> float:
    """Return the number, or another float in place of NaN and infinities."""
    number = float(text)
    if math.isfinite(number):
        return number
    return 0.5


def _may_be_python_only_json(content: bytes, error: Exception) -> bool:
    offset = _find_offset(error)
    if offset is not None and content[offset : offset + 8].startswith(_NON_FINITE_NUMBERS):
        return True
    return bool(_LONE_SURROGATE.search(content))


def _find_offset(error: Exception) -> int | None:
    match = _BYTE.search(str(error))
    if match is None:
        return None
    return int(match.group(1))


def _diagnose(content: bytes, error: Exception) -> str:
    """Describe why bytes are not JSON, as the rest of a sentence that begins with "the file"."""
    if not content:
        return "is empty"
    if not content.strip():
        return "contains only white space"
    if content.startswith(codecs.BOM_UTF8):
        return (
            "begins with a byte order mark, which dbt's loader rejects. Save it as UTF-8 "
            "without BOM"
        )
    if _CONFLICT_MARKERS.match(content[:_CONFLICT_SEARCH_BYTES]):
        return (
            "contains merge conflict markers of git (<<<<<<<). Resolve the conflict, or "
            "use dbt's own file"
        )
    offset = _find_offset(error)
    if offset is None or "truncated" in str(error):
        return (
            f"ends after {len(content):,} bytes, before the JSON is complete. It was "
            "not written or copied completely"
        )
    return _describe_location(content, offset, str(error))


def _describe_location(content: bytes, offset: int, error: str) -> str:
    has_trailing_characters = "trailing characters" in error
    if has_trailing_characters or content[offset - 1 : offset] in (b"t", b"f", b"n"):
        offset -= 1  # the parser has already read the next character
    line = content.count(b"\n", 0, offset) + 1
    column = offset - content.rfind(b"\n", 0, offset)
    reason = error.removeprefix("JSON is malformed: ").split(" (byte")[0]
    description = f"is not JSON: {reason} at line {line}, column {column}"
    context = content[offset : offset + _CONTEXT_BYTES].decode("utf-8", "replace").split("\n")[0]
    if context:
        description += f", before {context!r}"
    return description
