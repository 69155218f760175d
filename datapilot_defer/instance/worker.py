"""Verification of uploads in separate processes with limited memory and time."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from dataclasses import dataclass, replace

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.verification import Message, Result, Verification
from datapilot_defer.instance.verification_process import (
    Content,
    ProcessEnded,
    TimedOut,
    VerificationProcess,
)

log = logging.getLogger("datapilot_defer.instance")

_STOPPING = "the instance is stopping. Try again."


@dataclass(frozen=True)
class WorkerLimits:
    """Limits of a verification process.

    memory_bytes: enforced only where the operating system can limit the memory. seconds: for one
    upload. max_jobs, max_peak_bytes: the process is replaced after this many uploads, or when it
    has used more memory than this.
    """

    memory_bytes: int = 2 * 1024**3
    seconds: float = 60
    max_jobs: int = 100
    max_peak_bytes: int = 300_000_000


@dataclass(frozen=True)
class _Job:
    kind: Kind
    content: Content
    previous: Content | None


class VerificationWorker:
    """A worker with one verification process, which is replaced when it fails.

    Several threads may share a worker.
    """

    def __init__(self, limits: WorkerLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._process: VerificationProcess | None = None
        self._is_stopping = False

    @property
    def process_id(self) -> int | None:
        """Return the ID of the running process, or None if there is none."""
        process = self._process
        if process is None:
            return None
        return process.process_id

    def start(self) -> None:
        """Start the process, so that the first upload does not wait for its imports.

        Raises Unavailable when the operating system cannot start it.
        """
        with self._lock:
            self._running_process()

    def stop(self) -> None:
        """End the process. A running call to `verify` then raises Unavailable."""
        self._is_stopping = True
        process = self._process
        if process is not None and self._lock.locked():
            process.kill()
        with self._lock:
            if self._process is not None:
                self._process.close()
            self._process = None

    def verify(self, kind: Kind, content: Content, previous: Content | None) -> Verification:
        """Verify one artifact, after the verifications of other threads.

        previous: the manifest that the artifact would replace. If the comparison fails, the
        artifact can still be valid. `changes` and `relations` are then None, and the report
        explains why. Raises Unavailable when the content cannot be read, the process cannot be
        started, or the worker is stopped.
        """
        job = _Job(kind, content, previous)
        with self._lock:
            try:
                return self._run(job, is_retry=False)
            except ProcessEnded as ending:
                log.warning("a verification process ended unexpectedly (%s); retrying", ending)
                return self._run(job, is_retry=True)

    def _run(self, job: _Job, *, is_retry: bool) -> Verification:
        """Run a job and return its result. A retry does not raise ProcessEnded."""
        process = self._running_process()
        is_reusable = False
        try:
            process.begin_job(self._limits.seconds)
            result = self._ask_all(process, job, is_retry=is_retry)
            is_reusable = self._is_reusable(process, result)
        finally:
            if not is_reusable:
                self._replace_process()
        return result.verification

    def _ask_all(self, process: VerificationProcess, job: _Job, *, is_retry: bool) -> Result:
        previous = job.previous
        is_compared = previous is not None and job.kind is Kind.MANIFEST
        message = Message(job.kind, job.content.size_bytes, is_compared=is_compared)
        result = self._ask(process, message, job.content, is_retry=is_retry)
        if not is_compared or previous is None or result.verification.problem is not None:
            return result
        message = Message(job.kind, previous.size_bytes, is_previous=True)
        try:
            comparison = self._ask(process, message, previous, is_retry=is_retry)
        except Unavailable as error:
            if self._is_stopping:
                raise
            # A missing or damaged current manifest must not prevent its replacement.
            comparison = Result(Verification(problem=str(error)), is_last=True)
        return replace(
            comparison, verification=_add_comparison(result.verification, comparison.verification)
        )

    def _ask(
        self, process: VerificationProcess, message: Message, content: Content, *, is_retry: bool
    ) -> Result:
        try:
            return process.ask(message, content)
        except TimedOut:
            problem = f"verification took longer than {self._limits.seconds:g} s"
        except ProcessEnded as ending:
            if self._is_stopping:
                raise Unavailable(_STOPPING) from None
            if not is_retry:
                raise
            problem = f"the verification process ended unexpectedly ({ending})"
        log.warning("%s: %s", message.kind.file_name, problem)
        return Result(Verification(problem=problem), is_last=True)

    def _is_reusable(self, process: VerificationProcess, result: Result) -> bool:
        if result.is_last or process.jobs >= self._limits.max_jobs:
            return False
        return (result.peak_bytes or 0) <= self._limits.max_peak_bytes

    def _running_process(self) -> VerificationProcess:
        if self._process is None:
            self._process = VerificationProcess(self._limits.memory_bytes)
        # `stop` either sees this process, or has already set this flag.
        if self._is_stopping:
            raise Unavailable(_STOPPING)
        return self._process

    def _replace_process(self) -> None:
        """Start a new process before the next upload needs it, and close the old one."""
        process = self._process
        self._process = None
        with contextlib.suppress(Unavailable):
            self._running_process()
        if process is not None:
            process.close()


class VerificationPool:
    """A pool of workers. If none is idle, `verify` waits for one."""

    def __init__(self, count: int, limits: WorkerLimits) -> None:
        self._workers = [VerificationWorker(limits) for _ in range(count)]
        self._idle: queue.SimpleQueue[VerificationWorker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def start(self) -> None:
        """Start the processes. Raises Unavailable when the operating system cannot start one."""
        for worker in self._workers:
            worker.start()

    def stop(self) -> None:
        """End the processes. A running call to `verify` then raises Unavailable."""
        for worker in self._workers:
            worker.stop()

    def verify(self, kind: Kind, content: Content, previous: Content | None) -> Verification:
        """Verify one artifact as `VerificationWorker.verify` does."""
        worker = self._idle.get()
        try:
            return worker.verify(kind, content, previous)
        finally:
            self._idle.put(worker)


def _add_comparison(verification: Verification, comparison: Verification) -> Verification:
    if comparison.problem is None:
        return replace(verification, changes=comparison.changes, relations=comparison.relations)
    line = f"not compared with the current manifest: {comparison.problem}"
    return replace(verification, report=(*verification.report, line))
