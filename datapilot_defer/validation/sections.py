"""Checks of an artifact, section by section and entry by entry, with one entry in memory."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.validation.descriptions import source_file
from datapilot_defer.validation.result import Findings, Problem, ProblemCode
from datapilot_defer.validation.violations import find_own_violations, find_violations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from datapilot_defer.dbt_json.parser import Raw
    from datapilot_defer.validation.defer_checks import DeferChecks
    from datapilot_defer.validation.schema import ArtifactSchema, JsonSchema

MAX_PROBLEMS = 1000
MAX_PROBLEMS_PER_ENTRY = 20
# The most important first: the file, then the nodes that users write, then the rest.
_SECTION_ORDER = (
    "metadata",
    "nodes",
    "sources",
    "exposures",
    "metrics",
    "semantic_models",
    "saved_queries",
    "unit_tests",
)
_CONTAINER_TYPES = {b"{": "object", b"[": "array"}
_TOP_LEVEL = "$"
_COMPLETE_SECTION = ""


class TooManyProblems(Exception):
    """The exception that ends a check when the maximum number of problems has been reached."""


@dataclass
class _ProblemCollector:
    schema: ArtifactSchema
    published: ArtifactSchema | None
    defer_checks: DeferChecks | None
    strict: bool
    problems: dict[tuple[str, str], list[Problem]] = field(default_factory=dict)
    drift_counts: dict[str, int] = field(default_factory=dict)
    total: int = 0
    is_truncated: bool = False

    def record(self, section: str, key: str, problems: list[Problem]) -> None:
        """Record the problems of one entry.

        Raises TooManyProblems if the maximum has been reached and the entry violates the schema.
        Other problems beyond the maximum are not recorded.
        """
        if not problems:
            return
        violates_schema = _violates_schema(problems)
        if self.total >= MAX_PROBLEMS and not violates_schema:
            # The search continues, because it is not yet known whether dbt can load the artifact.
            self.is_truncated = True
            return
        self.problems[section, key] = problems
        self.total += len(problems)
        if self.total >= MAX_PROBLEMS and violates_schema:
            self.is_truncated = True
            raise TooManyProblems


def check_sections(
    sections: Mapping[str, Raw],
    schema: ArtifactSchema,
    published: ArtifactSchema | None,
    defer_checks: DeferChecks | None,
    *,
    strict: bool = False,
) -> Findings:
    """Check each section against `schema`, and the nodes with `defer_checks`.

    published: entries that fit `schema` but not this schema are counted as drift. strict: `schema`
    is a published schema, and entries must fit it exactly.
    """
    collector = _ProblemCollector(schema, published, defer_checks, strict)
    with suppress(TooManyProblems):
        _check_all(collector, sections)
    problems = [problem for group in collector.problems.values() for problem in group]
    violations = (problem for problem in problems if _violates_schema([problem]))
    return Findings(
        problems,
        first_violation=next(violations, None),
        drift_counts=collector.drift_counts,
        is_truncated=collector.is_truncated,
    )


def _check_all(collector: _ProblemCollector, sections: Mapping[str, Raw]) -> None:
    for number, problem in enumerate(check_top_level(collector.schema, sections)):
        collector.record(_TOP_LEVEL, str(number), [problem])
    names = collector.schema.section_names() & sections.keys()
    for name in sorted(names, key=_section_order):
        _check_section(collector, name, sections[name])
    nodes_problems = collector.problems.get(("nodes", _COMPLETE_SECTION), [])
    if collector.defer_checks and not _violates_schema(nodes_problems):
        problems = list(collector.defer_checks.check_whole_manifest())
        collector.record(_TOP_LEVEL, "defer", problems)


def check_top_level(schema: ArtifactSchema, sections: Mapping[str, Raw]) -> Iterator[Problem]:
    """Find sections that are missing or, if the schema forbids them, unknown."""
    keywords = ("required", "additionalProperties")
    outline = {key: value for key, value in schema.document.items() if key in keywords}
    outline["properties"] = dict.fromkeys(schema.section_names(), True)
    for problem in find_own_violations(schema, outline, dict.fromkeys(sections)):
        if problem.code is ProblemCode.MISSING_PROPERTY:
            yield replace(problem, message=f"the section {problem.message}")
        else:
            yield problem


def _violates_schema(problems: list[Problem]) -> bool:
    return any(problem.code is not ProblemCode.UNSAFE_TO_DEFER for problem in problems)


def _section_order(name: str) -> tuple[int, str]:
    if name in _SECTION_ORDER:
        return _SECTION_ORDER.index(name), name
    return len(_SECTION_ORDER), name


def _check_section(collector: _ProblemCollector, name: str, raw: Raw) -> None:
    schema = collector.schema.section(name)
    entry_schema = _entry_schema(schema)
    json_type = _container_type(raw)
    if json_type not in _json_types(schema):
        _check_complete_section(collector, name, raw)
    elif json_type == "object" and not schema.get("properties"):
        if entry_schema is not None:
            dbt_json.walk(raw, _entry_visitor(collector, name, entry_schema))
    elif json_type == "array" and entry_schema is not None:
        dbt_json.walk_list(raw, _entry_visitor(collector, name, entry_schema))
    else:
        _check_complete_section(collector, name, raw)


def _check_complete_section(collector: _ProblemCollector, name: str, raw: Raw) -> None:
    schema = collector.schema.section(name)
    if "type" in schema and "array" not in _json_types(schema) and _container_type(raw) == "array":
        # A list in place of an object can have any size. A short list causes the same problem.
        value: Any = [None]
    else:
        value = dbt_json.decode(raw)
    violations = find_violations(collector.schema, schema, value, (name,))
    problems = list(islice(violations, MAX_PROBLEMS_PER_ENTRY))
    collector.record(name, _COMPLETE_SECTION, problems)


def _container_type(raw: Raw) -> str | None:
    first_byte = bytes(memoryview(raw)[:1])
    return _CONTAINER_TYPES.get(first_byte)


def _json_types(schema: JsonSchema) -> list[str]:
    types: str | list[str] = schema.get("type", [])
    if isinstance(types, str):
        return [types]
    return types


def _entry_schema(schema: JsonSchema) -> JsonSchema | None:
    """Return the schema of a mapping's entries or of a list's items, or None if there is none."""
    entry_schema = schema.get("additionalProperties", schema.get("items"))
    if isinstance(entry_schema, dict):
        return entry_schema
    return None


def _entry_visitor(
    collector: _ProblemCollector, name: str, schema: JsonSchema
) -> Callable[[str | int, Any], None]:
    """Return a function that checks one entry of a section and records its problems."""
    is_valid = _entry_check(collector.schema, schema, strict=collector.strict)
    is_as_published = _published_entry_check(collector.published, name)
    check_node = None
    if collector.defer_checks and name == "nodes":
        check_node = collector.defer_checks.check_node

    def visit(key: str | int, entry: Any) -> None:
        problems: list[Problem] = []
        if not is_valid(entry):
            violations = _entry_problems(collector.schema, schema, (name, key), entry)
            problems = list(islice(violations, MAX_PROBLEMS_PER_ENTRY))
        elif is_as_published and not is_as_published(entry):
            collector.drift_counts[name] = collector.drift_counts.get(name, 0) + 1
        if check_node:
            unsafe = list(check_node(str(key), entry))  # this also counts the nodes
            problems = problems or unsafe
        collector.record(name, str(key), problems)

    return visit


def _published_entry_check(
    published: ArtifactSchema | None, name: str
) -> Callable[[Any], bool] | None:
    if published is None:
        return None
    schema = _entry_schema(published.section(name))
    if schema is None:
        return None
    return _entry_check(published, schema)


def _entry_check(
    artifact_schema: ArtifactSchema, schema: JsonSchema, *, strict: bool = False
) -> Callable[[Any], bool]:
    """Return a function that checks an entry against the schemas for its `resource_type`.

    strict: check the entry against the complete schema instead.
    """
    if strict:
        return lambda entry: artifact_schema.accepts(schema, entry)

    def is_valid(entry: Any) -> bool:
        alternatives = artifact_schema.alternatives_for(schema, entry)
        if alternatives is None:
            return False
        return any(artifact_schema.accepts(part, entry) for part in alternatives)

    return is_valid


def _entry_problems(
    artifact_schema: ArtifactSchema, schema: JsonSchema, path: tuple[str | int, ...], entry: Any
) -> Iterator[Problem]:
    """Find violations of the schema in one entry, and add the entry's source file to them.

    An entry of `disabled` is a list of nodes, of which the first one determines the file.
    """
    node = entry
    if isinstance(entry, list) and entry:
        node = entry[0]
    file = source_file(node)
    for problem in find_violations(artifact_schema, schema, entry, path):
        yield replace(problem, file=file)
