"""JSON splitting: first the top level as views into the bytes, then one entry at a time."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from datapilot_defer.dbt_json.diagnosis import (
    NotJsonError,
    describe_encoding,
    describe_non_object,
    reencode_with_python,
)
from datapilot_defer.dbt_json.limits import has_more_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec

    Raw: TypeAlias = msgspec.Raw

_CHUNK_BYTES = 1 << 20
_EDGE_BYTES = 64
_MAX_SECTIONS = 10_000
# The maximum number of entries in a section. The largest projects have a tenth of it.
_MAX_ENTRIES = 1_000_000
# The maximum number of values in an entry. The node of a table with 10,000 columns has a tenth of
# it.
_MAX_VALUES = 1_000_000
_MAX_KEY_LENGTH = 100
_NO_DBT = "more than dbt ever writes"


def split(content: bytes) -> Mapping[str, Raw]:
    """Return the top level of a JSON object: each key, with its value as a view into the bytes.

    Needs no memory beyond the keys, unless only dbt's parser can read the bytes. In that case, the
    views are into a converted copy. Raises NotJsonError if dbt's loader cannot read the bytes, or
    if they are not an object or have too many keys.
    """
    import msgspec

    _check_utf8(content)
    text = _strip_unicode_whitespace(content)
    try:
        return _decode_mapping(text, _MAX_SECTIONS)
    except RecursionError:
        raise NotJsonError("is nested too deeply for dbt's loader") from None
    except msgspec.ValidationError as error:
        raise NotJsonError(describe_non_object(error)) from None
    except msgspec.DecodeError as error:
        return _decode_mapping(reencode_with_python(content, error), _MAX_SECTIONS)


def decode(raw: Raw | bytes, place: str = "one value") -> Any:
    """Return one value as Python objects.

    place: a description of the value for error messages. Raises NotJsonError if the value cannot be
    read or contains too many values.
    """
    import msgspec

    _check_value_count(raw, place)
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # For values such as numbers beyond 64 bits, the parser that dbt uses decides.
        try:
            return json.loads(bytes(raw))
        except (ValueError, RecursionError) as error:
            raise NotJsonError(f"is not JSON that dbt can read: {error}") from None


def count(raw: Raw) -> int:
    """Return the number of entries in a mapping. Raises the same errors as `entries`."""
    return len(entries(raw))


def entries(raw: Raw) -> dict[str, Raw]:
    """Return the entries of a mapping, such as the manifest's nodes, as views into the bytes.

    Raises NotJsonError if it is not a valid mapping or has too many entries.
    """
    import msgspec

    try:
        return _decode_mapping(raw, _MAX_ENTRIES)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(str(error)) from None


def walk(raw: Raw, visit: Callable[[str, Any], None]) -> None:
    """Call `visit` with each key and value of a mapping, decoding one value at a time.

    Raises the same errors as `entries` and `visit`, and NotJsonError if a value cannot be decoded.
    """
    for key, value in entries(raw).items():
        visit(key, decode(value, f"entry {key[:_MAX_KEY_LENGTH]!r}"))


def walk_list(raw: Raw, visit: Callable[[int, Any], None]) -> None:
    """Call `visit` with each index and value of a list, decoding one value at a time.

    Raises NotJsonError if the list cannot be read, has too many items, or contains a value that
    cannot be decoded. Also raises the errors of `visit`.
    """
    import msgspec

    _check_item_count(raw)
    try:
        items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(str(error)) from None
    for index, item in enumerate(items):
        visit(index, decode(item, f"item {index}"))


def _check_item_count(raw: Raw) -> None:
    """Raise NotJsonError if a list has too many items."""
    import msgspec

    if memoryview(raw).nbytes <= _MAX_ENTRIES:
        return
    item_count = 0

    class Item(msgspec.Struct, gc=False):
        """A list item that is an object. Its properties are skipped."""

        def __post_init__(self) -> None:
            nonlocal item_count
            item_count += 1
            if item_count > _MAX_ENTRIES:
                raise _TooManyError

    try:
        msgspec.json.decode(raw, type=list[Item])
    except _TooManyError:
        raise NotJsonError(f"contains a list with over {_MAX_ENTRIES:,} items, {_NO_DBT}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Items that are not objects cannot be counted this way, so count all values.
        _check_value_count(raw, "one list")


def _check_value_count(raw: Raw | bytes, place: str) -> None:
    if memoryview(raw).nbytes > _MAX_VALUES and has_more_values(bytes(raw), _MAX_VALUES):
        raise NotJsonError(f"contains over {_MAX_VALUES:,} values in {place}, {_NO_DBT}")


class _TooManyError(Exception):
    pass


class _Key(str):
    __slots__ = ()


def _decode_mapping(content: Raw | bytes | memoryview, max_keys: int) -> dict[str, Raw]:
    """Return the entries of an object. Raises NotJsonError if it has more than `max_keys`."""
    import msgspec

    key_count = 0

    def hook(_: type, key: Any) -> _Key:
        nonlocal key_count
        key_count += 1
        if key_count > max_keys:
            raise _TooManyError
        return _Key(key)

    decoder = msgspec.json.Decoder(dict[_Key, msgspec.Raw], dec_hook=hook)
    try:
        return cast("dict[str, Raw]", decoder.decode(content))
    except _TooManyError:
        raise NotJsonError(f"contains an object with over {max_keys:,} keys, {_NO_DBT}") from None


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
    """Remove whitespace that `str.strip` removes but JSON does not allow, such as no-break spaces.

    Only the first and last _EDGE_BYTES bytes are searched.
    """
    head = content[:_EDGE_BYTES].decode("utf-8", "ignore")
    tail = content[-_EDGE_BYTES:].decode("utf-8", "ignore")
    leading = head[: len(head) - len(head.lstrip())]
    trailing = tail[len(tail.rstrip()) :]
    if not (leading + trailing).strip(" \t\r\n"):
        return content
    start = len(leading.encode())
    end = len(content) - len(trailing.encode())
    return memoryview(content)[start:end]
