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

from datapilot_defer.config import cache_folder
from datapilot_defer.dbt_installation import Dbt
from datapilot_defer.dbt_project import Project
from datapilot_defer.defer.command_line import VARIABLES
from datapilot_defer.defer.nodes import Node, read
from datapilot_defer.errors import UsageError

_MARK = "datapilot-found:"
# Asks the adapter exactly what dbt asks it when it resolves a reference; one listing per schema, cached by dbt.
_EXISTING = """
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
""".replace("MARK", _MARK).replace("\n", "")


@dataclass(frozen=True)
class Answers:
    """The project's own nodes; the unique ids of those whose relation exists in the development database, and of those
    that are selected (None: no selection was given)."""

    nodes: Mapping[str, Node]
    exists: frozenset[str]
    selected: frozenset[str] | None


@dataclass(frozen=True)
class Asker:
    """dbt, the project that it is asked about, and the flags that choose target, profile and variables."""

    dbt: Dbt
    project: Project
    flags: Sequence[str]
    environ: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where dbt writes instead of into the project. It persists, so that dbt parses only what has changed."""
        name = hashlib.sha256(str(self.project.folder).encode()).hexdigest()[:16]
        return cache_folder() / "explain" / f"{name}-dbt-{self.dbt.series}"

    def ask(self, selection: Sequence[str], state: Path) -> Answers:
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
            existing = self._start(children, "compile", "--inline", _EXISTING)
            selected = self._start(children, "ls", *listing) if selection else None
            nodes, exists = self._existing(_said("compile", existing))
            return Answers(nodes, exists, _selected(_said("ls", selected)) if selected else None)

    def _existing(self, said: str) -> tuple[Mapping[str, Node], frozenset[str]]:
        """The project as dbt has parsed it, and what it found in the database."""
        found = next(
            _parsed(line.partition(_MARK)[2] for line in said.splitlines() if _MARK in line), None
        )
        if found is None:
            raise UsageError(
                f"dbt {self.dbt.version} did not say which relations exist; it said:\n{_last(said)}"
            )
        return read(self.folder / "compile" / "manifest.json"), frozenset(found)

    def _start(self, children: ExitStack, command: str, *words: str) -> subprocess.Popen[bytes]:
        folder = self.folder / command
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
        environ = {name: value for name, value in self.environ.items() if name not in VARIABLES}
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
        children.callback(_end, child)
        return child


def _said(command: str, child: subprocess.Popen[bytes]) -> str:
    """What dbt printed, once it has ended. Raises UsageError when it failed."""
    said = child.communicate()[0].decode("utf-8", "replace")
    if child.returncode:
        raise UsageError(f"`dbt {command}` ended with {child.returncode}; it said:\n{_last(said)}")
    return said


def _end(child: subprocess.Popen[bytes]) -> None:
    with child:
        child.kill()


def _selected(said: str) -> frozenset[str]:
    """The unique ids that dbt selects."""
    found = _parsed(line for line in said.splitlines() if line.startswith("{"))
    return frozenset(str(entry["unique_id"]) for entry in found if "unique_id" in entry)


def _parsed(texts: Iterable[str]) -> Iterator[Any]:
    """Those that are JSON: what dbt and its libraries write to stderr comes between, and may look like it."""
    for text in texts:
        with suppress(ValueError):
            yield json.loads(text)


def _last(said: str) -> str:
    return "\n".join(f"  {line}" for line in said.strip().splitlines()[-12:])
