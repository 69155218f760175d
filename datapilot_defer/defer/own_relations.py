"""The check that a manifest's relations are not those of the user's own target.

Deferring to a manifest of the user's own target reads the tables that the user builds, not
production's. Files that dbt wrote to the target directory answer this without another dbt command:
manifest.json contains the relations, and run_results.json of the same command names the target.
Without both, the result is unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.artifact import Artifact, Kind
from datapilot_defer.dbt_project import DbtProject
from datapilot_defer.defer.dbt_target import (
    ENVIRONMENT_OR_VARIABLE,
    DbtTarget,
    find_constant_target,
)
from datapilot_defer.defer.last_run import LastRun, read_last_run, read_own_artifact
from datapilot_defer.files import read_small_file
from datapilot_defer.formatting import plural

if TYPE_CHECKING:
    from datapilot_defer.dbt_json.parser import Raw

_WITH_RELATION = ("model", "seed", "snapshot")
# When these versions defer, their own manifest contains the relations of the state.
_WRITERS_OF_DEFERRED_RELATIONS = ("1.5.", "1.6.", "1.7.")
_NAMING_MACRO = re.compile(r"\b(\w+__)?generate_(schema|database|alias)_name(_for_env)?$")
_CONFIG_WITH_VARIABLE = re.compile(r"config\s*\((?:(?!\}\}).)*?var\s*\(", re.DOTALL)


@dataclass(frozen=True)
class OwnRelations:
    """Relations that a manifest has in common with the user's own target.

    manifest: the file that dbt wrote for that target. example: one of the relations.
    """

    manifest: Path
    count: int
    example: str

    def describe(self) -> str:
        """Return a warning for the user."""
        relations = plural(self.count, "relation")
        return (
            f"the manifest is of your own target: it has {relations} in common with "
            f"{self.manifest}, all with the same name, such as {self.example}. Deferring to it "
            "reads your own tables. Use the manifest of the production target"
        )


def find_own_relations(
    state: Artifact, project: DbtProject, target: DbtTarget
) -> OwnRelations | None:
    """Return the relations that the state has in common with the user's own target, or None.

    None means that a common node has another relation in the state, that environment variables or
    `--vars` may change relations, or that the files in dbt's target directory do not describe the
    target.

    state: the manifest to defer to. target: that of the command that will defer.
    """
    last_run = read_last_run(project.target / Kind.RUN_RESULTS.file_name)
    if last_run is None or not _is_of_target(last_run, target, project):
        return None
    file = project.target / Kind.MANIFEST.file_name
    own = read_own_artifact(file, Kind.MANIFEST)
    if own is None or own.metadata.invocation_id != last_run.invocation_id:
        return None
    version = own.metadata.dbt_version or ""
    if last_run.arguments.get("defer") and version.startswith(_WRITERS_OF_DEFERRED_RELATIONS):
        return None
    try:
        found = _compare_relations(state, own, file, project.name)
        return _unless_changing(found, own, project)
    except (KeyError, dbt_json.NotJsonError):
        return None


def _is_of_target(last_run: LastRun, target: DbtTarget, project: DbtProject) -> bool:
    profiles = _read_argument(last_run, "profiles_dir")
    if last_run.invocation_id is None or profiles is None:
        return False
    last_target = DbtTarget(
        _read_argument(last_run, "target"), _read_argument(last_run, "profile"), Path(profiles)
    )
    if _without_links(last_target.profiles) != _without_links(target.profiles):
        return False
    names = find_constant_target(target, project)
    return names is not None and names == find_constant_target(last_target, project)


def _without_links(directory: Path) -> str:
    """Return the path with symbolic links resolved, or an invalid path unchanged.

    `Path.resolve` raises an error for a loop of links.
    """
    try:
        return os.path.realpath(directory)
    except ValueError:
        return str(directory)


def _read_argument(last_run: LastRun, name: str) -> str | None:
    value = last_run.arguments.get(name)
    if not isinstance(value, str):
        return None
    return value


def _compare_relations(
    state: Artifact, own: Artifact, file: Path, project: str
) -> OwnRelations | None:
    """Return the common relations; None if there are none or one differs, usually the first.

    Relations of packages are ignored. Building them may be another team's task, on any target.
    """
    prefixes = tuple(f"{resource_type}.{project}." for resource_type in _WITH_RELATION)
    own_nodes = dbt_json.entries(own.sections["nodes"])
    count = 0
    example = ""
    for unique_id, node in dbt_json.entries(state.sections["nodes"]).items():
        if not unique_id.startswith(prefixes) or unique_id not in own_nodes:
            continue
        relation = _read_relation(node)
        own_relation = _read_relation(own_nodes[unique_id])
        if relation is None or own_relation is None:  # such as an ephemeral model
            continue
        if relation != own_relation:
            return None
        count += 1
        example = relation
    if count == 0:
        return None
    return OwnRelations(file, count, example)


def _read_relation(node: Raw) -> str | None:
    relation = _read_fields(node).get("relation_name")
    if not isinstance(relation, str):
        return None
    return relation


def _read_fields(entry: Raw) -> Mapping[str, Any]:
    fields = dbt_json.decode(entry)
    if not isinstance(fields, dict):
        return {}
    return fields


def _unless_changing(
    found: OwnRelations | None, own: Artifact, project: DbtProject
) -> OwnRelations | None:
    if found is None or _may_change(own, project):
        return None
    return found


def _may_change(own: Artifact, project: DbtProject) -> bool:
    """Return whether environment variables or `--vars` may change the project's relations.

    The macros that name relations and the configuration of a node may read them.
    """
    if any(ENVIRONMENT_OR_VARIABLE.search(sql) for sql in _read_naming_macros(own)):
        return True
    files = set()
    for unique_id, entry in dbt_json.entries(own.sections["nodes"]).items():
        node = _read_fields(entry)
        if node.get("package_name") != project.name or not unique_id.startswith(_WITH_RELATION):
            continue
        if _CONFIG_WITH_VARIABLE.search(str(node.get("raw_code"))):
            return True
        files.add(str(node.get("patch_path")).partition("://")[2])
        if str(node.get("original_file_path")).endswith((".yml", ".yaml")):  # a snapshot
            files.add(str(node.get("original_file_path")))
    return any(_reads_variable(project.folder / file) for file in files if file)


def _read_naming_macros(own: Artifact) -> Iterator[str]:
    """Yield the text of the macros that name relations, and of those that they call."""
    if "macros" not in own.sections:
        return
    macros = dbt_json.entries(own.sections["macros"])
    waiting = [unique_id for unique_id in macros if _NAMING_MACRO.search(unique_id)]
    seen = set(waiting)
    while waiting:
        macro = _read_fields(macros[waiting.pop()])
        yield str(macro.get("macro_sql"))
        called = _list_called_macros(macro)
        waiting += (called & macros.keys()) - seen
        seen |= called


def _list_called_macros(macro: Mapping[str, Any]) -> set[str]:
    depends_on = macro.get("depends_on")
    if not isinstance(depends_on, dict) or not isinstance(depends_on.get("macros"), list):
        return set()
    return {str(unique_id) for unique_id in depends_on["macros"]}


def _reads_variable(file: Path) -> bool:
    try:
        text = read_small_file(file).decode(errors="replace")
    except OSError:
        return False
    return ENVIRONMENT_OR_VARIABLE.search(text) is not None
