"""`datapilot dbt defer explain`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import Origin, defer_options, described
from datapilot_defer.cli.output import current_output
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.defer.explain import Reference
    from datapilot_defer.defer.state import PreparedState


@click.command("explain", cls=Command)
@click.option(
    "--select",
    "-s",
    "select",
    multiple=True,
    metavar="SELECTION",
    help="Models to explain, as for dbt.",
)
@click.option(
    "--exclude", multiple=True, metavar="SELECTION", help="Models to leave out, as for dbt."
)
@click.option("--selector", metavar="NAME", help="A selector of selectors.yml, as for dbt.")
@click.option(
    "--for",
    "command",
    type=click.Choice(["build", "run", "compile"]),
    default="build",
    show_default=True,
    help="The dbt command to explain: build and run build what is selected, compile does not.",
)
@click.option("--target", "-t", metavar="NAME", help="As for dbt.")
@click.option("--profile", metavar="NAME", help="As for dbt.")
@click.option("--profiles-dir", metavar="DIR", help="As for dbt.")
@click.option("--vars", "variables", metavar="YAML", help="As for dbt.")
@defer_options
@click.argument("more", nargs=-1, metavar="[SELECTION]...")
def explain(
    select: tuple[str, ...],
    exclude: tuple[str, ...],
    selector: str | None,
    command: str,
    target: str | None,
    profile: str | None,
    profiles_dir: str | None,
    variables: str | None,
    more: tuple[str, ...],
    **options: Any,
) -> None:
    """Say where each reference will lead, and why.

    This is known before anything runs. Without a selection every model is explained as if it were built alone. dbt
    itself is asked which models are selected and which relations exist; nothing in your project or database changes.
    """
    from datapilot_defer.defer import nodes
    from datapilot_defer.defer.dbt_queries import DbtQuery
    from datapilot_defer.defer.explain import DeferContext
    from datapilot_defer.defer.explain import explain_references as explain_references
    from datapilot_defer.pull.update import age

    report = current_output()
    origin = Origin(report, options)
    project = origin.project()
    settings = origin.switched_on(project)
    dbt = origin.dbt()
    state = origin.state(settings, project, dbt)
    pairs = (
        ("--target", target),
        ("--profile", profile),
        ("--profiles-dir", profiles_dir),
        ("--vars", variables),
    )
    flags = [word for name, value in pairs if value for word in (name, value)]
    asker = DbtQuery(dbt, project, flags, os.environ)
    report.detail(f"Asking {dbt.path}, which writes to {asker.work_directory}")
    selection = _selection_arguments((*select, *more), exclude, selector)
    answers = asker.run(selection, state.folder)
    names = {unique_id: node.name for unique_id, node in answers.nodes.items()}
    if answers.selected is not None and not answers.selected:
        _check_selection_not_empty(selection, names.values())
    situation = DeferContext(
        answers.nodes,
        nodes.read_nodes(state.folder / "manifest.json"),
        answers.exists,
        favor_state=settings.favor_state,
        command=command,
        resolves_before_run=dbt.major_minor < (1, 8),
        age=age(state.manifest),
    )
    found = explain_references(situation, selected=answers.selected, project=project.name)
    report.note(f"Deferring to {described(state)}")
    report.print_result(
        _as_json(found, state, settings.favor_state),
        _format_references(found, names, settings.favor_state),
    )


def _selection_arguments(
    select: tuple[str, ...], exclude: tuple[str, ...], selector: str | None
) -> list[str]:
    """The selection in dbt's words."""
    words = ["--select", *select] if select else []
    words += ["--exclude", *exclude] if exclude else []
    return [*words, "--selector", selector] if selector else words


def _check_selection_not_empty(selection: list[str], names: Iterable[str]) -> None:
    """Raises UsageError for a selection of nothing, unless it is of what has changed: that may be nothing."""
    from difflib import get_close_matches

    wanted = [word for word in selection if not word.startswith("--")]
    if any(method in word for word in wanted for method in ("state:", "result:", "source_status:")):
        return
    said = selection[1:] if selection[0] == "--select" else selection
    message = "no node matches " + " ".join(
        word if word.startswith("--") else repr(word) for word in said
    )
    every = sorted(set(names))
    close = (get_close_matches(re.sub(r"^@?\d*\+?|\+\d*$", "", word), every, 1) for word in wanted)
    meant = next((found[0] for found in close if found and found[0] not in wanted), None)
    raise UsageError(message + (f"; did you mean {meant!r}?" if meant else ""))


def _as_json(found: list[Reference], state: PreparedState, favor_state: bool) -> dict[str, object]:
    from datapilot_defer.defer.explain import favor_state_rule

    nodes = state.manifest
    return {
        "references": [asdict(reference) for reference in found],
        "counts": Counter(reference.resolution for reference in found),
        "favor_state": favor_state,
        "rule": favor_state_rule(favor_state),
        "state_dir": str(state.folder),
        "generated_at": nodes.generated_at,
        "age_seconds": round(nodes.age_s) if nodes.age_s is not None else None,
        "commit": nodes.commit,
    }


def _format_references(found: list[Reference], names: dict[str, str], favor_state: bool) -> str:
    """One block per model, its references in columns, and the rule."""
    from datapilot_defer.defer.explain import favor_state_rule

    if not found:
        return "The selection has no model or snapshot that refers to anything."
    rows = [
        (
            f"{names[row.reference]}{_format_via(row, names)}",
            row.relation,
            row.resolution,
            row.reason,
        )
        for row in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines: list[str] = []
    last = ""
    for reference, row in zip(found, rows, strict=True):
        if reference.node != last:
            lines += [*([""] if lines else []), names[reference.node]]
            last = reference.node
        columns = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True))
        lines.append(f"  {columns}  {row[3]}")
    return "\n".join([*lines, "", favor_state_rule(favor_state)])


def _format_via(reference: Reference, names: dict[str, str]) -> str:
    return f" (in {names[reference.via]})" if reference.via else ""
