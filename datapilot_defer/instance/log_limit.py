"""A limit on the number of log messages that clients can cause."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from datapilot_defer.formatting import plural

log = logging.getLogger("datapilot_defer.instance")

_INTERVAL_S = 60.0
_MAX_ORIGINS = 1000
_LIMITED_LOGGERS = ("asyncio", "uvicorn.error", "datapilot_defer.instance.connections")


@dataclass
class _Repeated:
    """Messages from one origin within a minute after the printed one.

    text, level: first line and log level of the printed message.
    """

    text: str
    level: int
    printed_at: float
    suppressed: int = 0

    @property
    def is_old(self) -> bool:
        """Return whether a minute has passed, so that the next message may be printed."""
        return time.monotonic() - self.printed_at >= _INTERVAL_S

    def report(self) -> None:
        """Log how many messages were suppressed, if any."""
        if self.suppressed:
            count = plural(self.suppressed, "message")
            log.log(self.level, "suppressed %s like: %s", count, self.text)


class LogLimit(logging.Filter):
    """A filter that passes one message per minute from each origin, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self._repeated: dict[object, _Repeated] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to print a message, and count it if not.

        Beyond _MAX_ORIGINS origins, all others are treated as one.
        """
        origin = _origin_of(record)
        if origin not in self._repeated and len(self._repeated) >= _MAX_ORIGINS:
            origin = None
        repeated = self._repeated.get(origin)
        if repeated is not None:
            repeated.suppressed += 1
            return False
        text = record.getMessage().splitlines()[0]
        self._repeated[origin] = _Repeated(text, record.levelno, time.monotonic())
        return True

    def report_suppressed(self) -> None:
        """Log how many messages were suppressed in the minutes that have ended.

        Call this method about once a second.
        """
        for origin, repeated in list(self._repeated.items()):
            if repeated.is_old:
                del self._repeated[origin]
                repeated.report()

    def report_all(self) -> None:
        """Log how many messages were suppressed since the last report."""
        for repeated in self._repeated.values():
            repeated.report()
        self._repeated.clear()


@contextmanager
def limited_logs() -> Iterator[LogLimit]:
    """Limit the messages about connections while the block runs.

    At the end of the block, log how many messages were suppressed.
    """
    limit = LogLimit()
    loggers = [logging.getLogger(name) for name in _LIMITED_LOGGERS]
    for logger in loggers:
        logger.addFilter(limit)
    try:
        yield limit
    finally:
        for logger in loggers:
            logger.removeFilter(limit)
        limit.report_all()


def _origin_of(record: logging.LogRecord) -> object:
    """Return where the logged exception was raised.

    Without an exception, return the logger and the first line of the unformatted message.
    """
    error = record.exc_info and record.exc_info[1]
    if not error or error.__traceback__ is None:
        return record.name, str(record.msg).partition("\n")[0]
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return type(error), traceback.tb_frame.f_code, traceback.tb_lineno
