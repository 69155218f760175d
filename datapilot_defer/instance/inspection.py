"""The verification process: inspects one uploaded artifact after the other.

The instance starts it with `main` and sends jobs to its standard input: a line of JSON (`Job`),
then the bytes of the artifact. When the process has accepted a manifest that another one precedes,
it prints the line `SEND_PREVIOUS` and receives the bytes of that manifest. It prints each result
as one line of JSON, a `Result`, of at most MAX_RESULT_BYTES.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import re
import signal
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from datapilot_defer import artifact
from datapilot_defer.artifact import Artifact, ArtifactMetadata, Kind
from datapilot_defer.formatting import plural, to_single_line
from datapilot_defer.instance.model_changes import (
    ManifestSummary,
    ModelChanges,
    RelationChanges,
    compare_models,
    compare_relations,
    summarize_manifest,
)
from datapilot_defer.validation import ValidationResult, validate

MAX_RESULT_BYTES = 64 * 1024
SEND_PREVIOUS = b"send previous\n"
_READ_BYTES = 1 << 20
_QUEUED_READS = 4
# The database does not need more of a text that the file may choose freely.
_MAX_FACT_LENGTH = 200
_MAX_LINE_LENGTH = 500
_MAX_REPORT_BYTES = 16 * 1024
_MAX_PROBLEM_LENGTH = 1000
_MAX_PROBLEMS = 100


@dataclass(frozen=True)
class Job:
    """One artifact to verify. previous_bytes: size of the manifest that it would replace."""

    kind: Kind
    size_bytes: int
    previous_bytes: int | None = None


@dataclass(frozen=True)
class Verification:
    """What is known about an uploaded artifact.

    metadata: None when the file could not be read as an artifact. problem: why it is not valid.
    report: lines as `datapilot dbt validate` prints them. changes, relations: differences from the
    previous manifest; None when nothing was compared.
    """

    metadata: ArtifactMetadata | None = None
    problem: str | None = None
    report: tuple[str, ...] = ()
    changes: ModelChanges | None = None
    relations: RelationChanges | None = None


@dataclass(frozen=True)
class Result:
    """What the process answers. peak_bytes: its memory so far; None where it is not known.

    is_exhausted: the process may have too little memory for another job.
    """

    verification: Verification = field(default_factory=Verification)
    peak_bytes: int | None = None
    is_exhausted: bool = False


def main() -> None:
    """Verify artifacts until standard input ends. The argument is the memory limit in bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the instance, which ends this
    _limit_memory(int(sys.argv[1]))
    output = sys.stdout.buffer
    # Nothing but results may reach standard output.
    sys.stdout = sys.stderr
    source = _Input(sys.stdin.fileno())
    while True:
        header = source.read_line()
        if header is None:
            return
        job = msgspec.json.decode(header, type=Job)
        result = _verify_job(job, source, output)
        output.write(_encode_result(result) + b"\n")
        output.flush()


