"""JSON with comments, as VS Code reads it, and edits that change no byte but those of the value.

Comments, trailing commas, a byte order mark and any line ending survive. Of a repeated key the last one counts,
as in VS Code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

_WHITESPACE_AND_COMMENTS = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\r\n]*|/\*.*?\*/)+", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_COMMENT_ON_LINE = re.compile(r"[ \t]*(?://[^\r\n]*|/\*[^\r\n]*?\*/)")
_LITERAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")


class NotJsoncError(ValueError):
    """The text is not JSON with comments; `str()` of it says where and why."""


@dataclass(frozen=True)
class JsoncValue:
    """One value and where it stands: `text[start:end]`. members: of an object, in order, repeated keys included."""

    start: int
    end: int
    value: object
    members: tuple[JsoncMember, ...] | None = None

    def member(self, key: str) -> JsoncMember | None:
        """The member that counts for this key."""
        return next((member for member in reversed(self.members or ()) if member.key == key), None)


@dataclass(frozen=True)
class JsoncMember:
    """`"key": value` of an object; `start` is that of the key."""

    key: str
    start: int
    node: JsoncValue


def parse(text: str) -> JsoncValue:
    """Read a whole text. One of white space and comments only is an empty object that begins at its end.

    Raises NotJsoncError.
    """
    at = _skip_whitespace(text, 0)
    if at == len(text):
        return JsoncValue(at, at, {}, ())
    try:
        node = _value(text, at)
    except RecursionError:
        raise NotJsoncError("is nested too deeply") from None
    rest = _skip_whitespace(text, node.end)
    if rest != len(text):
        raise _syntax_error(text, rest, "something follows the end of the value")
    return node


def set_value(text: str, path: Sequence[str], value: object) -> str:
    """Give the text with the value at `path` set, objects on the way made; all other bytes stay.

    Raises NotJsoncError when the text can't be parsed, or something on the way is not an object.
    """
    node = parse(text)
    if node.start == node.end:
        return _insert_into_empty(text, path, value)
    for depth, key in enumerate(path):
        if node.members is None:
            name = ".".join(path[:depth])
            raise _syntax_error(text, node.start, f"{name or 'the whole'} is not an object")
        member = node.member(key)
        if member is None:
            return _insert_member(text, node, key, _wrap_in_objects(path[depth + 1 :], value))
        node = member.node
    if node.value == value and type(node.value) is type(value):
        return text
    return text[: node.start] + _serialize_at(text, node.start, value) + text[node.end :]


def _wrap_in_objects(path: Sequence[str], value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


def _insert_into_empty(text: str, path: Sequence[str], value: object) -> str:
    """A text without any value gets one, below its comments."""
    gap = "" if not text.strip("\ufeff") or text.endswith("\n") else _newline(text)
    return text + gap + _serialize_at(text, 0, _wrap_in_objects(path, value)) + _newline(text)


def _insert_member(text: str, parent: JsoncValue, key: str, value: object) -> str:
    """Add a member behind the last one, in the manner of the others."""
    newline, unit = _newline(text), _indent_unit(text)
    last = parent.members[-1] if parent.members else None
    inner = (
        _indentation_at(text, last.start) if last else _indentation_at(text, parent.start) + unit
    )
    body = f"{json.dumps(key, ensure_ascii=False)}: {_dump_indented(value, inner, unit, newline)}"
    if last is None:
        comments = text[parent.start + 1 : parent.end - 1].rstrip()
        outer = inner.removesuffix(unit)
        return f"{text[: parent.start + 1]}{comments}{newline}{inner}{body}{newline}{outer}}}{text[parent.end :]}"
    comma = _skip_whitespace(text, last.node.end)
    trailing = text[comma] == ","  # a habit to be kept
    behind = comma + 1 if trailing else last.node.end
    at = _end_of_trailing_comment(text, behind)
    head = text[:at] if trailing else f"{text[:behind]},{text[behind:at]}"
    alone = not text[text.rfind("\n", 0, last.start) + 1 : last.start].strip(" \t\ufeff")
    gap = newline + inner if alone or "//" in text[behind:at] else " "
    return head + gap + body + ("," if trailing else "") + text[at:]


def _end_of_trailing_comment(text: str, at: int) -> int:
    """The end of a comment on the same line, which belongs to what stands before it."""
    found = _COMMENT_ON_LINE.match(text, at)
    return found.end() if found else at


def _serialize_at(text: str, at: int, value: object) -> str:
    return _dump_indented(value, _indentation_at(text, at), _indent_unit(text), _newline(text))


def _dump_indented(value: object, margin: str, unit: str, newline: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return (newline + margin).join(lines)


def _indentation_at(text: str, at: int) -> str:
    """The white space that the line of this position begins with."""
    line = text[text.rfind("\n", 0, at) + 1 : at].lstrip("\ufeff")
    return line[: len(line) - len(line.lstrip(" \t"))]


def _indent_unit(text: str) -> str:
    """One step of indentation: that of the first indented line, else VS Code's default of four blanks."""
    found = re.search(r"^([ \t]+)\"", text, re.MULTILINE)
    return found.group(1) if found else "    "


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _skip_whitespace(text: str, at: int) -> int:
    """The next position that is neither white space nor comment."""
    found = _WHITESPACE_AND_COMMENTS.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int) -> JsoncValue:
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at)
    if first == "[":
        return _array(text, at)
    found = (_STRING if first == '"' else _LITERAL).match(text, at)
    if found is None:
        raise _syntax_error(text, at, "a value is expected")
    try:
        return JsoncValue(at, found.end(), json.loads(found.group()))
    except ValueError as error:
        raise _syntax_error(text, at, str(error).split(":")[0]) from None


def _object(text: str, start: int) -> JsoncValue:
    members: list[JsoncMember] = []
    at = _skip_whitespace(text, start + 1)
    while text[at : at + 1] != "}":
        found = _STRING.match(text, at)
        if found is None:
            raise _syntax_error(text, at, 'a key in quotes or "}" is expected')
        colon = _skip_whitespace(text, found.end())
        if text[colon : colon + 1] != ":":
            raise _syntax_error(text, colon, '":" is expected')
        node = _value(text, _skip_whitespace(text, colon + 1))
        members.append(JsoncMember(str(json.loads(found.group())), at, node))
        at = _skip_separator(text, node.end, "}")
    return JsoncValue(
        start, at + 1, {member.key: member.node.value for member in members}, tuple(members)
    )


def _array(text: str, start: int) -> JsoncValue:
    values: list[object] = []
    at = _skip_whitespace(text, start + 1)
    while text[at : at + 1] != "]":
        node = _value(text, at)
        values.append(node.value)
        at = _skip_separator(text, node.end, "]")
    return JsoncValue(start, at + 1, values)


def _skip_separator(text: str, at: int, closing: str) -> int:
    """Behind the comma, or at the closing bracket."""
    at = _skip_whitespace(text, at)
    if text[at : at + 1] == ",":
        return _skip_whitespace(text, at + 1)
    if text[at : at + 1] == closing:
        return at
    raise _syntax_error(text, at, f'"," or "{closing}" is expected')


def _syntax_error(text: str, at: int, reason: str) -> NotJsoncError:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return NotJsoncError(f"line {line}, column {column}: {reason}")
