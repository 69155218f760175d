"""`datapilot dbt validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from datapilot_defer.artifact import Kind, read_artifact
from datapilot_defer.cli.command import Command
from datapilot_defer.cli.options import legacy_validation_options
from datapilot_defer.cli.output import current_output

if TYPE_CHECKING:
    from datapilot_defer.validation import ValidationResult


@click.command("validate", cls=Command)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    help="What the files must be. [default: whatever dbt artifact each of them is]",
)
@legacy_validation_options
def validate(
    files: tuple[str, ...], kind: str | None, strict: bool, readable_by: str | None
) -> None:
    """Check artifacts of dbt as onboard does, without a network.

    Says of each file whether it is whole, and which dbt can defer to it: what dbt's own loader takes is
    accepted, what it does not take is refused. Ends with 1 when any file is refused. -v lists every problem.
    """
    from datapilot_defer.validation import validate as check

    report = current_output()
    verdicts = []
    for file in files:
        artifact = read_artifact(file, Kind(kind) if kind else None)
        limit = None if report.verbose else 10
        verdicts.append(check(artifact, strict=strict, readable_by=readable_by, limit=limit))
        for warning in verdicts[-1].warnings:
            report.warn(f"{file}: {warning}")
        for line in verdicts[-1].drift:
            report.detail(f"{file}: {line}")
    text = "\n".join(line for verdict in verdicts for line in _format_result(verdict))
    report.print_result({"files": [_result_json(verdict) for verdict in verdicts]}, text)
    if not all(verdict.is_accepted for verdict in verdicts):
        report.exit(1)


def _format_result(verdict: ValidationResult) -> list[str]:
    path = verdict.artifact.path
    if verdict.is_accepted:
        return [f"{path}: accepted: {_format_accepted(verdict)}"]
    return [*verdict.format_problems(), f"{path}: refused"]


def _format_accepted(verdict: ValidationResult) -> str:
    """`manifest of dbt 1.11.16, schema version 12, 34 nodes, for dbt 1.8 and later`."""
    from datapilot_defer.validation.dbt_versions import describe_versions

    artifact = verdict.artifact
    parts = [
        artifact.kind.value
        + (f" of dbt {artifact.metadata.dbt_version}" if artifact.metadata.dbt_version else "")
    ]
    if artifact.metadata.schema_version is not None:
        parts.append(f"schema version {artifact.metadata.schema_version}")
    if artifact.kind is Kind.MANIFEST:
        parts += [
            f"{artifact.metadata.node_count:,} nodes",
            f"for {describe_versions(verdict.readable_by)}",
        ]
    return ", ".join(parts)


def _result_json(verdict: ValidationResult) -> dict[str, object]:
    artifact = verdict.artifact
    return {
        "path": artifact.path,
        "kind": artifact.kind.value,
        "verdict": "accepted" if verdict.is_accepted else "refused",
        "schema_version": artifact.metadata.schema_version,
        "dbt_version": artifact.metadata.dbt_version,
        "readable_by": list(verdict.readable_by),
        "problems": [
            {"path": each.path, "message": each.message, "file": each.file}
            for each in verdict.problems
        ],
        "more_problems": verdict.hidden_problems,
        "warnings": len(verdict.warnings) + len(verdict.drift),
        "size_bytes": artifact.metadata.size_bytes,
        "sha256": artifact.metadata.sha256,
    }
