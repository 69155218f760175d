"""What dbt itself is asked: which nodes a selection means, and which relations are in the development database.

dbt runs with a target folder and a log folder of ours, so that nothing of the user's project changes.
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

from datapilot_defer.config import user_cache_directory
from datapilot_defer.dbt_installation import DbtInstallation
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer.command_line import DEFER_VARIABLES
from datapilot_defer.defer.nodes import ManifestNode, read_nodes
from datapilot_defer.errors import UsageError

_OUTPUT_MARKER = "datapilot-found:"
# Asks the adapter exactly what dbt asks it when it resolves a reference; one listing per schema, cached by dbt.
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


@dataclass(frozen=True)
class QueryResult:
    """The project's own nodes; the unique ids of those whose relation exists in the development database, and of those
    that are selected (None: no selection was given)."""

    nodes: Mapping[str, ManifestNode]
    exists: frozenset[str]
    selected: frozenset[str] | None


@dataclass(frozen=True)
class DbtQuery:
    """dbt, the project that it is asked about, and the flags that choose target, profile and variables."""

    dbt: DbtInstallation
    project: DbtProject
    flags: Sequence[str]
    environ: Mapping[str, str]

    @property
    def work_directory(self) -> Path:
        """Where dbt writes instead of into the project. It persists, so that dbt parses only what has changed."""
        name = hashlib.sha256(str(self.project.folder).encode()).hexdigest()[:16]
        return user_cache_directory() / "explain" / f"{name}-dbt-{self.dbt.version_series}"

    def run(self, selection: Sequence[str], state: Path) -> QueryResult:
        """Everything at once: the two dbt commands run side by side, for each takes seconds to start.

        selection: --select, --exclude and --selector as dbt takes them; without any, nothing is selected.
        Raises UsageError, with what dbt said, when dbt fails.
        """
        listing = [
            "--output",
            "json",
            "--output-keys",
            "unique_id",
            "--state",
            str(state),
            *selection,
        ]
        with ExitStack() as children:  # however this ends, no dbt is left behind
            existing = self._start_dbt(children, "compile", "--inline", _EXISTING_RELATIONS_SQL)
            selected = self._start_dbt(children, "ls", *listing) if selection else None
            nodes, exists = self._parse_existing_relations(_wait_for_output("compile", existing))
            return QueryResult(
                nodes,
                exists,
                _parse_selected(_wait_for_output("ls", selected)) if selected else None,
            )

    def _parse_existing_relations(
        self, said: str
    ) -> tuple[Mapping[str, ManifestNode], frozenset[str]]:
        """The project as dbt has parsed it, and what it found in the database."""
        found = next(
            _parse_json_lines(
                line.partition(_OUTPUT_MARKER)[2]
                for line in said.splitlines()
                if _OUTPUT_MARKER in line
            ),
            None,
        )
        if found is None:
            raise UsageError(
                f"dbt {self.dbt.version} did not say which relations exist; it said:\n{_last_lines(said)}"
            )
        return read_nodes(self.work_directory / "compile" / "manifest.json"), frozenset(found)

    def _start_dbt(self, children: ExitStack, command: str, *words: str) -> subprocess.Popen[bytes]:
        folder = self.work_directory / command
        logs = [
            "--quiet",
            "--print",
            "--log-format",
            "text",
            "--no-use-colors",
            "--log-path",
            str(folder / "logs"),
        ]
        folders = ["--project-dir", str(self.project.folder), "--target-path", str(folder)]
        environ = {
            name: value for name, value in self.environ.items() if name not in DEFER_VARIABLES
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"can't make folder {folder} for what dbt writes: {error.strerror}; set XDG_CACHE_HOME to a folder "
                "that can be written to"
            ) from None
        try:
            child = subprocess.Popen(
                [str(self.dbt.path), *logs, command, *folders, *self.flags, *words],
                env={**environ, "PYTHONIOENCODING": "utf-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise UsageError(f"can't start {self.dbt.path}: {error.strerror}") from None
        children.callback(_kill, child)
        return child


def _wait_for_output(command: str, child: subprocess.Popen[bytes]) -> str:
    """What dbt printed, once it has ended. Raises UsageError when it failed."""
    said = child.communicate()[0].decode("utf-8", "replace")
    if child.returncode:
        raise UsageError(
            f"`dbt {command}` ended with {child.returncode}; it said:\n{_last_lines(said)}"
        )
    return said


def _kill(child: subprocess.Popen[bytes]) -> None:
    with child:
        child.kill()


def _parse_selected(said: str) -> frozenset[str]:
    """The unique ids that dbt selects."""
    found = _parse_json_lines(line for line in said.splitlines() if line.startswith("{"))
    return frozenset(str(entry["unique_id"]) for entry in found if "unique_id" in entry)


def _parse_json_lines(texts: Iterable[str]) -> Iterator[Any]:
    """Those that are JSON: what dbt and its libraries write to stderr comes between, and may look like it."""
    for text in texts:
        with suppress(ValueError):
            yield json.loads(text)


def _last_lines(said: str) -> str:
    return "\n".join(f"  {line}" for line in said.strip().splitlines()[-12:])
