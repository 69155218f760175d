"""What is wrong with bytes that the fast parser refuses, and whether dbt's parser would read them after all."""

from __future__ import annotations

import codecs
import json
import math
import re
from contextlib import suppress

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BYTE = re.compile(r"\(byte (\d+)\)")


class NotJsonError(ValueError):
    """The bytes are not what dbt's loader can read; `str()` of it says why, and where."""


def describe_encoding(content: bytes) -> str:
    """Says of bytes that are not UTF-8 what they are."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16; dbt writes and reads UTF-8 (PowerShell's > does this: copy the file instead)"
    return "is not UTF-8 text; dbt writes and reads nothing else"


def describe_non_object(error: Exception) -> str:
    """Says what JSON holds instead of an object, from msgspec's message."""
    found = re.search(r"got `(\w+)`", str(error))
    kind = {"array": "a list", "str": "a string", "int": "a number", "float": "a number"}
    what = kind.get(found.group(1), found.group(1)) if found else "something else"
    return f"holds {what} where an artifact of dbt is an object"


def reencode_with_python(content: bytes, error: Exception) -> bytes:
    """The same object rewritten for the fast parser, when dbt's parser would read it after all."""
    if _may_be_python_only_json(content, error):
        with suppress(ValueError, RecursionError):
            found = json.loads(
                content.decode().strip(),
                parse_constant=_replace_non_finite,
                parse_float=_replace_non_finite,
            )
            if isinstance(found, dict):
                return json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
    raise NotJsonError(_diagnose(content, error))


def _replace_non_finite(text: str) -> float:
    """What JSON proper can hold: another number for NaN and infinities, of the same type to every schema."""
    found = float(text)
    return found if math.isfinite(found) else 0.5


def _may_be_python_only_json(content: bytes, error: Exception) -> bool:
    at = _BYTE.search(str(error))
    if at and content[int(at.group(1)) :][:8].startswith((b"NaN", b"Infinity")):
        return True
    return bool(_LONE_SURROGATE.search(content))


def _diagnose(content: bytes, error: Exception) -> str:
    """In words, after "the file "."""
    if not content.strip():
        return "is empty" if not content else "is empty but for white space"
    if content.startswith(codecs.BOM_UTF8):
        return "begins with a byte order mark, which dbt's loader refuses: save it as UTF-8 without BOM"
    if re.match(rb"\s*<<<<<<< |.*?\n<<<<<<< ", content[:4096], re.DOTALL):
        return "holds git's merge conflict markers (<<<<<<<): solve the conflict, or take dbt's own file"
    at = _BYTE.search(str(error))
    if "truncated" in str(error) or not at:
        return f"breaks off after {len(content):,} bytes: it was not written or copied whole"
    return _describe_location(content, int(at.group(1)), str(error))


def _describe_location(content: bytes, offset: int, error: str) -> str:
    if "trailing characters" in error or content[offset - 1 : offset] in (b"t", b"f", b"n"):
        offset -= 1  # the parser had read on
    line = content.count(b"\n", 0, offset) + 1
    column = offset - content.rfind(b"\n", 0, offset)
    near = content[offset : offset + 24].decode("utf-8", "replace").split("\n")[0]
    reason = error.removeprefix("JSON is malformed: ").split(" (byte")[0]
    return f"is not JSON: {reason} at line {line}, column {column}" + (
        f", before {near!r}" if near else ""
    )
