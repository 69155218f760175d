"""Output of the instance's log as messages of the running command."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from datapilot_defer.cli.output import Output

_LOG_LEVELS = {"datapilot_defer.instance": logging.INFO, "uvicorn.error": logging.WARNING}


class _OutputHandler(logging.Handler):
    """A handler that prints log records as messages of the command."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        text = self.format(record)
        if record.levelno < logging.WARNING:
            self._output.note(text)
        else:
            self._output.warn(text)


@contextmanager
def log_to_output(output: Output) -> Iterator[None]:
    """Print the log of the instance, and warnings of the web server, to stderr."""
    handler = _OutputHandler(output)
    loggers = []
    for name, level in _LOG_LEVELS.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(handler)
        loggers.append(logger)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
