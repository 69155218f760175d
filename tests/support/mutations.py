"""Damage artifacts in realistic ways; the same seed causes the same damage."""

import json
import random
from collections.abc import Callable
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    3,
    -1.5,
    "",
    "x",
    "12",
    [],
    ["x"],
    [1],
    [{}],
    {},
    {"x": 1},
)
Target = tuple[Any, Any]


def mutate(text: str, seed: int) -> tuple[str, str]:
    """Damage an artifact once and return the new text and a description."""
    chance = random.Random(seed)
    if chance.random() < 0.03:
        at = chance.randrange(len(text))
        return text[:at], f"cut after {at} characters"
    document = json.loads(text)
    holder, key, path = _target(document, chance)
    action = chance.choice(_ACTIONS)
    done = action(holder, key, document, chance)
    return json.dumps(document), f"{action.__name__.strip('_')} at {path}: {done}"


def _target(document: Any, chance: random.Random) -> tuple[Any, Any, str]:
    """Choose a value: container, key and path. Each section and each depth is equally likely."""
    holder, key, path = document, chance.choice(list(document)), "$"
    depth = chance.choice((0, 1, 2, 2, 2, 3, 3, 3, 4, 5))
    for _ in range(depth):
        inside = holder[key]
        if not isinstance(inside, (dict, list)) or not inside:
            break
        path += f"[{key!r}]"
        holder = inside
        key = (
            chance.choice(list(inside))
            if isinstance(inside, dict)
            else chance.randrange(len(inside))
        )
    return holder, key, f"{path}[{key!r}]"


def _drop(holder: Any, key: Any, _: Any, __: random.Random) -> str:
    del holder[key]
    return "gone"


def _null(holder: Any, key: Any, _: Any, __: random.Random) -> str:
    holder[key] = None
    return "null"


def _retype(holder: Any, key: Any, _: Any, chance: random.Random) -> str:
    holder[key] = chance.choice(VALUES)
    return repr(holder[key])


def _rename(holder: Any, key: Any, _: Any, __: random.Random) -> str:
    if isinstance(holder, list):
        return _null(holder, key, _, __)
    holder[f"{key}_renamed"] = holder.pop(key)
    return "renamed"


def _swap(holder: Any, key: Any, document: Any, chance: random.Random) -> str:
    other, name, path = _target(document, chance)
    a = json.loads(json.dumps(holder[key]))
    b = json.loads(json.dumps(other[name]))
    holder[key] = b
    if isinstance(other, list) or name in other:
        other[name] = a
    return f"with {path}"


def _add(holder: Any, key: Any, _: Any, chance: random.Random) -> str:
    target = holder[key] if isinstance(holder[key], (dict, list)) else holder
    value = chance.choice(VALUES)
    if isinstance(target, dict):
        target[
            chance.choice(("something_new", "_extra", "root_path", "refs", "config", "freshness"))
        ] = value
    else:
        target.append(value)
    return repr(value)


_ACTIONS: tuple[Callable[[Any, Any, Any, random.Random], str], ...] = (
    _drop,
    _null,
    _retype,
    _retype,
    _rename,
    _swap,
    _add,
)
