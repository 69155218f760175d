"""The verification process, which inspects uploaded artifacts one after another.

The instance starts the process with `main` and sends messages to its standard input. The module
`verification` describes these messages. The process stores nothing on disk and ends when its
standard input ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import re
import signal
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import msgspec

from datapilot_defer import artifact
from datapilot_defer.artifact import Artifact, ArtifactMetadata, Kind
from datapilot_defer.formatting import REPLACEMENT, plural, to_single_line
from datapilot_defer.instance.model_changes import (
    ManifestSummary,
    compare_models,
    compare_relations,
    count_models,
    summarize_manifest,
)
from datapilot_defer.instance.verification import (
    MAX_RESULT_BYTES,
    Message,
    Result,
    Verification,
)
from datapilot_defer.validation import ValidationResult, validate, warm_up

# Limits on the texts that come from an artifact.
_MAX_FACT_LENGTH = 200
_MAX_LINE_LENGTH = 500
_MAX_REPORT_BYTES = 16_000
_MAX_PROBLEM_LENGTH = 1000
_MAX_PROBLEMS = 100


def main() -> None:
    """Verify artifacts until standard input ends or memory is exhausted.

    The command-line argument is the memory limit in bytes.
    """
    # The instance also receives Ctrl+C and the signals from a supervisor, and it ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.excepthook = _print_location
    _limit_resources(int(sys.argv[1]))
    output = sys.stdout.buffer
    # Only results may be written to standard output.
    sys.stdout = sys.stderr
    source = _Input(sys.stdin.fileno())
    _prepare(source)
    inspector = Inspector()
    is_last = False
    while not is_last:
        result = _answer_next(source, inspector)
        if result is None:
            return
        output.write(_encode_result(result) + b"\n")
        output.flush()
        is_last = result.is_last


class Inspector:
    """A verifier of artifacts, which can also compare a valid manifest with the previous one."""

    def __init__(self) -> None:
        self._summary: ManifestSummary | None = None

    def verify(self, content: bytes, kind: Kind, *, is_compared: bool = False) -> Verification:
        """Validate an artifact as `datapilot dbt validate` does.

        is_compared: whether `compare` is called next if the artifact is valid.
        """
        inspected = artifact.parse_artifact(content, path=kind.file_name, kind=kind)
        validation = validate(inspected, max_problems=_MAX_PROBLEMS)
        lines = [*validation.format_problems(), *validation.warnings, *validation.drift]
        verification = Verification(_describe(inspected), report=_limit_report(lines))
        if not validation.is_accepted:
            return replace(verification, problem=_describe_problems(validation))
        if is_compared:
            self._summary = summarize_manifest(inspected.sections)
        return verification

    def compare(self, previous: bytes) -> Verification:
        """Return the differences between the manifest that was just verified and the previous one.

        previous: the bytes of the previous manifest. The result contains only the differences, or
        the problem that prevented the comparison.
        """
        summary = self._summary
        self._summary = None
        parsed = artifact.parse_artifact(previous, path=Kind.MANIFEST.file_name, kind=Kind.MANIFEST)
        if summary is None or parsed.not_json is not None:
            return Verification(problem="the current manifest cannot be read")
        before = summarize_manifest(parsed.sections)
        return Verification(
            changes=compare_models(before, summary), relations=compare_relations(before, summary)
        )


class _Input:
    """Standard input, read by a thread. When it ends, the process ends, even during a job."""

    def __init__(self, descriptor: int) -> None:
        # The content is None if it does not fit into memory.
        self._received: queue.SimpleQueue[tuple[Message, bytes | None] | None]
        self._received = queue.SimpleQueue()
        self._is_idle = threading.Event()
        threading.Thread(target=self._read_all, args=[descriptor], daemon=True).start()

    def has_content(self) -> bool:
        """Return whether `receive` would return immediately."""
        return not self._received.empty()

    def receive(self) -> tuple[Message, bytes] | None:
        """Return the next message and its content, or None at the end of the input.

        Raises MemoryError when the content does not fit into memory.
        """
        self._is_idle.set()
        received = self._received.get()
        if received is None:
            return None
        message, content = received
        if content is None:
            raise MemoryError
        return message, content

    def _read_all(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            while line := stream.readline():
                message = msgspec.json.decode(line, type=Message)
                self._is_idle.clear()
                try:
                    content = stream.read(message.size_bytes)
                except MemoryError:
                    self._received.put((message, None))
                    return
                if len(content) < message.size_bytes:
                    break
                self._received.put((message, content))
                # The receiver releases the content as soon as possible. This thread must not keep
                # it either.
                del content
        if not self._is_idle.is_set():
            os._exit(1)  # the instance has ended, so no process reads the result
        self._received.put(None)


def _prepare(source: _Input) -> None:
    """Warm up for the first verification until its message arrives."""
    for _ in warm_up():
        if source.has_content():
            break
    # Exclude schemas and modules, which are never released, from the garbage collection after each
    # job.
    gc.freeze()


def _answer_next(source: _Input, inspector: Inspector) -> Result | None:
    """Return the result for the next message, or None at the end of the input."""
    try:
        verification = _inspect_next(source, inspector)
    except MemoryError:
        problem = "verification needs more memory than the instance allows"
        return Result(Verification(problem=problem), is_last=True)
    if verification is None:
        return None
    # A rejected artifact can be part of a reference cycle with the error that describes it.
    gc.collect()
    return Result(verification, peak_bytes=_peak_bytes())


def _inspect_next(source: _Input, inspector: Inspector) -> Verification | None:
    received = source.receive()
    if received is None:
        return None
    message, content = received
    if message.is_previous:
        return inspector.compare(content)
    return inspector.verify(content, message.kind, is_compared=message.is_compared)


def _describe(inspected: Artifact) -> ArtifactMetadata:
    """Return the metadata of an artifact and the number of its models.

    All texts are limited to what every database and terminal accepts.
    """
    metadata = inspected.metadata
    model_count = None
    if metadata.kind is Kind.MANIFEST:
        model_count = count_models(inspected.sections)
    return replace(
        metadata,
        dbt_version=_to_fact(metadata.dbt_version),
        # Manifests of dbt versions before 1.6 contain only the MD5 hash of the project name.
        project_name=_to_fact(metadata.project_name or metadata.project_id),
        project_id=_to_fact(metadata.project_id),
        adapter_type=_to_fact(metadata.adapter_type),
        invocation_id=_to_fact(metadata.invocation_id),
        model_count=model_count,
    )


def _to_fact(text: str | None) -> str | None:
    """Return a text as one line of printable characters, or None if the text is empty.

    A text without printable characters is replaced by a placeholder.
    """
    if not text:
        return None
    return to_single_line(text[:_MAX_FACT_LENGTH], _MAX_FACT_LENGTH) or REPLACEMENT


def _describe_problems(validation: ValidationResult) -> str:
    """Return the first problem and the number of further problems as one line."""
    first_line = validation.problems[0].format_line(validation.artifact.path)
    problem = to_single_line(first_line[:_MAX_PROBLEM_LENGTH], _MAX_PROBLEM_LENGTH - 50)
    others = len(validation.problems) - 1 + validation.hidden_problems
    if not others:
        return problem
    count = plural(others, "more problem")
    if validation.is_truncated:
        count = f"at least {count}"
    return f"{problem} (and {count})"


def _limit_report(lines: list[str]) -> tuple[str, ...]:
    """Return as many of the first lines as fit into _MAX_REPORT_BYTES."""
    report: list[str] = []
    remaining_bytes = _MAX_REPORT_BYTES
    for text in lines:
        line = to_single_line(text[:_MAX_LINE_LENGTH], _MAX_LINE_LENGTH)
        remaining_bytes -= len(msgspec.json.encode(line)) + 1
        if remaining_bytes < 0:
            break
        report.append(line)
    return tuple(report)


def _encode_result(result: Result) -> bytes:
    encoded = msgspec.json.encode(result)
    if len(encoded) < MAX_RESULT_BYTES:
        return encoded
    problem = "the result of the verification is too large"
    return msgspec.json.encode(Result(Verification(problem=problem)))


def _peak_bytes() -> int | None:
    """Return the peak memory use of this process in bytes, or None where it is unknown."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        if match is not None:
            return int(match.group(1)) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _limit_resources(memory_bytes: int) -> None:
    """Limit the memory if the system permits it, and prevent core dumps of uploaded content."""
    if sys.platform == "win32":
        return
    import resource

    for name, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS rejects the memory limit
            resource.setrlimit(name, (limit, limit))


def _print_location(
    error_type: type[BaseException], _: BaseException, location: TracebackType | None
) -> None:
    """Print the type and location of an unexpected error.

    Its message is not printed, because it may quote an upload.
    """
    lines = traceback.format_tb(location)
    print(f"verification failed: {error_type.__name__}", *lines, sep="\n", file=sys.stderr)
