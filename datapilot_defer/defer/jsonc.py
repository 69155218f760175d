"""JSON with comments, as VS Code reads it, and edits that change no other byte of the text.

Comments, trailing commas, a byte order mark and every line ending are preserved. The last
occurrence of a repeated key takes effect, as in VS Code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_WHITESPACE_AND_COMMENTS = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\r\n]*|/\*.*?\*/)+", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\.)*+"')
_COMMENT_ON_LINE = re.compile(r"[ \t]*(?://[^\r\n]*|/\*[^\r\n]*?\*/)")
_LITERAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")
_DEFAULT_INDENT = "    "  # VS Code's default


class NotJsoncError(ValueError):
    """Text that is not JSON with comments. The message states the cause and any known position."""


@dataclass(frozen=True)
class JsoncValue:
    """One value and its position, `text[start:end]`.

    members: those of an object, in order, including repeated keys; None for any other value.
    """

    start: int
    end: int
    value: object
    members: tuple[JsoncMember, ...] | None = None

    def member(self, key: str) -> JsoncMember | None:
        """Return the last member with this key, which takes effect; None if there is none."""
        return next((member for member in reversed(self.members or ()) if member.key == key), None)


@dataclass(frozen=True)
class JsoncMember:
    """A pair `"key": value` of an object. start: the position of the key."""

    key: str
    start: int
    node: JsoncValue


def parse(text: str) -> JsoncValue:
    """Parse a text. Treat a text without a value as an empty object. Raises NotJsoncError."""
    start = _skip_whitespace(text, 0)
    if start == len(text):
        return JsoncValue(start, start, {}, ())
    try:
        root = _parse_value(text, start)
    except RecursionError:
        raise NotJsoncError("is nested too deeply") from None
    rest = _skip_whitespace(text, root.end)
    if rest != len(text):
        raise _syntax_error(text, rest, "there is text after the end of the value")
    return root


def set_members(
    text: str, root: JsoncValue, path: Sequence[str], values: Mapping[str, object]
) -> str:
    """Return the text with these members set in the object at `path`.

    All other bytes are preserved. root: the parsed text. Missing objects on the path are created.
    Raises NotJsoncError if a value on the path is not an object.
    """
    if root.start == root.end:
        return _insert_into_empty(text, _wrap_in_objects(path, values))
    parent = root
    for depth, key in enumerate(path):
        _check_object(text, parent, path[:depth])
        member = parent.member(key)
        if member is None:
            missing = {key: _wrap_in_objects(path[depth + 1 :], values)}
            return _insert_members(text, parent, missing)
        parent = member.node
    _check_object(text, parent, path)
    return _update_members(text, parent, values)


def remove_member(text: str, root: JsoncValue, path: Sequence[str]) -> str:
    """Return the text without the member at `path`, which must exist, and without its comment."""
    parent = root
    for key in path[:-1]:
        parent = next(m for m in reversed(parent.members or ()) if m.key == key).node
    members = parent.members or ()
    index = max(number for number, member in enumerate(members) if member.key == path[-1])
    return _remove_at(text, members, index)


def _remove_at(text: str, members: Sequence[JsoncMember], index: int) -> str:
    member = members[index]
    before = text[: member.start]
    end = member.node.end
    following = _skip_whitespace(text, end)
    if text[following] == ",":
        end = following + 1
    elif index > 0:  # the last member is removed with the comma that precedes it
        comma = _skip_whitespace(text, members[index - 1].node.end)
        before = (text[:comma] + text[comma + 1 : member.start]).rstrip(" \t")
    rest = text[_end_of_trailing_comment(text, end) :]
    line_end = re.match(r"[ \t]*\r?\n", rest)
    if line_end and _is_first_on_line(text, member.start):
        return before.rstrip(" \t") + rest[line_end.end() :]
    return before + rest.lstrip(" \t")


def _check_object(text: str, node: JsoncValue, path: Sequence[str]) -> None:
    if node.members is None:
        name = ".".join(path) or "the text"
        raise _syntax_error(text, node.start, f"{name} is not an object")


def _update_members(text: str, parent: JsoncValue, values: Mapping[str, object]) -> str:
    existing = []
    missing = {}
    for key, value in values.items():
        member = parent.member(key)
        if member is None:
            missing[key] = value
        else:
            existing.append((member.node, value))
    if missing:  # after the last member, so that the other positions stay valid
        text = _insert_members(text, parent, missing)
    for node, value in sorted(existing, key=lambda change: change[0].start, reverse=True):
        text = _replace_value(text, node, value)
    return text


def _replace_value(text: str, node: JsoncValue, value: object) -> str:
    if node.value == value and type(node.value) is type(value):
        return text
    return text[: node.start] + _serialize_at(text, node.start, value) + text[node.end :]


def _wrap_in_objects(path: Sequence[str], value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


def _insert_into_empty(text: str, value: object) -> str:
    """Add the first value to a text, after its comments."""
    newline = _newline(text)
    separator = newline
    if not text.strip("\ufeff") or text.endswith("\n"):
        separator = ""
    return text + separator + _serialize_at(text, 0, value) + newline


def _insert_members(text: str, parent: JsoncValue, values: Mapping[str, object]) -> str:
    """Add members to an object, after its last one and formatted like the others."""
    if parent.members:
        return _append_members(text, parent.members[-1], values)
    outer = _indentation_at(text, parent.start)
    newline = _newline(text)
    inner = newline + outer + _indent_unit(text)
    comments = text[parent.start + 1 : parent.end - 1].rstrip()
    body = ("," + inner).join(_format_members(text, inner.removeprefix(newline), values))
    opening = text[: parent.start + 1] + comments
    return opening + inner + body + newline + outer + "}" + text[parent.end :]


def _append_members(text: str, last: JsoncMember, values: Mapping[str, object]) -> str:
    newline = _newline(text)
    inner = _indentation_at(text, last.start)
    comma = _skip_whitespace(text, last.node.end)
    has_trailing_comma = text[comma] == ","
    end = last.node.end
    if has_trailing_comma:
        end = comma + 1
    insertion = _end_of_trailing_comment(text, end)
    comment = text[end:insertion]
    separator = " "
    if _is_first_on_line(text, last.start) or "//" in comment:
        separator = newline + inner
    body = ("," + separator).join(_format_members(text, inner, values))
    if has_trailing_comma:
        return text[:insertion] + separator + body + "," + text[insertion:]
    return text[:end] + "," + comment + separator + body + text[insertion:]


def _format_members(text: str, margin: str, values: Mapping[str, object]) -> list[str]:
    unit = _indent_unit(text)
    newline = _newline(text)
    return [
        f"{json.dumps(key, ensure_ascii=False)}: {_dump_indented(value, margin, unit, newline)}"
        for key, value in values.items()
    ]


def _is_first_on_line(text: str, position: int) -> bool:
    line_start = text.rfind("\n", 0, position) + 1
    return not text[line_start:position].strip(" \t\ufeff")


def _end_of_trailing_comment(text: str, position: int) -> int:
    """Return the end of the preceding value's comment on the same line; `position` if none."""
    match = _COMMENT_ON_LINE.match(text, position)
    return match.end() if match else position


