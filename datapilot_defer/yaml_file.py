"""Reader for YAML files with limits, because a dbt project may come from anyone."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from datapilot_defer.errors import UsageError
from datapilot_defer.files import read_small_file

if TYPE_CHECKING:
    from yaml.events import Event, ScalarEvent

_MAX_NODES = 100_000
_MAX_DEPTH = 100
# The time for parsing a number grows with the square of its length.
_MAX_UNQUOTED_LENGTH = 10_000
_MAX_REASON_LENGTH = 300


class _TooLargeError(ValueError):
    """The document would take too much time or memory."""


def read_yaml_file(path: Path) -> object:
    """Return the content of a YAML file. Raises UsageError if it cannot be read."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    try:
        text = read_small_file(path).decode("utf-8")
        size = _DocumentSize()
        for event in yaml.parse(text, Loader=loader):
            size.add(event)
        return yaml.load(text, Loader=loader)  # noqa: S506 - both are safe
    except OSError as error:
        reason = str(error.strerror or error)
    # An invalid date such as 2024-02-30 raises ValueError.
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = textwrap.shorten(str(error), _MAX_REASON_LENGTH)
    except (AttributeError, LookupError, TypeError):  # PyYAML raises these for `!!bool maybe`
        reason = "a value does not fit its tag, such as !!bool or !!int"
    raise UsageError(f"{path} cannot be read: {reason}")


class _DocumentSize:
    """The number of nodes in a document, counted as if each alias were written out.

    A few anchors that contain each other's aliases can stand for billions of nodes.
    """

    def __init__(self) -> None:
        self._nodes = 0
        self._sizes: dict[str | None, int] = {}
        self._open: list[tuple[str | None, int]] = []

    def add(self, event: Event) -> None:
        """Count one event of the parser. Raises ValueError if the document is too large."""
        from yaml import events

        if isinstance(event, events.AliasEvent):
            self._nodes += self._sizes.get(event.anchor, 1)
        elif isinstance(event, events.ScalarEvent):
            _check_scalar(event)
            self._nodes += 1
            self._sizes[event.anchor] = 1
        elif isinstance(event, events.CollectionStartEvent):
            self._open.append((event.anchor, self._nodes))
            self._nodes += 1
        elif isinstance(event, events.CollectionEndEvent):
            anchor, nodes_before = self._open.pop()
            self._sizes[anchor] = self._nodes - nodes_before
        if self._nodes > _MAX_NODES:
            raise _TooLargeError(f"it has more than {_MAX_NODES:,} values, counted with aliases")
        if len(self._open) > _MAX_DEPTH:
            raise _TooLargeError(f"it is nested more than {_MAX_DEPTH} deep")


def _check_scalar(event: ScalarEvent) -> None:
    is_quoted = event.tag is None and not event.implicit[0]
    if not is_quoted and len(event.value) > _MAX_UNQUOTED_LENGTH:
        raise _TooLargeError(f"a value of {len(event.value):,} characters is not in quotes")
