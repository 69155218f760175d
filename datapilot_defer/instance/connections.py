"""Limits on the number of connections, and on how long each may wait for its client."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Hashable
from enum import Enum
from typing import NamedTuple, Protocol

log = logging.getLogger("datapilot_defer.instance.connections")

# Finding the connections that have been silent longest requires a scan of all connections. To make
# scans rare, each scan closes at least this fraction of the connections that wait for their
# clients.
_CLOSED_AT_LIMIT = 1 / 8


class Wait(Enum):
    """The client action that a connection waits for. Its value is the time limit in seconds."""

    HEADER = 10.0  # a TLS handshake, a request header, or the end of the connection
    BODY = 30.0
    RESPONSE = 120.0  # until the client receives further bytes of a response


class Observation(NamedTuple):
    """The state of a connection. While the state does not change, the client makes no progress.

    wait: the client action that the connection waits for, or None while the server has to act.
    is_read: whether the server is reading from the client. If not, the client is not responsible
    for the wait, but its connection may still be closed when there are too many.
    """

    wait: Wait | None
    request: Hashable = None
    progress: int = 0
    is_read: bool = True


class Connection(Protocol):
    """A connection that `Connections` tracks.

    since: when `observation` last changed. received_at: when the last bytes of a body arrived.
    """

    observation: Observation
    since: float
    received_at: float

    def observe(self) -> Observation:
        """Return the current state of the connection."""

    def abort(self) -> None:
        """Close the connection without waiting for the client."""


class Connections:
    """The open connections of a server. Call `close_stalled` about once a second.

    accepts_at_once: how many connections may be accepted before the first of them is counted.
    """

    def __init__(self, max_count: int, accepts_at_once: int = 16) -> None:
        self.accepts_at_once = accepts_at_once
        self._max_count = max_count
        self._open: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Add a new connection.

        If there are then too many, close the ones that have been silent longest.
        """
        connection.since = connection.received_at = time.monotonic()
        connection.observation = connection.observe()
        self._open.add(connection)
        if len(self._open) > self._max_count:
            self._close_longest_silent()

    def discard(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)

    def close_stalled(self) -> None:
        """Close the connections whose clients have made no progress for too long."""
        stalled = [connection for connection in self._waiting() if _is_stalled(connection)]
        self._close(stalled)
        if stalled:
            log.info("closed %d connections whose clients made no progress", len(stalled))

    def close_all(self) -> None:
        """Close all connections."""
        self._close(list(self._open))

    def _waiting(self) -> list[Connection]:
        """Observe all connections, and return those that are waiting for their clients."""
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
            "reached the limit of %d connections; closing those that are silent longest",
            self._max_count,
        )

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._open.discard(connection)
            connection.abort()


def _is_stalled(connection: Connection) -> bool:
    """Return whether a client from which the server reads has made no progress for too long."""
    observation = connection.observation
    if observation.wait is None or not observation.is_read:
        return False
    return time.monotonic() - connection.since > observation.wait.value


def _silence(connection: Connection) -> float:
    """Return how long a client has been silent, as a fraction of the time limit.

    Return 0 if the connection is not waiting for its client. Every byte of a body counts as
    progress. A part of a header does not, because clients send a header in one piece.
    """
    wait = connection.observation.wait
    if wait is None:
        return 0.0
    since = connection.since
    if wait is Wait.BODY:
        since = max(since, connection.received_at)
    return (time.monotonic() - since) / wait.value
