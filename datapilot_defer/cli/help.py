"""The help of a command, with options in groups, and suggestions for mistyped commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

_CONNECTION = "Connection options"
_OUTPUT = "Output options"
# The headings in the order of the help, each with the names of its parameters. Any other option
# comes before them, under "Options".
_HEADINGS: Mapping[str, frozenset[str]] = {
    "Integration options": frozenset({"integration_id", "integration_name", "environment"}),
    "Artifact options": frozenset(
        {
            *("manifest", "catalog", "run_results", "sources", "semantic_manifest"),
            *("manifest_path", "project_dir", "profiles_dir", "dbt_path", "offline", "favor_state"),
            *("output", "kinds", "at", "file_id"),
        }
    ),
    "Safety options": frozenset(
        {
            *("strict", "readable_by", "max_age", "require_success", "allow", "force", "dry_run"),
            *("soft_fail", "exit_code_unchanged"),
        }
    ),
    _CONNECTION: frozenset({"token", "instance_name", "backend_url", "allow_http", "timeout"}),
    _OUTPUT: frozenset({"output_json", "output_quiet", "output_verbose", "output_log_format"}),
}
_REQUIRED = "Required options"
_ONE_REQUIRED = "Required options (one of these)"
_OTHERS = "Options"
_SIMILARITY = 0.75


class Option(click.Option):
    """An option that also accepts names that its help and its messages do not mention.

    hidden_names: such as --dbt_core_integration_id, a spelling of altimate-datapilot-cli.
    one_required: exactly one of the command's options with this mark must be given.
    """

    def __init__(
        self,
        *args: Any,
        hidden_names: Sequence[str] = (),
        one_required: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.hidden_names = hidden_names
        self.one_required = one_required

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add the documented and the hidden names to the parser."""
        documented_names = self.opts
        self.opts = [*documented_names, *self.hidden_names]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = documented_names


def write_options(
    command: click.Command, context: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write the options of a command, with a section for each group."""
    sections: dict[str, list[tuple[str, str]]] = {
        heading: [] for heading in (_REQUIRED, _ONE_REQUIRED, _OTHERS, *_HEADINGS)
    }
    parameters = command.get_params(context)
    connects = any(parameter.name == "backend_url" for parameter in parameters)
    for parameter in parameters:
        record = parameter.get_help_record(context)
        if record is not None:
            sections[_find_heading(parameter, connects=connects)].append(record)
    for heading, records in sections.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)


def _find_heading(parameter: click.Parameter, *, connects: bool) -> str:
    if parameter.required:
        return _REQUIRED
    if isinstance(parameter, Option) and parameter.one_required:
        return _ONE_REQUIRED
    if "--help" in parameter.opts:
        return _OUTPUT
    for heading, names in _HEADINGS.items():
        if parameter.name in names and (connects or heading != _CONNECTION):
            return heading
    return _OTHERS


def suggest_commands(context: click.Context, name: str) -> list[str]:
    """Return the full command lines that a mistyped or misplaced name may stand for.

    "onboard" stands for "datapilot dbt onboard". After "datapilot dbt", "onbord" does too.
    """
    import difflib

    root = context.find_root()
    paths = list(_list_commands(root.command, [root.info_name or "datapilot"]))
    same_name = [path for path in paths if path[-1] == name]
    if same_name:
        return [" ".join(path) for path in same_name]
    here = context.command_path.split()
    names = {path[-1]: path for path in paths if path[:-1] == here}
    similar = difflib.get_close_matches(name, names, n=1, cutoff=_SIMILARITY)
    return [" ".join(names[each]) for each in similar]


def _list_commands(command: click.Command, path: list[str]) -> Iterator[list[str]]:
    """Yield the path of each command below a group, including groups."""
    if not isinstance(command, click.Group):
        return
    for name, child in command.commands.items():
        child_path = [*path, name]
        yield child_path
        yield from _list_commands(child, child_path)
