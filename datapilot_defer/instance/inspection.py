"""A closer look at one artifact, in a process of its own: whatever the file does to it, the instance goes on.

    python -c "from datapilot_defer.instance.inspection import main; main()" FILE KIND PREVIOUS LIMIT_BYTES

PREVIOUS: the file of the same kind that was current before; empty: none. Prints one JSON object, a `Findings`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datapilot_defer
from datapilot_defer import artifact, dbt_json
from datapilot_defer.artifact import Kind

# Names in one list of changes; the counts are always whole.
_MAX_NAMES = 100
_MODEL_PARTS = (
    "checksum",
    "config",
    "database",
    "schema",
    "alias",
    "columns",
    "description",
    "access",
    "contract",
)
_PULSE_SECONDS = 3


@dataclass(frozen=True)
class InspectionResult:
    """What a closer look found. lines: for the log. changes: see `changes_between`; None: nothing to compare."""

    accepted: bool
    lines: list[str]
    changes: dict[str, Any] | None = None


def inspect(
    file: Path,
    kind: Kind,
    previous: Path | None,
    *,
    seconds: int,
    limit_bytes: int,
    pulse: Callable[[], bool],
) -> InspectionResult | None:
    """Look at a file in a child process; gives what it found, also when the child failed.

    seconds, limit_bytes: what the child may take (memory only where the operating system can limit it).
    pulse: called every few seconds; False ends the child, and gives None; what it raises ends the child, too.
    """
    with subprocess.Popen(
        _child_command(file, kind, previous, limit_bytes),
        cwd=file.parent,
        env=_child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            return _awaited(child, kind, seconds, pulse)
        finally:
            child.kill()  # also when `pulse` raises; does nothing to a child that ended


def _awaited(
    child: subprocess.Popen[bytes], kind: Kind, seconds: int, pulse: Callable[[], bool]
) -> InspectionResult | None:
    waited = 0
    while True:
        try:
            output, complaint = child.communicate(timeout=_PULSE_SECONDS)
            return _parse_result(child.returncode, output, complaint)
        except subprocess.TimeoutExpired:
            waited += _PULSE_SECONDS
        if not pulse():
            return None
        if waited >= seconds:
            return InspectionResult(
                accepted=False, lines=[f"{kind.file_name}: not looked through within {seconds} s"]
            )


def compare_models(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    """Compare the models of two manifests: how many were "added", "removed" and "changed", and the names of some.

    before, after: the models' fingerprints by their unique_id.
    """
    found = {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(
            name for name in before.keys() & after.keys() if before[name] != after[name]
        ),
    }
    names = {
        word: [name.removeprefix("model.") for name in some[:_MAX_NAMES]]
        for word, some in found.items()
    }
    return {**{word: len(some) for word, some in found.items()}, "names": names}


def fingerprint_models(content: bytes) -> dict[str, str]:
    """Give a fingerprint of each model in a manifest, by its unique_id: of what its author wrote, not of the run."""
    try:
        nodes = dbt_json.entries(dbt_json.split(content)["nodes"])
    except (KeyError, dbt_json.NotJsonError):
        return {}
    return {
        name: _fingerprint_model(node) for name, node in nodes.items() if name.startswith("model.")
    }


def main() -> None:
    """Look at the file that the command line names, and print what was found."""
    path, kind, previous, limit = sys.argv[1:]
    _limit_memory(int(limit))
    try:
        found = _inspect_file(path, Kind(kind), previous)
    except MemoryError:
        found = InspectionResult(
            accepted=False,
            lines=[f"{Kind(kind).file_name}: takes more memory than the instance grants"],
        )
    sys.stdout.write(json.dumps(asdict(found)))


def _inspect_file(path: str, kind: Kind, previous: str) -> InspectionResult:
    from datapilot_defer.validation import validate

    verdict = validate(artifact.read_artifact(path, kind))
    lines = [*verdict.format_problems(), *verdict.warnings, *verdict.drift]
    if kind is not Kind.MANIFEST:
        return InspectionResult(verdict.is_accepted, lines)
    mine = fingerprint_models(verdict.artifact.content)
    before = fingerprint_models(Path(previous).read_bytes()) if previous else None
    return InspectionResult(
        verdict.is_accepted, lines, compare_models(before, mine) if before is not None else None
    )


def _fingerprint_model(node: Any) -> str:
    try:
        parts = dbt_json.decode(node)
    except dbt_json.NotJsonError:
        parts = None
    told = (
        [parts.get(key) for key in _MODEL_PARTS] if isinstance(parts, dict) else bytes(node).hex()
    )
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _limit_memory(limit_bytes: int) -> None:
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):  # macOS knows the limit and refuses it
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def _child_command(file: Path, kind: Kind, previous: Path | None, limit_bytes: int) -> list[str]:
    program = "from datapilot_defer.instance.inspection import main; main()"
    return [
        sys.executable,
        "-c",
        program,
        file.name,
        kind.value,
        previous.name if previous else "",
        str(limit_bytes),
    ]


def _child_environment() -> dict[str, str]:
    """The child imports this very package, wherever it was imported from."""
    here = str(Path(datapilot_defer.__file__).parents[1])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))),
    }


def _parse_result(code: int, output: bytes, complaint: bytes) -> InspectionResult:
    try:
        return InspectionResult(**json.loads(output))
    except (ValueError, TypeError):
        last = complaint.decode(errors="replace").strip().splitlines()[-1:]
        return InspectionResult(accepted=False, lines=[f"the inspection ended with {code}", *last])
