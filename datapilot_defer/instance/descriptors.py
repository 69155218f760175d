"""Limits on the open files and connections of the server process."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

if sys.platform != "win32":
    import resource

log = logging.getLogger("datapilot_defer.instance")

# A silent connection uses 7 kB of memory. An incomplete request header uses up to 16 kB more.
_MAX_CONNECTIONS = 6_000
_MIN_CONNECTIONS = 16
UPLOADS_AT_ONCE = 32
# A large number empties the queue quickly during a flood of connections, but needs more file
# descriptors.
_MAX_ACCEPTS_AT_ONCE = 64
# In successive turns of the event loop, connections are accepted, wait to be counted, are counted,
# and wait to be closed.
_DESCRIPTORS_PER_ACCEPT = 4
# Database, blob and worker files that 45 threads open, and one file for each upload.
_RESERVED = 160 + UPLOADS_AT_ONCE
_WANTED = _RESERVED + _DESCRIPTORS_PER_ACCEPT * _MAX_ACCEPTS_AT_ONCE + _MAX_CONNECTIONS
# Below this limit, a few busy clients can reach the limit on connections.
_LOW = 1024


@dataclass(frozen=True)
class Capacity:
    """The numbers of connections that may be open and that may be accepted at once."""

    connections: int
    accepts_at_once: int


def reserve_descriptors() -> Capacity:
    """Raise the limit on open files as needed, and return the resulting capacity."""
    if sys.platform == "win32":
        return Capacity(_MAX_CONNECTIONS, _MAX_ACCEPTS_AT_ONCE)
    limit = _raise_limit()
    accepts = min(_MAX_ACCEPTS_AT_ONCE, limit // 16)
    fitting = limit - _RESERVED - _DESCRIPTORS_PER_ACCEPT * accepts
    count = max(_MIN_CONNECTIONS, min(fitting, _MAX_CONNECTIONS))
    if limit < _LOW:
        log.warning(
            "this process can open only %d files, so at most %d connections are served at once. "
            "Raise the hard limit with `ulimit -Hn`.",
            limit,
            count,
        )
    return Capacity(count, accepts)


if sys.platform != "win32":

    def _raise_limit() -> int:
        """Raise the soft limit on open files as far as needed, and return the resulting limit.

        The hard limit is not exceeded. For an unlimited process, return the number of files that is
        needed.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return _WANTED
        wanted = _WANTED
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft >= wanted:
            return soft
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a system-wide limit may be lower
            return soft
        return wanted
