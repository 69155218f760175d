"""Imports go downwards only, each outside library is imported in one place, and modules stay small."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import datapilot_defer

PACKAGE = Path(datapilot_defer.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each part of the house may import; `errors` and itself always.
FACTS = {
    "console",
    "files",
    "formatting",
    "artifact",
    "ci",
    "config",
    "deadline",
    "dbt_installation",
    "dbt_json",
    "dbt_project",
}
MAY_IMPORT: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "ci": set(),
    "console": set(),
    "files": set(),
    "formatting": set(),
    "deadline": set(),
    "dbt_json": set(),
    "config": set(),
    "dbt_installation": set(),
    "dbt_project": {"config"},
    "artifact": {"dbt_json"},
    "validation": {"artifact", "dbt_json"},
    "credentials": {"config"},
    "credential_store": {"ci", "config", "credentials", "deadline"},
    "client": {"artifact", "config", "credentials", "deadline"},
    "doctor": {"artifact", "client", "config", "credential_store", "deadline"},
    "onboard": {*FACTS, "client", "credentials", "validation"},
    "pull": {*FACTS, "client", "credentials", "validation"},
    "defer": {*FACTS, "client", "credentials", "pull", "validation"},
    "storage": {"artifact"},
    "instance": {"artifact", "dbt_json", "formatting", "storage", "validation"},
    "cli": {
        *FACTS,
        *(
            "client",
            "credentials",
            "credential_store",
            "doctor",
            "onboard",
            "pull",
            "defer",
            "validation",
        ),
        *("instance", "storage"),
    },
    "__main__": {"cli"},
}
# Which part alone imports a library that is slow, or that is a decision.
OWNERS = {
    "click": {"cli", "__main__"},
    "requests": {"client"},
    "urllib3": {"client"},
    "keyring": {"credential_store"},
    "fastapi": {"instance"},
    "starlette": {"instance"},
    "uvicorn": {"instance"},
    "jinja2": {"instance"},
    "sqlalchemy": {"storage"},
    "obstore": {"storage"},
    "jsonschema": {"validation"},
    "jsonschema_rs": {"validation"},
    "dbt": set(),
}
VAGUE_NAMES = {"utils", "util", "helpers", "common", "core", "base", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"`{part}` is new: say in MAY_IMPORT what it may import"
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("datapilot_defer.")}
    assert ours - MAY_IMPORT[part] - {part, "errors"} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_library_is_imported_only_by_the_part_that_owns_it(path: Path) -> None:
    strangers = {name.split(".")[0] for name in imports(path)} - {
        "datapilot_defer",
        *sys.stdlib_module_names,
    }
    assert {
        name for name in strangers if part_of(path) not in OWNERS.get(name, {part_of(path)})
    } == set()


def test_no_part_has_a_name_that_says_nothing() -> None:
    code = [path for path in PACKAGE.rglob("*") if path.is_dir() or path.suffix == ".py"]
    assert [path for path in code if path.stem in VAGUE_NAMES] == []


def test_no_module_and_no_function_is_too_long_to_be_read_at_once() -> None:
    assert [
        path.name for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 300
    ] == []
    assert [
        f"{path.name}: {name}" for path in MODULES for name, lines in functions(path) if lines > 50
    ] == []


def part_of(path: Path) -> str:
    """The part of the house that a file belongs to: the name of the module or package directly in ours."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file with its number of lines."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
