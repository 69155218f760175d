"""One verification process: starting it, sending jobs to it and ending it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol, cast

import msgspec

import datapilot_defer
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.verification import MAX_RESULT_BYTES, Message, Result

# Ignore SIGINT before the imports. Otherwise the process would print a traceback when Ctrl+C ends
# the instance.
_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from datapilot_defer.instance.inspection import main; main()"
)
_STOP_TIMEOUT_S = 5


class Content(Protocol):
    """The bytes of an artifact, which can be read repeatedly."""

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in chunks."""


class ProcessEnded(Exception):
    """The process ended before it responded. The message is the signal or the exit code."""


class TimedOut(Exception):
    """The process was killed because a job took too long."""


class VerificationProcess:
    """A running process that handles one job at a time, each with a time limit."""

    def __init__(self, memory_bytes: int) -> None:
        """Start the process. Raises Unavailable when the operating system cannot start it."""
        # With -P, a file in the current directory cannot replace a module.
        command = [sys.executable, "-P", "-c", _PROGRAM, str(memory_bytes)]
        try:
            self._process = subprocess.Popen(
                command, env=_child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise Unavailable(f"could not start a verification process: {reason}") from None
        self._input = cast("IO[bytes]", self._process.stdin)
        self._output = cast("IO[bytes]", self._process.stdout)
        self._remaining_s = 0.0
        self._has_timed_out = False
        self._is_idle = True
        self.jobs = 0

    @property
    def process_id(self) -> int:
        """Return the operating system's ID of the process."""
        return self._process.pid

    def begin_job(self, seconds: float) -> None:
        """Begin a job, and set the time that the process may spend on all messages of the job."""
        self._remaining_s = seconds
        self.jobs += 1

    def ask(self, message: Message, content: Content) -> Result:
        """Send one artifact and return the result.

        The time spent reading the content does not count toward the limit of the job. Raises
        ProcessEnded, TimedOut, and Unavailable when the content is incomplete.
        """
        self._is_idle = False
        is_reading = self._send(msgspec.json.encode(message) + b"\n")
        missing_bytes = message.size_bytes
        chunks = content.chunks()
        while missing_bytes and is_reading:
            chunk = next(chunks, b"")[:missing_bytes]
            if not chunk:
                raise Unavailable(
                    "the stored bytes of an artifact are incomplete. Upload it again."
                )
            is_reading = self._send(chunk)
            missing_bytes -= len(chunk)
        result = self._receive()
        self._is_idle = True
        return result

    def kill(self) -> None:
        """Kill the process. A running call to `ask` in another thread then raises ProcessEnded."""
        self._process.kill()

    def close(self) -> None:
        """End and release the process.

        An idle process gets time to end by itself, which coverage measurement needs.
        """
        if not self._is_idle:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def _send(self, chunk: bytes) -> bool:
        """Send bytes, and return whether the process is still reading.

        If it is not, it may have printed a result.
        """
        with self._time_limit():
            try:
                self._input.write(chunk)
                self._input.flush()
            except OSError:
                return False
        return True

    def _receive(self) -> Result:
        with self._time_limit():
            line = self._output.readline(MAX_RESULT_BYTES)
        try:
            return msgspec.json.decode(line, type=Result)
        except (msgspec.DecodeError, RecursionError):
            raise ProcessEnded(self._describe_end()) from None

    @contextlib.contextmanager
    def _time_limit(self) -> Iterator[None]:
        """Kill the process when its job has no time left, and then raise TimedOut.

        Killing the process ends any wait for it.
        """
        started_at = time.monotonic()
        timer = threading.Timer(self._remaining_s, self._kill_after_timeout)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            self._remaining_s -= time.monotonic() - started_at
        if self._has_timed_out:
            raise TimedOut

    def _kill_after_timeout(self) -> None:
        self._has_timed_out = True
        self._process.kill()

    def _describe_end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        self._process.kill()
        exit_code = self._process.wait()
        if exit_code < 0:
            return signal.Signals(-exit_code).name
        return f"exit code {exit_code}"


def _child_environment() -> dict[str, str]:
    """Return an environment in which the child imports this package from the same directory."""
    paths = [str(Path(datapilot_defer.__file__).parents[1])]
    inherited = os.environ.get("PYTHONPATH")
    if inherited:
        paths.append(inherited)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