def _serialize_at(text: str, position: int, value: object) -> str:
    margin = _indentation_at(text, position)
    return _dump_indented(value, margin, _indent_unit(text), _newline(text))


def _dump_indented(value: object, margin: str, unit: str, newline: str) -> str:
    lines = json.dumps(value, indent=unit, ensure_ascii=False).split("\n")
    return (newline + margin).join(lines)


def _indentation_at(text: str, position: int) -> str:
    """Return the indentation of the line that contains a position."""
    line_start = text.rfind("\n", 0, position) + 1
    line = text[line_start:position].lstrip("\ufeff")
    return line[: len(line) - len(line.lstrip(" \t"))]


def _indent_unit(text: str) -> str:
    """Return the indentation of the first indented member, or VS Code's default."""
    match = re.search(r"^([ \t]+)\"", text, re.MULTILINE)
    return match.group(1) if match else _DEFAULT_INDENT


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _skip_whitespace(text: str, position: int) -> int:
    """Return the next position that is neither whitespace nor part of a comment."""
    match = _WHITESPACE_AND_COMMENTS.match(text, position)
    return match.end() if match else position


def _parse_value(text: str, start: int) -> JsoncValue:
    first = text[start : start + 1]
    if first == "{":
        return _parse_object(text, start)
    if first == "[":
        return _parse_array(text, start)
    pattern = _STRING if first == '"' else _LITERAL
    match = pattern.match(text, start)
    if match is None:
        raise _syntax_error(text, start, "a value is expected")
    try:
        return JsoncValue(start, match.end(), json.loads(match.group()))
    except ValueError as error:
        raise _syntax_error(text, start, str(error).split(":")[0]) from None


def _parse_object(text: str, start: int) -> JsoncValue:
    members: list[JsoncMember] = []
    position = _skip_whitespace(text, start + 1)
    while text[position : position + 1] != "}":
        key = _STRING.match(text, position)
        if key is None:
            raise _syntax_error(text, position, 'a key in quotes or "}" is expected')
        colon = _skip_whitespace(text, key.end())
        if text[colon : colon + 1] != ":":
            raise _syntax_error(text, colon, '":" is expected')
        name = str(_parse_value(text, position).value)
        node = _parse_value(text, _skip_whitespace(text, colon + 1))
        members.append(JsoncMember(name, position, node))
        position = _skip_separator(text, node.end, "}")
    value = {member.key: member.node.value for member in members}
    return JsoncValue(start, position + 1, value, tuple(members))


def _parse_array(text: str, start: int) -> JsoncValue:
    values: list[object] = []
    position = _skip_whitespace(text, start + 1)
    while text[position : position + 1] != "]":
        node = _parse_value(text, position)
        values.append(node.value)
        position = _skip_separator(text, node.end, "]")
    return JsoncValue(start, position + 1, values)


def _skip_separator(text: str, position: int, closing: str) -> int:
    """Return the position after the comma, or that of the closing bracket."""
    position = _skip_whitespace(text, position)
    if text[position : position + 1] == ",":
        return _skip_whitespace(text, position + 1)
    if text[position : position + 1] == closing:
        return position
    raise _syntax_error(text, position, f'"," or "{closing}" is expected')


def _syntax_error(text: str, position: int, reason: str) -> NotJsoncError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return NotJsoncError(f"line {line}, column {column}: {reason}")
