"""JSON as dbt's own loader reads it, but entry by entry and without building the whole.

dbt decodes a file as UTF-8, strips white space and calls `json.loads`. So a byte order mark, UTF-16,
control characters and trailing commas are refused; of a repeated key the last one counts; NaN, infinities
and half a surrogate pair are read.
Source: `load_file_contents` and `read_json` in dbt-common 1.x.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import msgspec

    Raw: TypeAlias = msgspec.Raw

_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_BYTE = re.compile(r"\(byte (\d+)\)")
_CHUNK = 1 << 20
_ENDS = 64


class NotJsonError(ValueError):
    """The bytes are not what dbt's loader can read; `str()` of it says why, and where."""


def split(content: bytes) -> dict[str, Raw]:
    """The top level of an object: each key with its value as a view on the same bytes.

    Costs one pass over the bytes and no memory beyond the keys. Raises NotJsonError.
    """
    import msgspec

    _check_utf8(content)
    text = _stripped(content)
    try:
        return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except RecursionError:
        raise NotJsonError("is nested too deeply: dbt's loader gives up on it, and no dbt wrote it") from None
    except msgspec.ValidationError as error:
        raise NotJsonError(_not_an_object(content, error)) from None
    except msgspec.DecodeError as error:
        return msgspec.json.decode(_as_python_reads_it(content, error), type=dict[str, msgspec.Raw])


def decode(raw: Raw | bytes) -> Any:
    """One value, as Python objects. Raises NotJsonError."""
    import msgspec

    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Numbers beyond 64 bits and the like: the arbiter is the parser that dbt uses.
        try:
            return json.loads(bytes(raw))
        except (ValueError, RecursionError) as error:
            raise NotJsonError(f"is not JSON that dbt can read: {error}") from None


def entries(raw: Raw) -> dict[str, Raw]:
    """The entries of one mapping, such as the manifest's nodes. Raises NotJsonError, also when it is not a mapping."""
    import msgspec

    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(str(error)) from None


def walk(raw: Raw, visit: Callable[[str, Any], None]) -> None:
    """Call `visit` with each key and value of one mapping, holding one value at a time.

    A repeated key is visited again: the last visit counts. Raises NotJsonError, also when it is not a mapping,
    and whatever `visit` raises.
    """
    import msgspec

    key = ""

    def hook(kind: type, found: Any) -> Any:
        nonlocal key
        if kind is _Key:
            key = found
            return _KEY
        visit(key, found)
        return _VALUE

    try:
        # Every key decodes to the same object: the mapping that comes out never has more than one entry.
        msgspec.json.decode(raw, type=dict[_Key, _Value], dec_hook=hook)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for name, value in entries(raw).items():
            visit(name, decode(value))


def walk_list(raw: Raw, visit: Callable[[int, Any], None]) -> None:
    """Call `visit` with each index and value of one list, holding one value at a time. Raises NotJsonError."""
    import msgspec

    number = -1

    def hook(_: type, found: Any) -> Any:
        nonlocal number
        number += 1
        visit(number, found)
        return _VALUE

    try:
        msgspec.json.decode(raw, type=list[_Value], dec_hook=hook)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for at, value in enumerate(decode(raw)):
            visit(at, value)


class _Key:
    pass


class _Value:
    pass


_KEY, _VALUE = _Key(), _Value()


def _check_utf8(content: bytes) -> None:
    if content.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(content)
    for start in range(0, len(content), _CHUNK):
        try:
            decoder.decode(view[start : start + _CHUNK], final=start + _CHUNK >= len(content))
        except UnicodeDecodeError:
            raise NotJsonError(_encoding(content)) from None


def _encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16; dbt writes and reads UTF-8 (PowerShell's > does this: copy the file instead)"
    return "is not UTF-8 text; dbt writes and reads nothing else"


def _stripped(content: bytes) -> bytes | memoryview:
    """Without the white space that `str.strip` takes off and JSON does not know, such as a no-break space."""
    head = content[:_ENDS].decode("utf-8", "ignore")
    tail = content[-_ENDS:].decode("utf-8", "ignore")
    lead = head[: len(head) - len(head.lstrip())]
    trail = tail[len(tail.rstrip()) :]
    if not (lead + trail).strip(" \t\r\n"):
        return content
    return memoryview(content)[len(lead.encode()) : len(content) - len(trail.encode())]


def _not_an_object(content: bytes, error: Exception) -> str:
    found = re.search(r"got `(\w+)`", str(error))
    kind = {"array": "a list", "str": "a string", "int": "a number", "float": "a number"}
    what = kind.get(found.group(1), found.group(1)) if found else "something else"
    return f"holds {what} where an artifact of dbt is an object"


def _as_python_reads_it(content: bytes, error: Exception) -> bytes:
    """The same object rewritten for the fast parser, when dbt's parser would read it after all."""
    if _python_may_read_it(content, error):
        try:
            found = json.loads(content.decode().strip(), parse_constant=lambda _: 0.5)
            return json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            pass
    raise NotJsonError(_what_is_wrong(content, error))


def _python_may_read_it(content: bytes, error: Exception) -> bool:
    at = _BYTE.search(str(error))
    if at and content[int(at.group(1)) :][:8].startswith((b"NaN", b"Infinity")):
        return True
    return bool(_LONE_SURROGATE.search(content))


def _what_is_wrong(content: bytes, error: Exception) -> str:
    if not content.strip():
        return "is empty" if not content else "is empty but for white space"
    if content.startswith(codecs.BOM_UTF8):
        return "begins with a byte order mark, which dbt's loader refuses: save it as UTF-8 without BOM"
    if re.match(rb"\s*<<<<<<< |.*?\n<<<<<<< ", content[:4096], re.DOTALL):
        return "holds git's merge conflict markers (<<<<<<<): solve the conflict, or take dbt's own file"
    at = _BYTE.search(str(error))
    if "truncated" in str(error) or not at:
        return f"breaks off after {len(content):,} bytes: it was not written or copied whole"
    return _where(content, int(at.group(1)), str(error))


def _where(content: bytes, offset: int, error: str) -> str:
    line = content.count(b"\n", 0, offset) + 1
    column = offset - content.rfind(b"\n", 0, offset)
    near = content[offset : offset + 24].decode("utf-8", "replace").split("\n")[0]
    reason = error.removeprefix("JSON is malformed: ").split(" (byte")[0]
    return f"is not JSON: {reason} at line {line}, column {column}" + (f", before {near!r}" if near else "")
