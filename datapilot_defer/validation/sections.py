"""An artifact gone through section by section and entry by entry, holding one entry at a time."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from datapilot_defer import dbt_json
from datapilot_defer.validation.result import Problem
from datapilot_defer.validation.violations import find_own_violations, find_violations, source_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from datapilot_defer.validation.defer_checks import DeferChecks
    from datapilot_defer.validation.schema import ArtifactSchema, JsonSchema

MAX_PROBLEMS = 1000
MAX_PROBLEMS_PER_ENTRY = 20
# Best first: what is wrong with the whole, then what people wrote, then what follows from it.
_ORDER = (
    "metadata",
    "nodes",
    "sources",
    "exposures",
    "metrics",
    "semantic_models",
    "saved_queries",
    "unit_tests",
)


class TooManyProblems(Exception):
    """There are so many problems that looking for more helps nobody."""


@dataclass
class Findings:
    """What was found. unloadable: the first place that breaks the rules, as opposed to what is merely useless.

    drifting: section to the number of entries that fit the rules and not the published schema.
    obstacle: the first place that keeps dbt 1.x from reading what dbt 2.x wrote.
    """

    problems: list[Problem] = field(default_factory=list)
    first_violation: Problem | None = None
    dbt1_obstacle: Problem | None = None
    drift_counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    drift: list[str] = field(default_factory=list)
    readable_by: tuple[str, ...] = ()
    is_truncated: bool = False

    @property
    def is_loadable(self) -> bool:
        """Whether it fits the rules."""
        return self.first_violation is None


@dataclass
class _ProblemCollector:
    rules: ArtifactSchema
    published: ArtifactSchema | None
    use: DeferChecks | None
    strict: bool
    entries: dict[tuple[str, str], tuple[list[Problem], bool]] = field(default_factory=dict)
    drifting: dict[str, int] = field(default_factory=dict)
    total: int = 0
    enough: bool = False

    def record(self, section: str, key: str, broken: list[Problem], useless: list[Problem]) -> None:
        """What is wrong with one entry; of a key that occurs twice the last one counts, as for dbt."""
        if self.entries:
            before, _ = self.entries.pop((section, key), ([], False))
            self.total -= len(before)
        if not broken and (not useless or self.total >= MAX_PROBLEMS):
            self.enough = self.enough or bool(
                useless
            )  # goes on: whether dbt reads it is not settled yet
            return
        self.entries[section, key] = ([*broken, *useless], bool(broken))
        self.total += len(broken) + len(useless)
        if broken and self.total >= MAX_PROBLEMS:
            self.enough = True
            raise TooManyProblems


def check_sections(
    top: Mapping[str, Any],
    rules: ArtifactSchema,
    published: ArtifactSchema | None,
    use: DeferChecks | None,
    *,
    strict: bool = False,
) -> Findings:
    """Hold every section to `rules`, and every entry of nodes to its use.

    published: what fits the rules and not this schema is counted as drift. strict: `rules` is a published schema,
    to the letter.
    """
    walk = _ProblemCollector(rules, published, use, strict)
    with suppress(TooManyProblems):
        for problem in check_top_level(rules, top):
            walk.record("$", problem.message, [problem], [])
        for name in sorted(rules.sections() & top.keys(), key=_section_order):
            _check_section(walk, name, top[name])
        if use and not walk.entries.get(("nodes", ""), ([], False))[1]:
            walk.record("$", "use", [], list(use.check_whole_manifest()))
    problems = [problem for found, _ in walk.entries.values() for problem in found]
    unloadable = next((found[0] for found, broken in walk.entries.values() if broken), None)
    return Findings(problems, unloadable, drift_counts=walk.drifting, is_truncated=walk.enough)


def check_top_level(rules: ArtifactSchema, top: Mapping[str, Any]) -> Iterator[Problem]:
    """Sections that are missing or, by the letter, unknown."""
    outline = {
        key: value
        for key, value in rules.document.items()
        if key in ("required", "additionalProperties")
    }
    outline["properties"] = dict.fromkeys(rules.document.get("properties", ()), True)
    for problem in find_own_violations(rules, outline, dict.fromkeys(top)):
        missing = problem.message.endswith("is missing")
        yield Problem(
            problem.path, f"the section {problem.message}" if missing else problem.message
        )


def _section_order(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _check_section(walk: _ProblemCollector, name: str, raw: Any) -> None:
    schema = walk.rules.section(name)
    kind = {b"{": "object", b"[": "array"}.get(bytes(memoryview(raw)[:1]))
    inner = _entry_schema(schema)
    if kind == "object" and kind in _json_types(schema) and not schema.get("properties"):
        if inner is not None:
            dbt_json.walk(raw, _entry_visitor(walk, name, inner))
    elif kind == "array" and kind in _json_types(schema) and inner is not None:
        dbt_json.walk_list(raw, _entry_visitor(walk, name, inner))
    else:
        # A list where an object belongs may be of any size: a short one is as wrong.
        short = kind == "array" and "type" in schema and kind not in _json_types(schema)
        value = [None] if short else dbt_json.decode(raw)
        walk.record(
            name,
            "",
            list(
                islice(find_violations(walk.rules, schema, value, (name,)), MAX_PROBLEMS_PER_ENTRY)
            ),
            [],
        )


def _json_types(schema: JsonSchema) -> Sequence[str]:
    found = schema.get("type", ())
    return [found] if isinstance(found, str) else list(found)


def _entry_schema(schema: JsonSchema) -> JsonSchema | None:
    """The schema of an entry of a mapping, or of an item of a list."""
    found = schema.get("additionalProperties", schema.get("items"))
    return found if isinstance(found, dict) else None


def _entry_visitor(
    walk: _ProblemCollector, name: str, schema: JsonSchema
) -> Callable[[str | int, Any], None]:
    """What is done with each entry of a section."""
    fits = _entry_check(walk.rules, schema, strict=walk.strict)
    published = _entry_schema(walk.published.section(name)) if walk.published else None
    as_published = (
        _entry_check(walk.published, published)
        if walk.published and published is not None
        else None
    )
    use = walk.use.check_node if walk.use and name == "nodes" else None

    def visit(key: str | int, value: Any) -> None:
        broken: list[Problem] = []
        if not fits(value):
            broken = list(
                islice(
                    _entry_problems(walk.rules, schema, (name, key), value), MAX_PROBLEMS_PER_ENTRY
                )
            )
        elif as_published and not as_published(value):
            walk.drifting[name] = walk.drifting.get(name, 0) + 1
        useless = list(use(str(key), value)) if use else []
        if broken:
            useless = []  # one thing at a time
        if broken or useless or walk.entries:
            walk.record(name, str(key), broken, useless)

    return visit


def _entry_check(
    rules: ArtifactSchema, schema: JsonSchema, *, strict: bool = False
) -> Callable[[Any], bool]:
    """Yes or no for one entry, asked of the schema for its `resource_type` only."""
    if strict:
        return lambda value: rules.accepts(schema, value)

    def fits(value: Any) -> bool:
        chosen = rules.alternatives_for(schema, value)
        return chosen is not None and any(rules.accepts(part, value) for part in chosen)

    return fits


def _entry_problems(
    rules: ArtifactSchema, schema: JsonSchema, path: tuple[str | int, ...], value: Any
) -> Iterator[Problem]:
    file = source_file(value[0] if isinstance(value, list) and value else value)
    for problem in find_violations(rules, schema, value, path):
        yield Problem(problem.path, problem.message, file)
