import random
import re
from collections.abc import Sequence

import pytest

from datapilot_defer.defer.jsonc import NotJsoncError, parse, remove_member, set_members

PATH = ["dbt.deferConfigPerProject", "shop", "deferToProduction"]

TYPICAL = """\
// settings of the team
{
  "editor.tabSize": 2, /* two */
  "dbt.deferConfigPerProject": {
    // the shop
    "shop": {
      "deferToProduction": false, // for now
      "favorState":true,
    },
  },
  "url": "http://not-a-comment/*x*/",
}
"""


def set_value(text: str, path: Sequence[str], value: object) -> str:
    """Return the text with one value set."""
    return set_members(text, parse(text), path[:-1], {path[-1]: value})


def test_edit_changes_only_value() -> None:
    assert set_value(TYPICAL, PATH, True) == TYPICAL.replace(
        '"deferToProduction": false', '"deferToProduction": true'
    )


def test_edit_to_current_value_changes_nothing() -> None:
    assert set_value(TYPICAL, PATH, False) == TYPICAL


def test_setting_several_members_equals_setting_each() -> None:
    values = {"deferToProduction": True, "favorState": True, "a": 7, "b": None}
    for text in (
        TYPICAL,
        "",
        "{}",
        "{\r\n}",
        '{"x": {"y": 1}}',
        '{"dbt.deferConfigPerProject": {}}',
    ):
        expected = text
        for key, value in values.items():
            expected = set_value(expected, [*PATH[:2], key], value)
        assert set_members(text, parse(text), PATH[:2], values) == expected


def test_new_key_uses_existing_format() -> None:
    expected = TYPICAL.replace(
        '"favorState":true,\n', '"favorState":true,\n      "dbtCoreIntegrationId": 7,\n'
    )
    assert set_value(TYPICAL, [*PATH[:2], "dbtCoreIntegrationId"], 7) == expected


def test_comment_stays_with_its_member() -> None:
    text = '{\n\t"a": 1 // about a\n}\n'
    assert set_value(text, ["b"], 2) == '{\n\t"a": 1, // about a\n\t"b": 2\n}\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '{\n    "a": {\n        "b": 1\n    }\n}\n'),
        ("// only a comment", '// only a comment\n{\n    "a": {\n        "b": 1\n    }\n}\n'),
        ("{}", '{\n    "a": {\n        "b": 1\n    }\n}'),
        ("{ /* none yet */ }\n", '{ /* none yet */\n    "a": {\n        "b": 1\n    }\n}\n'),
        ('{"x": 1}', '{"x": 1, "a": {\n    "b": 1\n}}'),
        ('{"x": 1 // one\n}', '{"x": 1, // one\n"a": {\n    "b": 1\n}\n}'),
        ('{\r\n\t"x": 1\r\n}', '{\r\n\t"x": 1,\r\n\t"a": {\r\n\t\t"b": 1\r\n\t}\r\n}'),
    ],
    ids=[
        "empty",
        "comment",
        "no members",
        "comment inside",
        "one line",
        "one line and comment",
        "tabs and CRLF",
    ],
)
def test_missing_parent_objects_are_created(text: str, expected: str) -> None:
    assert set_value(text, ["a", "b"], 1) == expected


def test_byte_order_mark_is_kept() -> None:
    assert set_value('\ufeff{"a": 1}', ["a"], 2) == '\ufeff{"a": 2}'


