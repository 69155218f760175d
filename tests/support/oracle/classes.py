"""Try every field of every class of dbt's manifest with every kind of value.

Run in an environment with dbt. Prints one line of JSON for each class:
{"class", "base", "tries": [[field, value, loads], …]}.
"""

import copy
import dataclasses
import enum
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import dbt.cli.main  # noqa: F401  like dbt itself; see loader.py
from dbt.artifacts.schemas.manifest import WritableManifest

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 3, -1.5, "", "x", "12", "1.5", "model", "2026-11-22T10:00:00Z"),
    *(
        [],
        ["x"],
        [1],
        [None],
        [{}],
        [[]],
        [["x"]],
        ["12"],
        [{"sql": "x"}],
        {},
        {"x": 1},
        {"x": None},
        {"x": []},
    ),
    *(
        {"x": ["y"]},
        {"x": {}},
        {"name": "x"},
        {"enabled": None},
        {"count": 1, "period": "day"},
        {"node_color": "x"},
    ),
    *(
        {"node_color": "RED"},
        {"node_color": "#fff"},
        {"enforced": True},
        {"build_after": {"count": 1}},
    ),
    *(
        {"build_after": {"count": 1, "period": "day"}},
        {"build_after": {}},
        "DAY",
        "view",
        "incremental",
        "javascript",
    ),
)

# Values that a class requires besides its types.
MORE = {"ExternalPartition": {"name": "x", "data_type": "text"}}


def reachable(kind: Any, classes: dict[str, Any]) -> dict[str, Any]:
    """Return every dataclass that occurs in a type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind.__name__ not in classes:
        classes[kind.__name__] = kind
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in dataclasses.fields(kind):
            reachable(hints[field.name], classes)
    for part in typing.get_args(kind):
        reachable(part, classes)
    return classes


def sample(kind: Any) -> Any:
    """Return a value of this type."""
    origin = typing.get_origin(kind)
    args = typing.get_args(kind)
    if origin is typing.Union and type(None) in args:
        return None
    if origin in (typing.Annotated, typing.Union):
        return sample(args[0])
    if origin is typing.Literal:
        return getattr(args[0], "value", args[0])
    if dataclasses.is_dataclass(kind):
        return instance(kind)
    return _simple_sample(kind, origin)


def _simple_sample(kind: Any, origin: Any) -> Any:
    """Return a value of a type that is neither a union nor a dataclass."""
    if issubclass(origin or kind, enum.Enum):
        return next(iter(kind)).value
    plain = {
        int: 1,
        float: 1.5,
        datetime: "2026-11-22T10:00:00Z",
        UUID: "652de556-11cd-4687-8317-7c928b732889",
    }
    if kind in plain:
        return plain[kind]
    if origin and issubclass(origin, Mapping):
        return {}
    if origin and issubclass(origin, Sequence):
        return []
    return "x"


def instance(cls: Any) -> dict[str, Any]:
    """Return the smallest value that a class accepts."""
    hints = typing.get_type_hints(cls, include_extras=True)
    needed = [
        f for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING
    ]
    made = {field.metadata.get("alias", field.name): sample(hints[field.name]) for field in needed}
    return {**made, **MORE.get(cls.__name__, {})}


def tries(cls: Any, base: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Yield each field with each value and without a value, and whether the class accepts it."""
    names = [field.metadata.get("alias", field.name) for field in dataclasses.fields(cls)]
    for name in names:
        without = {key: value for key, value in base.items() if key != name}
        yield name, "(left out)", loads(cls, without)
        for value in VALUES:
            yield name, value, loads(cls, {**without, name: value})


def loads(cls: Any, data: dict[str, Any]) -> bool:
    """Return whether the class accepts a value."""
    try:
        cls.from_dict(copy.deepcopy(data))  # dbt changes its input.
    except Exception:  # noqa: BLE001  any exception means rejection
        return False
    return True


for name, cls in reachable(WritableManifest, {}).items():
    base = instance(cls)
    assert loads(cls, base), name
    print(json.dumps({"class": name, "base": base, "tries": list(tries(cls, base))}))
