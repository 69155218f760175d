"""The command `datapilot dbt validate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datapilot_defer import ci_log
from datapilot_defer.artifact import Kind, read_artifact
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import start_deadline, timeout_option, validation_options
from datapilot_defer.cli.output import current_output
from datapilot_defer.errors import ArtifactRefused
from datapilot_defer.formatting import as_one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datapilot_defer.cli.output import Output
    from datapilot_defer.validation import ValidationOptions, ValidationResult

_MAX_LISTED_PROBLEMS = 10


@click.command("validate", cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    help="Require every file to be of this kind. [default: any kind]",
)
@validation_options
@timeout_option
def validate(
    files: tuple[str, ...], kind: str | None, validation: ValidationOptions, timeout: float | None
) -> None:
    """Validate dbt artifacts offline.

    Uses the same rules as `datapilot dbt onboard`. For each file, prints whether it is valid, and
    for a manifest which versions of dbt can defer to it. Exits with 1 if a file is rejected. -v
    lists every problem.

    \b
    Examples:
      datapilot dbt validate target/manifest.json
      datapilot dbt validate target/*.json --readable-by 1.11 --json
    """
    from datapilot_defer.validation import validate as validate_artifact

    output = current_output()
    expected_kind = None
    if kind:
        expected_kind = Kind(kind)
    max_problems: int | None = _MAX_LISTED_PROBLEMS
    if output.verbose:
        max_problems = None
    deadline = start_deadline(timeout)
    results = []
    for file in files:
        artifact = read_artifact(file, expected_kind, deadline=deadline)
        result = validate_artifact(artifact, validation, max_problems=max_problems)
        results.append(result)
        _print_warnings(output, result)
    _print_results(output, results)


def _print_results(output: Output, results: Sequence[ValidationResult]) -> None:
    """Print the results and exit with their exit code."""
    for result in results:
        _annotate_refusal(output, result)
    text = "\n".join(line for result in results for line in _format_result(result))
    exit_code = 0
    if not all(result.is_accepted for result in results):
        exit_code = ArtifactRefused.exit_code
        output.summarize("rejected", text)
    data = {
        "ok": exit_code == 0,
        "exit_code": exit_code,
        "files": [_result_json(result) for result in results],
    }
    output.print_result(data, text)
    output.exit(exit_code)


def _print_warnings(output: Output, result: ValidationResult) -> None:
    path = result.artifact.path
    for warning in result.warnings:
        output.warn(f"{path}: {warning}")
    for difference in result.drift:
        output.detail(f"{path}: {difference}")


def _annotate_refusal(output: Output, result: ValidationResult) -> None:
    """Add an annotation to a GitHub job for a rejected file, at the source of the first problem."""
    if result.is_accepted:
        return
    output.annotate_error("\n".join(_format_result(result)), _find_source(result))


def _find_source(result: ValidationResult) -> str | None:
    """Return the source file of the first problem; None if it is not in the repository."""
    source = result.problems[0].file
    if source is None:
        return None
    target = Path(result.artifact.path).parent
    for project in (Path(), target.parent):
        path = ci_log.path_in_checkout(os.environ, project / source)
        if path is not None:
            return path
    return None


def _format_result(result: ValidationResult) -> list[str]:
    path = as_one_line(result.artifact.path)
    if result.is_accepted:
        return [f"{path}: accepted: {_format_accepted(result)}"]
    return [*result.format_problems(), f"{path}: rejected"]


def _format_accepted(result: ValidationResult) -> str:
    """Return a description of an accepted artifact.

    An example is "manifest of dbt 1.11.16, schema version 12, 34 nodes, for dbt 1.8 and later".
    """
    from datapilot_defer.validation.dbt_versions import describe_versions

    metadata = result.artifact.metadata
    description = metadata.kind.value
    if metadata.dbt_version:
        description += f" of dbt {metadata.dbt_version}"
    parts = [description]
    if metadata.schema_version is not None:
        parts.append(f"schema version {metadata.schema_version}")
    if metadata.kind is Kind.MANIFEST:
        parts.append(f"{metadata.node_count:,} nodes")
        parts.append(f"for {describe_versions(result.readable_by)}")
    return ", ".join(parts)


def _result_json(result: ValidationResult) -> dict[str, object]:
    metadata = result.artifact.metadata
    verdict = "refused"
    if result.is_accepted:
        verdict = "accepted"
    return {
        "path": result.artifact.path,
        "kind": metadata.kind.value,
        "verdict": verdict,
        "schema_version": metadata.schema_version,
        "dbt_version": metadata.dbt_version,
        "readable_by": list(result.readable_by),
        "problems": [
            {"path": problem.path, "message": problem.message, "file": problem.file}
            for problem in result.problems
        ],
        "more_problems": result.hidden_problems,
        "warnings": len(result.warnings) + len(result.drift),
        "size_bytes": metadata.size_bytes,
        "sha256": metadata.sha256,
    }
