"""Limits on connections: how many are open, and how long each may wait for its client."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple, Protocol

log = logging.getLogger("datapilot_defer.instance.connections")

# To find the longest silent connections takes a scan of all: this part of them is closed at once.
_CLOSED_AT_LIMIT = 1 / 8


class Wait(Enum):
    """What a connection waits for its client to do, with the longest duration in seconds."""

    HEADER = 10.0  # complete a TLS handshake, a request header or the end of the connection
    BODY = 30.0
    RESPONSE = 120.0  # take any byte of a response


class Observation(NamedTuple):
    """State of a connection. While it stays equal, the client makes no progress.

    wait: None while the server has to act. is_read: whether the server reads what the client sends.
    A client that waits for that is not blamed, but at the limit its connection may be closed.
    """

    wait: Wait | None
    request: Hashable = None
    progress: int = 0
    is_read: bool = True


class Connection(Protocol):
    """A connection in the registry.

    since: when `observation` became what it is. received_at: when the last bytes of a body came.
    """

    observation: Observation
    since: float
    received_at: float

    def observe(self) -> Observation:
        """Return the present state."""

    def abort(self) -> None:
        """Close the connection without waiting for the client."""


class Connections:
    """The open connections of a server; `close_stalled` must be called about once a second.

    accepts_at_once: so many connections may be accepted before the first of them is counted.
    """

    def __init__(self, max_count: int, accepts_at_once: int = 16) -> None:
        self.accepts_at_once = accepts_at_once
        self._max_count = max_count
        self._open: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Count a new connection; at the limit, close those that are silent longest."""
        connection.since = connection.received_at = time.monotonic()
        connection.observation = connection.observe()
        self._open.add(connection)
        if len(self._open) > self._max_count:
            self._close_longest_silent()

    def discard(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._open.discard(connection)

    def close_stalled(self) -> None:
        """Close the connections whose clients have not made progress for too long."""
        stalled = [connection for connection in self._waiting() if _is_stalled(connection)]
        self._close(stalled)
        if stalled:
            log.info("closed %d connections whose clients made no progress", len(stalled))

    def close_all(self) -> None:
        """Close each connection."""
        self._close(list(self._open))

    def _waiting(self) -> list[Connection]:
        """Return the connections that wait for their clients."""
        now = time.monotonic()
        for connection in self._open:
            observation = connection.observe()
            if observation != connection.observation:
                connection.observation = observation
                connection.since = now
        return [connection for connection in self._open if connection.observation.wait]

    def _close_longest_silent(self) -> None:
        waiting = self._waiting()
        excess = len(self._open) - self._max_count
        count = max(excess, int(len(waiting) * _CLOSED_AT_LIMIT))
        self._close(heapq.nlargest(count, waiting, key=_silence))
        log.warning(
            "the limit of %d connections is reached: closing those that are silent longest",
            self._max_count,
        )

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._open.discard(connection)
            connection.abort()


def _is_stalled(connection: Connection) -> bool:
    """Return whether the client has made no progress for too long."""
    observation = connection.observation
    if observation.wait is None or not observation.is_read:
        return False
    return time.monotonic() - connection.since > observation.wait.value


def _silence(connection: Connection) -> float:
    """Return how long a client has been silent, as a part of the longest allowed duration.

    Each byte of a body counts, but a part of a header does not: a header comes at once.
    """
    wait = connection.observation.wait
    if wait is None:
        return 0.0
    since = connection.since
    if wait is Wait.BODY:
        since = max(since, connection.received_at)
    return (time.monotonic() - since) / wait.value
