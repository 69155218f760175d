"""Verification of uploads in a process of its own, whose memory and time are limited."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import msgspec

import datapilot_defer
from datapilot_defer.artifact import Kind
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.inspection import (
    MAX_RESULT_BYTES,
    SEND_PREVIOUS,
    Job,
    Result,
    Verification,
)

log = logging.getLogger("datapilot_defer.instance")

_PROGRAM = "from datapilot_defer.instance.inspection import main; main()"
_STOP_TIMEOUT_S = 5


class Content(Protocol):
    """The bytes of an artifact, which may be read more than once."""

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes."""

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in chunks."""


@dataclass(frozen=True)
class WorkerLimits:
    """Limits of the process.

    memory_bytes: enforced only where the operating system can limit it. seconds: for one upload.
    max_jobs, max_peak_bytes: the process is replaced after so many uploads, and when it has used
    more memory.
    """

    memory_bytes: int = 2 * 1024**3
    seconds: float = 60
    max_jobs: int = 100
    max_peak_bytes: int = 300_000_000


class _ProcessEnded(Exception):
    """The process ended, or broke the protocol, before it printed a result."""


class VerificationWorker:
    """One verification process, which is replaced when it fails. Threads may share it."""

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs = 0
        self._is_stopping = False
        self._has_timed_out = False

    def start(self) -> None:
        """Start the process, so that the first upload does not wait for its imports."""
        with self._lock:
            self._replace_process()

    def stop(self) -> None:
        """End the process. A running `verify` raises Unavailable."""
        self._is_stopping = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end_process()

    def verify(self, kind: Kind, content: Content, previous: Content | None) -> Verification:
        """Verify one artifact; wait for the verifications of other threads.

        previous: the manifest that it would replace. Raises Unavailable when the content cannot
        be read or the worker is stopped.
        """
        with self._lock:
            for _ in range(2):
                try:
                    return self._run_job(kind, content, previous)
                except _ProcessEnded as error:
                    ending = str(error)
            problem = f"the verification process ended unexpectedly ({ending})"
            return Verification(problem=problem)

    def _run_job(self, kind: Kind, content: Content, previous: Content | None) -> Verification:
        process = self._process or self._replace_process()
        is_usable = False
        self._has_timed_out = False
        timer = threading.Timer(self._limits.seconds, self._kill_after_timeout, [process])
        timer.daemon = True
        timer.start()
        try:
            result = self._exchange(process, kind, content, previous)
            is_usable = self._is_usable(result)
        finally:
            timer.cancel()
            if not is_usable:
                self._replace_process()
        return result.verification

    def _kill_after_timeout(self, process: subprocess.Popen[bytes]) -> None:
        self._has_timed_out = True
        process.kill()

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        kind: Kind,
        content: Content,
        previous: Content | None,
    ) -> Result:
        """Send one job and return its result. Raises _ProcessEnded."""
        previous_bytes = None
        if previous is not None:
            previous_bytes = previous.size_bytes
        job = Job(kind, content.size_bytes, previous_bytes)
        _send(process, [msgspec.json.encode(job) + b"\n"])
        _send(process, content.chunks())
        line = self._read_line(process)
        if line == SEND_PREVIOUS and previous is not None:
            _send(process, previous.chunks())
            line = self._read_line(process)
        if not line and self._has_timed_out:
            seconds = f"{self._limits.seconds:.0f} s"
            problem = f"verification took longer than {seconds}"
            return Result(Verification(problem=problem), is_exhausted=True)
        try:
            return msgspec.json.decode(line, type=Result)
        except msgspec.DecodeError:
            raise _ProcessEnded(_describe_end(process)) from None

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes:
        """Return the next line; b"" at the end. Raises Unavailable when the worker is stopped."""
        line = _pipe(process.stdout).readline(MAX_RESULT_BYTES)
        if not line and self._is_stopping:
            raise Unavailable("the instance is stopping. Try again.")
        return line

    def _is_usable(self, result: Result) -> bool:
        self._jobs += 1
        if result.is_exhausted or self._jobs >= self._limits.max_jobs:
            return False
        return (result.peak_bytes or 0) <= self._limits.max_peak_bytes

    def _replace_process(self) -> subprocess.Popen[bytes]:
        self._end_process()
        if self._is_stopping:
            raise Unavailable("the instance is stopping. Try again.")
        self._jobs = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(self._limits.memory_bytes)],
            env=_child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self._process

    def _end_process(self) -> None:
        process = self._process
        self._process = None
        if process is None:
            return
        with contextlib.suppress(OSError):
            _pipe(process.stdin).close()
        try:
            # An idle process ends by itself, in time to save what a debugger or coverage measured.
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()


def _send(process: subprocess.Popen[bytes], chunks: Iterable[bytes]) -> None:
    """Write to the process, unless it has ended: what it printed before is read afterwards."""
    pipe = _pipe(process.stdin)
    with contextlib.suppress(OSError):
        for chunk in chunks:
            pipe.write(chunk)
        pipe.flush()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the process was started without this pipe")
    return pipe


def _describe_end(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    exit_code = process.wait()
    if exit_code < 0:
        return f"signal {-exit_code}"
    return f"exit code {exit_code}"


def _child_environment() -> dict[str, str]:
    """Return an environment in which the child imports this package from the same directory."""
    paths = [str(Path(datapilot_defer.__file__).parents[1])]
    inherited = os.environ.get("PYTHONPATH")
    if inherited:
        paths.append(inherited)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
