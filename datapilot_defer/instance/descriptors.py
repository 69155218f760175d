"""The limit on open files and connections of this process."""

from __future__ import annotations

import logging
import sys

if sys.platform != "win32":
    import resource

log = logging.getLogger("datapilot_defer.instance")

# Silent connections take 7 kB each, incomplete request headers at most 16 kB more.
_MAX_CONNECTIONS = 6_000
_MIN_CONNECTIONS = 16
UPLOADS_AT_ONCE = 128
# Files of the database, the blobs and the worker in 45 threads, connections being accepted, and
# a file for each upload.
_RESERVED = 224 + UPLOADS_AT_ONCE
_WANTED = _RESERVED + _MAX_CONNECTIONS
# Below this limit, a few busy clients can reach the limit on connections.
_LOW = 1024


def allow_connections() -> int:
    """Raise the limit on open files as far as needed; return how many connections fit into it."""
    if sys.platform == "win32":
        return _MAX_CONNECTIONS
    limit = _raise_limit()
    count = max(_MIN_CONNECTIONS, min(limit - _RESERVED, _MAX_CONNECTIONS))
    if limit < _LOW:
        log.warning(
            "this process may open %d files: at most %d connections are served at once; "
            "raise the hard limit with `ulimit -Hn`",
            limit,
            count,
        )
    return count


if sys.platform != "win32":

    def _raise_limit() -> int:
        """Raise the soft limit to the hard one, but no further than needed; return it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _WANTED
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return _WANTED if soft == resource.RLIM_INFINITY else soft
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a system-wide limit is lower
            return soft
        return wanted
