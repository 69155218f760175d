"""Realistic damage to artifacts, which is the same for the same seed."""

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
    generator = random.Random(seed)
    if generator.random() < 0.03:
        at = generator.randrange(len(text))
        return text[:at], f"cut after {at} characters"
    document = json.loads(text)
    holder, key, path = _target(document, generator)
    action = generator.choice(_ACTIONS)
    done = action(holder, key, document, generator)
    return json.dumps(document), f"{action.__name__.strip('_')} at {path}: {done}"


def _target(document: Any, generator: random.Random) -> tuple[Any, Any, str]:
    """Choose a value: container, key and path. Each section and each depth is equally likely."""
    holder, key, path = document, generator.choice(list(document)), "$"
    depth = generator.choice((0, 1, 2, 2, 2, 3, 3, 3, 4, 5))
    for _ in range(depth):
        inside = holder[key]
        if not isinstance(inside, (dict, list)) or not inside:
            break
        path += f"[{key!r}]"
        holder = inside
        key = (
            generator.choice(list(inside))
            if isinstance(inside, dict)
            else generator.randrange(len(inside))
        )
    return holder, key, f"{path}[{key!r}]"


def _drop(holder: Any, key: Any, _: Any, __: random.Random) -> str:
    del holder[key]
    return "dropped"


def _null(holder: Any, key: Any, _: Any, __: random.Random) -> str:
    holder[key] = None
    return "null"


def _retype(holder: Any, key: Any, _: Any, generator: random.Random) -> str:
    holder[key] = generator.choice(VALUES)
    return repr(holder[key])


def _rename(holder: Any, key: Any, _: Any, __: random.Random) -> str:
    if isinstance(holder, list):
        return _null(holder, key, _, __)
    holder[f"{key}_renamed"] = holder.pop(key)
    return "renamed"


def _swap(holder: Any, key: Any, document: Any, generator: random.Random) -> str:
    other, name, path = _target(document, generator)
    a = json.loads(json.dumps(holder[key]))
    b = json.loads(json.dumps(other[name]))
    holder[key] = b
    if isinstance(other, list) or name in other:
        other[name] = a
    return f"with {path}"


def _add(holder: Any, key: Any, _: Any, generator: random.Random) -> str:
    target = holder[key] if isinstance(holder[key], (dict, list)) else holder
    value = generator.choice(VALUES)
    if isinstance(target, dict):
        target[
            generator.choice(
                ("something_new", "_extra", "root_path", "refs", "config", "freshness")
            )
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
