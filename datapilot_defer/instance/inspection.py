"""Inspect an artifact: at once, or in a child process with limited memory.

    python -c "from datapilot_defer.instance.inspection import main; main()" FILE KIND OLD LIMIT

OLD: the file of the same kind that was current before; "" if none. LIMIT: of the memory, in bytes.
Prints one JSON object, an `InspectionResult`. Whatever a file does to the child, the instance
continues.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

import datapilot_defer
from datapilot_defer import artifact
from datapilot_defer.artifact import Artifact, ArtifactMetadata, Kind
from datapilot_defer.errors import ArtifactRefused
from datapilot_defer.instance.model_changes import (
    ModelChanges,
    compare_models,
    count_models,
    fingerprint_models,
)

# The database does not need more of a text that the file may choose freely.
_MAX_TEXT_LENGTH = 200


@dataclass(frozen=True)
class InspectionResult:
    """Result of an inspection. lines: for the log. changes: None when nothing was compared."""

    accepted: bool
    lines: list[str]
    changes: ModelChanges | None = None


class Inspection:
    """One artifact that a child process inspects. The process is running until `kill`."""

    def __init__(
        self,
        file: Path,
        kind: Kind,
        previous: Path | None,
        *,
        timeout_s: int,
        limit_bytes: int,
    ) -> None:
        """Start the child.

        limit_bytes: its memory, enforced only where the operating system can limit it.
        """
        self._kind = kind
        self._timeout_s = timeout_s
        self._waited_s = 0.0
        self._child = subprocess.Popen(
            _child_command(file, kind, previous, limit_bytes),
            cwd=file.parent,
            env=_child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def wait(self, seconds: float) -> InspectionResult | None:
        """Wait for the result; None when the child is still running.

        A child that failed or exceeded its timeout has a result, too.
        """
        try:
            output, errors = self._child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._waited_s += seconds
            if self._waited_s < self._timeout_s:
                return None
            message = f"{self._kind.file_name}: not looked through within {self._timeout_s} s"
            return InspectionResult(accepted=False, lines=[message])
        return _parse_result(self._child.returncode, output, errors)

    def kill(self) -> None:
        """End the child, if it is running, and release its resources."""
        with self._child:
            self._child.kill()


def describe_content(content: bytes, kind: Kind) -> ArtifactMetadata:
    """Return the metadata of a complete artifact of this kind.

    Raises ArtifactRefused when the bytes are not JSON, or not a `kind` that dbt wrote.
    """
    parsed = artifact.parse_artifact(content, path=kind.file_name, kind=kind)
    if parsed.not_json is not None:
        raise ArtifactRefused(
            f"the {kind.value} that arrived {parsed.not_json}; upload it again, whole"
        )
    _check_kind(parsed)
    metadata = parsed.metadata
    model_count = None
    if kind is Kind.MANIFEST:
        model_count = count_models(parsed.sections)
    return replace(
        metadata,
        dbt_version=_to_storable(metadata.dbt_version),
        project_name=_to_storable(metadata.project_name or metadata.project_id),
        invocation_id=_to_storable(metadata.invocation_id),
        model_count=model_count,
    )


def _check_kind(parsed: Artifact) -> None:
    kind = parsed.kind
    fields = artifact.decode_metadata(parsed.sections)
    detected_kind = artifact.detect_kind(parsed.sections, fields)
    if detected_kind is kind:
        return
    description = "no artifact that dbt writes"
    if detected_kind is not None:
        description = f"a {detected_kind.value}"
    raise ArtifactRefused(
        f"announced as {kind.value}, but this is {description}; upload {kind.file_name}"
    )


def _to_storable(text: str | None) -> str | None:
    """Return a text that every database accepts: no lone surrogates, no NUL, not too long."""
    if text is None:
        return None
    return text.encode(errors="replace").decode().replace("\0", "?")[:_MAX_TEXT_LENGTH]


def main() -> None:
    """Inspect the file that the command line names and print the result."""
    path, kind_name, previous, limit_bytes = sys.argv[1:]
    kind = Kind(kind_name)
    _limit_memory(int(limit_bytes))
    try:
        result = _inspect_file(path, kind, previous)
    except MemoryError:
        message = f"{kind.file_name}: takes more memory than the instance grants"
        result = InspectionResult(accepted=False, lines=[message])
    sys.stdout.write(json.dumps(asdict(result)))


def _inspect_file(path: str, kind: Kind, previous: str) -> InspectionResult:
    from datapilot_defer.validation import validate

    inspected = artifact.read_artifact(path, kind)
    validation = validate(inspected)
    lines = [*validation.format_problems(), *validation.warnings, *validation.drift]
    changes = None
    if kind is Kind.MANIFEST and previous:
        before = artifact.read_artifact(previous, kind)
        changes = compare_models(
            fingerprint_models(before.sections), fingerprint_models(inspected.sections)
        )
    return InspectionResult(validation.is_accepted, lines, changes)


def _limit_memory(limit_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):  # macOS rejects the limit
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def _child_command(file: Path, kind: Kind, previous: Path | None, limit_bytes: int) -> list[str]:
    program = "from datapilot_defer.instance.inspection import main; main()"
    previous_name = ""
    if previous is not None:
        previous_name = previous.name
    arguments = [file.name, kind.value, previous_name, str(limit_bytes)]
    return [sys.executable, "-c", program, *arguments]


def _child_environment() -> dict[str, str]:
    """Return an environment in which the child imports this package from the same directory."""
    paths = [str(Path(datapilot_defer.__file__).parents[1])]
    inherited = os.environ.get("PYTHONPATH")
    if inherited:
        paths.append(inherited)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _parse_result(exit_code: int, output: bytes, errors: bytes) -> InspectionResult:
    try:
        return msgspec.json.decode(output, type=InspectionResult)
    except msgspec.DecodeError:
        last_line = errors.decode(errors="replace").strip().splitlines()[-1:]
        message = f"the inspection ended with {exit_code}"
        return InspectionResult(accepted=False, lines=[message, *last_line])
