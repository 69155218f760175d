"""Splitting of JSON: the top level as views on the bytes, then one entry at a time."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, Any, TypeAlias

from datapilot_defer.dbt_json.diagnosis import (
    NotJsonError,
    describe_encoding,
    describe_non_object,
    reencode_with_python,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec

    Raw: TypeAlias = msgspec.Raw

_CHUNK_BYTES = 1 << 20
_EDGE_BYTES = 64
_MAX_SECTIONS = 10_000


def split(content: bytes) -> Mapping[str, Raw]:
    """Return the top level of an object: each key with its value as a view on the same bytes.

    Costs one pass over the bytes and no memory beyond the keys. Raises NotJsonError.
    """
    import msgspec

    _check_utf8(content)
    text = _strip_unicode_whitespace(content)
    try:
        return _top_level(text)
    except RecursionError:
        raise NotJsonError(
            "is nested too deeply: dbt's loader gives up on it, and no dbt wrote it"
        ) from None
    except _TooManyKeysError:
        raise NotJsonError(
            f"is an object with over {_MAX_SECTIONS:,} keys; an artifact of dbt has about 20"
        ) from None
    except msgspec.ValidationError as error:
        raise NotJsonError(describe_non_object(error)) from None
    except msgspec.DecodeError as error:
        return _top_level(reencode_with_python(content, error))


def _top_level(text: bytes | memoryview) -> Mapping[str, Raw]:
    import msgspec

    sections: Mapping[str, Raw] = msgspec.json.decode(
        text, type=dict[_Section, msgspec.Raw], dec_hook=_section_name_hook()
    )
    return sections


def decode(raw: Raw | bytes) -> Any:
    """Return one value as Python objects. Raises NotJsonError."""
    import msgspec

    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Such as numbers beyond 64 bits: the parser that dbt uses decides.
        try:
            return json.loads(bytes(raw))
        except (ValueError, RecursionError) as error:
            raise NotJsonError(f"is not JSON that dbt can read: {error}") from None


def count(raw: Raw) -> int:
    """Return the number of entries of a mapping, without keeping them.

    Raises NotJsonError, also when it is not a mapping.
    """
    import msgspec

    entry_count = 0

    def hook(_: type, __: Any) -> Any:
        nonlocal entry_count
        entry_count += 1
        return _KEY

    try:
        msgspec.json.decode(raw, type=dict[_Key, msgspec.Raw], dec_hook=hook)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(str(error)) from None
    return entry_count


def entries(raw: Raw) -> dict[str, Raw]:
    """Return the entries of one mapping, such as the manifest's nodes.

    Raises NotJsonError, also when it is not a mapping.
    """
    import msgspec

    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(str(error)) from None


def walk(raw: Raw, visit: Callable[[str, Any], None]) -> None:
    """Call `visit` with each key and value of one mapping, holding one value at a time.

    A repeated key is visited again: the last visit counts. Raises NotJsonError, also when it is
    not a mapping, and all that `visit` raises.
    """
    import msgspec

    key = ""

    def hook(decoded_type: type, decoded: Any) -> Any:
        nonlocal key
        if decoded_type is _Key:
            key = decoded
            return _KEY
        visit(key, decoded)
        return _VALUE

    try:
        # Each key decodes to the same object, so that the result never has more than one entry.
        msgspec.json.decode(raw, type=dict[_Key, _Value], dec_hook=hook)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for name, value in entries(raw).items():
            visit(name, decode(value))


def walk_list(raw: Raw, visit: Callable[[int, Any], None]) -> None:
    """Call `visit` with each index and value of one list, holding one value at a time.

    Raises NotJsonError, and all that `visit` raises.
    """
    import msgspec

    index = -1

    def hook(_: type, decoded: Any) -> Any:
        nonlocal index
        index += 1
        visit(index, decoded)
        return _VALUE

    try:
        msgspec.json.decode(raw, type=list[_Value], dec_hook=hook)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        for position, value in enumerate(decode(raw)):
            visit(position, value)


class _TooManyKeysError(Exception):
    pass


class _Section(str):
    __slots__ = ()


def _section_name_hook() -> Callable[[type, Any], _Section]:
    """Return a hook that counts the keys, and stops at more than an artifact can have."""
    key_count = 0

    def hook(_: type, key: Any) -> _Section:
        nonlocal key_count
        key_count += 1
        if key_count > _MAX_SECTIONS:
            raise _TooManyKeysError
        return _Section(key)

    return hook


class _Key:
    pass


class _Value:
    pass


_KEY = _Key()
_VALUE = _Value()


def _check_utf8(content: bytes) -> None:
    if content.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(content)
    for start in range(0, len(content), _CHUNK_BYTES):
        end = start + _CHUNK_BYTES
        try:
            decoder.decode(view[start:end], final=end >= len(content))
        except UnicodeDecodeError:
            raise NotJsonError(describe_encoding(content)) from None


def _strip_unicode_whitespace(content: bytes) -> bytes | memoryview:
    """Remove the whitespace that `str.strip` removes and JSON does not allow: no-break spaces."""
    head = content[:_EDGE_BYTES].decode("utf-8", "ignore")
    tail = content[-_EDGE_BYTES:].decode("utf-8", "ignore")
    leading = head[: len(head) - len(head.lstrip())]
    trailing = tail[len(tail.rstrip()) :]
    if not (leading + trailing).strip(" \t\r\n"):
        return content
    start = len(leading.encode())
    end = len(content) - len(trailing.encode())
    return memoryview(content)[start:end]
