"""Queries of dbt: which nodes a selection contains, and which relations exist in development.

dbt uses target and log directories in the cache, so that the project stays unchanged.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datapilot_defer.artifact import read_artifact
from datapilot_defer.config import user_cache_directory
from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer.command_line import dbt_environment
from datapilot_defer.defer.nodes import ManifestNode, read_nodes
from datapilot_defer.errors import UsageError

_OUTPUT_MARKER = "datapilot-found:"
# The adapter's query with which dbt resolves a reference. It lists each schema once, because dbt
# caches the result.
_EXISTING_RELATIONS_SQL = """
{%- if execute -%}
{%- set found = [] -%}
{%- for node in graph.nodes.values() if node.resource_type in ('model', 'seed', 'snapshot') -%}
{%- if adapter.get_relation(node.database, node.schema, node.alias) is not none -%}
{%- do found.append(node.unique_id) -%}
{%- endif -%}
{%- endfor -%}
{%- for node in graph.sources.values() -%}
{%- if adapter.get_relation(node.database, node.schema, node.identifier) is not none -%}
{%- do found.append(node.unique_id) -%}
{%- endif -%}
{%- endfor -%}
{%- do print('MARK' ~ tojson(found)) -%}
{%- endif -%}
select 1
""".replace("MARK", _OUTPUT_MARKER).replace("\n", "")
_OUTPUT_OPTIONS = ("--quiet", "--print", "--log-format", "text", "--no-use-colors")
_SHOWN_LINES = 12


@dataclass(frozen=True)
class QueryResult:
    """Results of the queries.

    nodes: nodes, sources and functions of the project and its packages, by unique ID. exists:
    unique IDs of those with a relation in the development database. selected: unique IDs of the
    selected nodes; None without a selection.
    """

    nodes: Mapping[str, ManifestNode]
    exists: frozenset[str]
    selected: frozenset[str] | None

    @property
    def names(self) -> Mapping[str, str]:
        """Return the names of the nodes by unique ID."""
        return {unique_id: node.name for unique_id, node in self.nodes.items()}


@dataclass(frozen=True)
class DbtQuery:
    """Queries of dbt for one project, with the flags for target, profile and variables."""

    dbt: DbtInstallation
    project: DbtProject
    flags: Sequence[str]
    environ: Mapping[str, str]

    @property
    def work_directory(self) -> Path:
        """Return the directory that dbt writes to.

        It persists, so that dbt parses only what has changed.
        """
        name = hashlib.sha256(str(self.project.folder).encode()).hexdigest()[:16]
        return user_cache_directory() / "explain" / f"{name}-dbt-{self.dbt.version_series}"

    def run(self, selection: Sequence[str], state: Path) -> QueryResult:
        """Run the dbt commands in parallel, because each takes seconds to start.

        selection: --select, --exclude and --selector with their values; empty to select nothing.
        state: the directory for selectors such as state:modified. Raises UsageError with dbt's
        output if dbt fails.
        """
        with ExitStack() as children:  # ends every dbt process, even after an error
            compiling = self._start_dbt(children, "compile", "--inline", _EXISTING_RELATIONS_SQL)
            listing = None
            if selection:
                output = ("--output", "json", "--output-keys", "unique_id")
                words = (*output, "--state", str(state), *selection)
                listing = self._start_dbt(children, "ls", *words)
            exists = self._parse_existing_relations(_wait_for_output("compile", compiling))
            manifest = read_artifact(self.work_directory / "compile" / "manifest.json")
            nodes = read_nodes(manifest)
            selected = None
            if listing is not None:
                selected = _parse_selected(_wait_for_output("ls", listing))
            return QueryResult(nodes, exists, selected)

    def _parse_existing_relations(self, output: str) -> frozenset[str]:
        lines = output.splitlines()
        answers = _parse_json_lines(
            line.partition(_OUTPUT_MARKER)[2] for line in lines if _OUTPUT_MARKER in line
        )
        unique_ids = next(answers, None)
        if unique_ids is None:
            raise UsageError(
                f"dbt {self.dbt.version} did not report which relations exist. Its output "
                f"was:\n{_last_lines(output)}"
            )
        return frozenset(unique_ids)

    def _start_dbt(self, children: ExitStack, command: str, *words: str) -> subprocess.Popen[bytes]:
        directory = self.work_directory / command
        _create_directory(directory)
        arguments = [
            str(self.dbt.path),
            *_OUTPUT_OPTIONS,
            *("--log-path", str(directory / "logs")),
            command,
            *("--project-dir", str(self.project.folder)),
            *("--target-path", str(directory)),
            *self.flags,
            *words,
        ]
        environment = dbt_environment(self.environ)
        environment["PYTHONIOENCODING"] = "utf-8"
        try:
            child = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise UsageError(f"cannot start {self.dbt.path}: {error.strerror}") from None
        children.callback(_kill, child)
        return child


def _create_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot create the directory {directory} for dbt's output: {error.strerror}. "
            "Set XDG_CACHE_HOME to a writable directory"
        ) from None


def _wait_for_output(command: str, child: subprocess.Popen[bytes]) -> str:
    """Return the output of dbt. Raises UsageError if dbt failed."""
    content, _ = child.communicate()
    output = content.decode("utf-8", "replace")
    if child.returncode:
        raise UsageError(
            f"`dbt {command}` exited with {child.returncode}. Its output "
            f"was:\n{_last_lines(output)}"
        )
    return output


def _kill(child: subprocess.Popen[bytes]) -> None:
    with child:
        child.kill()


def _parse_selected(output: str) -> frozenset[str]:
    lines = (line for line in output.splitlines() if line.startswith("{"))
    entries = _parse_json_lines(lines)
    return frozenset(str(entry["unique_id"]) for entry in entries if "unique_id" in entry)


def _parse_json_lines(lines: Iterable[str]) -> Iterator[Any]:
    """Yield the values of the lines that are JSON, and skip the others.

    Warnings on stderr are between them and may look similar.
    """
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


def _last_lines(output: str) -> str:
    lines = output.strip().splitlines()[-_SHOWN_LINES:]
    return "\n".join(f"  {line}" for line in lines)
