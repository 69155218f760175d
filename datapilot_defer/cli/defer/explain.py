"""`datapilot dbt defer explain`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datapilot_defer.cli.command import Command
from datapilot_defer.cli.defer.options import DeferOptions, defer_options, start_session
from datapilot_defer.errors import UsageError

if TYPE_CHECKING:
    from datapilot_defer.cli.output import Output
    from datapilot_defer.defer.dbt_queries import DbtQuery, QueryResult
    from datapilot_defer.defer.explain import Reference
    from datapilot_defer.defer.state import PreparedState

# Methods that may select nothing: by changes, or by results of an earlier run.
_METHODS_THAT_MAY_SELECT_NOTHING = ("state:", "result:", "source_status:")
_GRAPH_OPERATORS = re.compile(r"^@?\d*\+?|\+\d*$")


@click.command("explain", cls=Command)
@click.option(
    "--select",
    "-s",
    "select",
    multiple=True,
    metavar="SELECTION",
    help="Models to explain, in dbt's syntax.",
)
@click.option(
    "--exclude", multiple=True, metavar="SELECTION", help="Models to exclude, in dbt's syntax."
)
@click.option("--selector", metavar="NAME", help="Selector defined in selectors.yml.")
@click.option(
    "--for",
    "command",
    type=click.Choice(["build", "run", "compile"]),
    default="build",
    show_default=True,
    help="dbt command to explain. `build` and `run` build the selected models. `compile` does not.",
)
@click.option("--target", "-t", metavar="NAME", help="Target, passed to dbt.")
@click.option("--profile", metavar="NAME", help="Profile, passed to dbt.")
@click.option("--profiles-dir", metavar="DIR", help="Directory of profiles.yml, passed to dbt.")
@click.option("--vars", "variables", metavar="YAML", help="Variables, passed to dbt.")
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
    options: DeferOptions,
) -> None:
    """Print where each reference resolves, and why.

    Asks dbt which models are selected and which relations exist. Nothing in the project or the
    database changes. Without a selection, every model is explained as if it were built alone.

    \b
    Examples:
      datapilot dbt defer explain -s my_model
      datapilot dbt defer explain -s state:modified+ --json
    """
    from datapilot_defer.defer.dbt_directories import fallback_profiles_directory
    from datapilot_defer.defer.dbt_queries import DbtQuery
    from datapilot_defer.defer.explain import DeferContext, explain_references
    from datapilot_defer.defer.nodes import read_nodes
    from datapilot_defer.defer.project_settings import require_enabled

    session = start_session(options)
    settings = require_enabled(session.read_settings(), session.project)
    dbt = session.find_dbt()
    profiles = profiles_dir or fallback_profiles_directory(session.project, os.environ)
    flags = _dbt_flags(target, profile, profiles, variables)
    state = session.prepare_state(settings, dbt, flags)
    query = DbtQuery(dbt, session.project, flags, os.environ)
    selection = _selection_arguments((*select, *more), exclude, selector)
    answer = _ask_dbt(session.console, query, selection, state)
    context = DeferContext(
        answer.nodes,
        read_nodes(state.manifest),
        answer.exists,
        favor_state=settings.favor_state,
        command=command,
        resolves_before_run=dbt.major_minor < (1, 8),
        age=state.artifact.describe_age(),
    )
    references = explain_references(context, selected=answer.selected, project=session.project.name)
    session.console.note(f"Deferring to {state.describe()}")
    session.console.print_result(
        _explanation_json(references, state, settings.favor_state),
        _format_references(references, answer.names, settings.favor_state),
    )


def _ask_dbt(
    console: Output, query: DbtQuery, selection: Sequence[str], state: PreparedState
) -> QueryResult:
    """Return what dbt reports about the selection and the existing relations.

    Raises UsageError for a selection that matches nothing, unless its method may select nothing.
    """
    console.detail(f"Asking {query.dbt.path}, which writes to {query.work_directory}")
    answer = query.run(selection, state.directory)
    if answer.selected is not None:
        _check_selection_not_empty(answer.selected, selection, answer.names.values())
    return answer


def _dbt_flags(
    target: str | None, profile: str | None, profiles: str | Path | None, variables: str | None
) -> list[str]:
    options = {
        "--target": target,
        "--profile": profile,
        "--profiles-dir": profiles,
        "--vars": variables,
    }
    return [word for name, value in options.items() if value for word in (name, str(value))]


def _selection_arguments(
    select: Sequence[str], exclude: Sequence[str], selector: str | None
) -> list[str]:
    """Return the selection as arguments of dbt."""
    arguments: list[str] = []
    if select:
        arguments += ["--select", *select]
    if exclude:
        arguments += ["--exclude", *exclude]
    if selector:
        arguments += ["--selector", selector]
    return arguments


def _check_selection_not_empty(
    selected: Collection[str], selection: Sequence[str], names: Iterable[str]
) -> None:
    """Raise UsageError if nothing is selected, unless a method of the selection permits that."""
    methods = [word for word in selection if not word.startswith("--")]
    if selected or any(
        name in method for method in methods for name in _METHODS_THAT_MAY_SELECT_NOTHING
    ):
        return
    message = f"no node matches {_quote_selection(selection)}"
    suggestion = next(_suggest_names(methods, names), None)
    if suggestion:
        message += f"; did you mean {suggestion!r}?"
    raise UsageError(message)


def _quote_selection(selection: Sequence[str]) -> str:
    shown = list(selection)
    if shown[0] == "--select":
        del shown[0]
    return " ".join(word if word.startswith("--") else repr(word) for word in shown)


def _suggest_names(methods: Sequence[str], names: Iterable[str]) -> Iterator[str]:
    """Yield names of nodes that are similar to the selection."""
    from difflib import get_close_matches

    possibilities = sorted(set(names))
    for method in methods:
        name = _GRAPH_OPERATORS.sub("", method)
        for match in get_close_matches(name, possibilities, 1):
            if match not in methods:
                yield match


def _explanation_json(
    references: Sequence[Reference], state: PreparedState, favor_state: bool
) -> dict[str, object]:
    from datapilot_defer.defer.explain import favor_state_rule

    facts = state.artifact.to_json()
    return {
        "ok": True,
        "references": [asdict(reference) for reference in references],
        "counts": Counter(reference.resolution for reference in references),
        "favor_state": favor_state,
        "rule": favor_state_rule(favor_state),
        "state_dir": str(state.directory),
        "generated_at": facts["generated_at"],
        "age_seconds": state.artifact.age_seconds,
        "commit": facts["commit"],
    }


def _format_references(
    references: Sequence[Reference], names: Mapping[str, str], favor_state: bool
) -> str:
    """Return a block for each model, with its references in columns.

    The rule for favor state follows the last block.
    """
    from datapilot_defer.defer.explain import favor_state_rule

    if not references:
        return "No selected model or snapshot has a reference."
    rows = [_reference_row(reference, names) for reference in references]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines: list[str] = []
    previous = ""
    for reference, row in zip(references, rows, strict=True):
        if reference.node != previous:
            if lines:
                lines.append("")
            lines.append(names[reference.node])
            previous = reference.node
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  " + "  ".join([*cells, reference.reason]))
    return "\n".join([*lines, "", favor_state_rule(favor_state)])


def _reference_row(reference: Reference, names: Mapping[str, str]) -> tuple[str, str, str]:
    name = names[reference.reference]
    if reference.via:
        name += f" (in {names[reference.via]})"
    return name, reference.relation, reference.resolution