def test_last_repeated_key_is_changed() -> None:
    assert set_value('{"a": 1, "a": 2}', ["a"], 3) == '{"a": 1, "a": 3}'


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ('{"a": 1', "line 1, column 8"),
        ('{"a" 1}', "line 1, column 6"),
        ("{a: 1}", "line 1, column 2"),
        ('{"a": }', "line 1, column 7"),
        ('{"a": tru}', "line 1, column 7"),
        ('{"a": "\\x"}', "line 1, column 7"),
        ('{"\\x": 1}', "line 1, column 2"),
        ('{\n"a": 1} x', "line 2, column 9"),
        ('{"a": [1 2]}', "line 1, column 10"),
        ("{/* never closed", "line 1, column 2"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_syntax_error_states_position(text: str, position: str) -> None:
    with pytest.raises(NotJsoncError, match=re.escape(position)):
        parse(text)


def test_parent_that_is_not_an_object_is_not_overwritten() -> None:
    with pytest.raises(NotJsoncError, match=r"a\.b is not an object"):
        set_value('{"a": {"b": [1]}}', ["a", "b", "c"], 1)
    with pytest.raises(NotJsoncError, match="the text is not an object"):
        set_value("[1]", ["a"], 1)


def test_random_edits_change_only_value() -> None:
    generator, comment = random.Random(5), r"// c\d+|/\* d \*/"
    for _ in range(1000):
        text = _random_object(generator, 0)
        before = parse(text).value
        assert isinstance(before, dict)
        path = [generator.choice("abc") for _ in range(generator.randint(1, 3))]
        if _has_other_parent(before, path):
            with pytest.raises(NotJsoncError, match="is not an object"):
                set_value(text, path, "new")
            continue
        edited = set_value(text, path, "new")
        assert parse(edited).value == _set_value(before, path, "new")
        if path[0] not in before:  # No value is replaced, so every comment remains.
            assert re.findall(comment, edited) == re.findall(comment, text)


def _has_other_parent(before: object, path: list[str]) -> bool:
    if not isinstance(before, dict):
        return True
    return len(path) > 1 and path[0] in before and _has_other_parent(before[path[0]], path[1:])


def _set_value(before: dict[str, object], path: list[str], value: object) -> dict[str, object]:
    inner = before.get(path[0], {})
    assert isinstance(inner, dict) or len(path) == 1
    new = (
        value
        if len(path) == 1 or not isinstance(inner, dict)
        else _set_value(inner, path[1:], value)
    )
    return {**before, path[0]: new}


def _random_object(generator: random.Random, depth: int) -> str:
    """Return an object of up to three members, with comments, line breaks and commas."""

    def gap() -> str:
        return generator.choice(
            ["", " ", "\n", "\n  ", f"// c{generator.randint(0, 99)}\n", "/* d */"]
        )

    keys = generator.sample("abc", generator.randint(0, 3))
    values = [
        generator.choice(["1", "null", '"x"', "[1,2,]"])
        if depth > 1 or generator.random() < 0.4
        else _random_object(generator, depth + 1)
        for _ in keys
    ]
    members = [
        f'{gap()}"{key}"{gap()}:{gap()}{value}{gap()}'
        for key, value in zip(keys, values, strict=True)
    ]
    trailing = "," + gap() if members and generator.random() < 0.3 else ""
    return "{" + ",".join(members) + trailing + gap() + "}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"b": 1}', "{}"),
        ('{"a": 1, "b": 2}', '{"a": 1}'),
        ('{"b": 1, "c": 2}', '{"c": 2}'),
        ('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "c": 3}'),
        ('{"a": 1, "b": 2,}', '{"a": 1, }'),
        ('{\n\t"a": 1, // a\n\t"b": {"c": 2} // b\n}', '{\n\t"a": 1 // a\n}'),
        ('{\r\n  "b": [1], // b\r\n  // c\r\n  "c": 2\r\n}', '{\r\n  // c\r\n  "c": 2\r\n}'),
        ('{\n  "a": 1 // a\n  , "b": 2}', '{\n  "a": 1 // a\n}'),
        ('{\n  "b": 1, "c": 2\n}', '{\n  "c": 2\n}'),
        ('{"b": 1, "b": 2}', '{"b": 1}'),
    ],
)
def test_removal_keeps_other_members(text: str, expected: str) -> None:
    assert remove_member(text, parse(text), ["b"]) == expected
    parse(expected)


def test_removal_of_nested_member_removes_only_its_comment() -> None:
    removed = remove_member(TYPICAL, parse(TYPICAL), PATH)
    line = '      "deferToProduction": false, // for now\n'
    assert removed == TYPICAL.replace(line, "")