class _Input:
    """Standard input, read by a thread: its end ends the process, also during a job."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._chunks: queue.Queue[bytes] = queue.Queue(_QUEUED_READS)
        self._rest = b""
        self._is_waiting_for_job = threading.Event()
        threading.Thread(target=self._read_all, daemon=True).start()

    def read_line(self) -> bytes | None:
        """Return the next line, of a job; None at the end of the input."""
        self._is_waiting_for_job.set()
        line = bytearray()
        while not line.endswith(b"\n"):
            chunk = self._next_chunk()
            if not chunk:
                return None
            head, separator, self._rest = chunk.partition(b"\n")
            line += head + separator
        self._is_waiting_for_job.clear()
        return bytes(line)

    def read_exactly(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        content = io.BytesIO()
        missing = size
        while missing:
            chunk = self._next_chunk()
            if not chunk:
                os._exit(1)  # the instance has ended
            content.write(chunk[:missing])
            self._rest = chunk[missing:]
            missing = size - content.tell()
        return content.getvalue()

    def _next_chunk(self) -> bytes:
        if self._rest:
            chunk = self._rest
            self._rest = b""
            return chunk
        return self._chunks.get()

    def _read_all(self) -> None:
        while True:
            chunk = os.read(self._descriptor, _READ_BYTES)
            if not chunk and not self._is_waiting_for_job.is_set():
                os._exit(1)  # the instance has ended, and nothing reads the result
            self._chunks.put(chunk)
            if not chunk:
                return


def _verify_job(job: Job, source: _Input, output: BinaryIO) -> Result:
    try:
        content = source.read_exactly(job.size_bytes)
        verification, summary = _verify_content(content, job)
        del content
        if summary is not None:
            output.write(SEND_PREVIOUS)
            output.flush()
            previous = source.read_exactly(job.previous_bytes or 0)
            verification = _compare(verification, summary, previous)
    except MemoryError:
        problem = "verification needs more memory than the instance allows"
        return Result(Verification(problem=problem), is_exhausted=True)
    except Exception as error:  # noqa: BLE001
        # A defect of this program must not end the instance. The file is not current then.
        problem = f"the file could not be verified: {type(error).__name__}"
        return Result(Verification(problem=problem), is_exhausted=True)
    return Result(verification, peak_bytes=_peak_bytes())


def _verify_content(content: bytes, job: Job) -> tuple[Verification, ManifestSummary | None]:
    """Return what is known about an artifact, and a summary if it is to be compared."""
    kind = job.kind
    inspected = artifact.parse_artifact(content, path=kind.file_name, kind=kind)
    validation = validate(inspected, max_problems=_MAX_PROBLEMS)
    report = _limit_report([*validation.format_problems(), *validation.warnings, *validation.drift])
    if not validation.is_accepted:
        metadata = _describe(inspected, None)
        problem = _describe_problems(validation)
        return Verification(metadata=metadata, problem=problem, report=report), None
    if kind is not Kind.MANIFEST:
        return Verification(metadata=_describe(inspected, None), report=report), None
    summary = summarize_manifest(inspected.sections)
    verification = Verification(metadata=_describe(inspected, summary), report=report)
    if job.previous_bytes is None:
        return verification, None
    return verification, summary


def _compare(verification: Verification, summary: ManifestSummary, previous: bytes) -> Verification:
    parsed = artifact.parse_artifact(previous, path=Kind.MANIFEST.file_name, kind=Kind.MANIFEST)
    previous_summary = summarize_manifest(parsed.sections)
    return replace(
        verification,
        changes=compare_models(previous_summary, summary),
        relations=compare_relations(previous_summary, summary),
    )


def _describe(inspected: Artifact, summary: ManifestSummary | None) -> ArtifactMetadata:
    """Return the facts of an artifact, with texts that every database and terminal accepts."""
    metadata = inspected.metadata
    model_count = None
    if summary is not None:
        model_count = len(summary.fingerprints)
    return replace(
        metadata,
        dbt_version=_to_storable(metadata.dbt_version),
        # Manifests before dbt 1.6 have no name of the project, only its MD5.
        project_name=_to_storable(metadata.project_name or metadata.project_id),
        project_id=_to_storable(metadata.project_id),
        adapter_type=_to_storable(metadata.adapter_type),
        invocation_id=_to_storable(metadata.invocation_id),
        model_count=model_count,
    )


def _to_storable(text: str | None) -> str | None:
    """Return a text without line breaks, control characters and half surrogate pairs."""
    if text is None:
        return None
    shortened = text[: 2 * _MAX_FACT_LENGTH].encode(errors="replace").decode()
    return to_single_line(shortened, _MAX_FACT_LENGTH)


def _describe_problems(validation: ValidationResult) -> str:
    """Return the first problem, and the number of the others, as one line."""
    lines = validation.format_problems()
    problem = _to_line(lines[0], _MAX_PROBLEM_LENGTH)
    more = len(lines) - 1
    if more:
        problem += f" (and {plural(more, 'more problem')})"
    return problem


def _limit_report(lines: list[str]) -> tuple[str, ...]:
    """Return the first lines, within the number of bytes that is stored."""
    report: list[str] = []
    remaining_bytes = _MAX_REPORT_BYTES
    for text in lines:
        line = _to_line(text, _MAX_LINE_LENGTH)
        remaining_bytes -= len(msgspec.json.encode(line)) + 1
        if remaining_bytes < 0:
            break
        report.append(line)
    return tuple(report)


def _to_line(text: str, max_length: int) -> str:
    storable = text[: 2 * max_length].encode(errors="replace").decode()
    return to_single_line(storable, max_length)


def _encode_result(result: Result) -> bytes:
    encoded = msgspec.json.encode(result)
    if len(encoded) < MAX_RESULT_BYTES:
        return encoded
    problem = "the result of the verification is too large"
    return msgspec.json.encode(Result(Verification(problem=problem), is_exhausted=True))


def _peak_bytes() -> int | None:
    """Return the largest amount of memory that this process has used; None where it is unknown."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    if match is None:
        return None
    return int(match.group(1)) * 1024


def _limit_memory(limit_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):  # macOS rejects the limit
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
