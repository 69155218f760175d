"""Import rules of the package and limits for the size of modules and functions."""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import datapilot_defer

PACKAGE = Path(datapilot_defer.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
TEST_MODULES = sorted(Path(__file__).parent.glob("test_*.py"))

# The parts that each part of the package may import, besides the version, `errors` and itself. A
# part is a path in the package. A file belongs to the part with the longest matching path.
_SERVICES = {"artifact", "dbt_json", "formatting", "storage", "validation", "instance/settings"}
_HTTP = {
    *("artifact", "formatting", "storage"),
    *("instance/services", "instance/settings", "instance/rate_limit", "instance/forwarding"),
    *("instance/dependencies", "instance/error_statuses", "instance/upload_turns"),
}
_APPLICATION = {
    *("artifact", "dbt_json", "formatting", "storage", "validation"),
    *("instance/api", "instance/web", "instance/services", "instance/settings"),
    *("instance/middleware", "instance/dependencies", "instance/error_responses", "instance/app"),
    *("instance/background", "instance/last_used", "instance/worker", "instance/error_statuses"),
    *("instance/connections", "instance/http_connection"),
    *("instance/descriptors", "instance/log_limit"),
    *("instance/rate_limit", "instance/forwarding", "instance/token_slots"),
    *("instance/upload_turns", "version"),
}
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"version"},
    "errors": set(),
    "version": set(),
    "console": set(),
    "formatting": set(),
    "dbt_json": set(),
    "files": set(),
    "ci": {"files", "formatting"},
    "ci_log": {"ci", "formatting"},
    "deadline": set(),
    "config": {"files"},
    "dbt_installation": {"config"},
    "yaml_file": {"files"},
    "dbt_project": {"config", "yaml_file"},
    "dbt_file": {"deadline"},
    "artifact": {"dbt_file", "dbt_json", "deadline", "formatting"},
    "validation": {"artifact", "dbt_json", "formatting"},
    "credential_store": {"ci", "config", "deadline", "files"},
    "credential_sources": {"config", "console", "credential_store"},
    "credentials": {"config", "console", "credential_sources", "credential_store"},
    "client": {
        *("artifact", "ci", "config", "console", "credentials", "dbt_file", "deadline"),
        *("credential_sources", "formatting", "version"),
    },
    "run_results": {"artifact", "formatting", "validation"},
    "onboard": {"artifact", "client", "console", "deadline", "run_results", "validation"},
    "pull": {
        *("artifact", "client", "config", "console", "dbt_file", "files", "formatting"),
        "validation",
    },
    "defer": {
        *("artifact", "client", "config", "console", "dbt_installation", "dbt_json"),
        *("dbt_project", "deadline", "files", "formatting", "pull", "validation", "yaml_file"),
    },
    "doctor": {
        *("artifact", "client", "config", "console", "credential_store", "credentials"),
        *("dbt_installation", "dbt_project", "deadline", "defer", "formatting", "pull"),
    },
    "storage": {"artifact", "files"},
    "instance/__init__": set(),
    "instance/settings": set(),
    "instance/last_used": {"storage"},
    "instance/connections": set(),
    "instance/request_parser": set(),
    "instance/http_connection": {"instance/connections", "instance/request_parser"},
    "instance/token_slots": set(),
    "instance/upload_turns": {"instance/token_slots"},
    "instance/descriptors": set(),
    "instance/log_limit": {"formatting"},
    "instance/forwarding": set(),
    "instance/rate_limit": {"instance/forwarding"},
    "instance/middleware": {
        *("formatting", "instance/error_responses", "instance/forwarding"),
        *("instance/rate_limit", "instance/request_parser", "instance/settings"),
        *("instance/token_slots", "version"),
    },
    "instance/model_changes": _SERVICES,
    "instance/verification": {"artifact", "instance/model_changes"},
    "instance/verification_process": {"instance/verification"},
    "instance/inspection": {*_SERVICES, "instance/model_changes", "instance/verification"},
    "instance/retention": _SERVICES,
    "instance/worker": {"artifact", "instance/verification", "instance/verification_process"},
    "instance/background": {*_SERVICES, "instance/last_used", "instance/retention"},
    "instance/services": {
        *(*_SERVICES, "instance/model_changes", "instance/verification", "instance/worker"),
    },
    "instance/error_statuses": {"instance/services"},
    "instance/dependencies": {"instance/services", "instance/settings", "storage"},
    "instance/api": _HTTP,
    "instance/web": _HTTP,
    "instance/error_responses": _APPLICATION,
    "instance/app": _APPLICATION,
    "instance/serve": _APPLICATION,
    "cli": set(),
    "__main__": {"cli"},
}
MAY_IMPORT["cli"] = {*MAY_IMPORT} - {"__main__"}
# The parts or modules that may import a library that is slow or may be replaced.
_WEB_SERVER = {
    *("instance/api", "instance/web", "instance/middleware", "instance/dependencies"),
    *("instance/error_responses", "instance/app", "instance/serve"),
    *("instance/http_connection", "instance/forwarding", "instance/rate_limit"),
    *("instance/token_slots", "instance/upload_turns"),
}
LIBRARY_OWNERS: dict[str, set[str]] = {
    "click": {"cli", "__main__"},
    "requests": {"client"},
    "urllib3": {"client"},
    "keyring": {"credential_store"},
    "fastapi": _WEB_SERVER,
    "starlette": _WEB_SERVER,
    "uvicorn": {"instance/http_connection", "instance/serve"},
    "h11": {"instance/http_connection", "instance/request_parser"},
    "jinja2": {"instance/web"},
    "itsdangerous": {"instance/services/signed_urls"},
    "sqlalchemy": {"storage"},
    "alembic": {"storage"},
    "obstore": {"storage"},
    "jsonschema": {"validation"},
    "jsonschema_rs": {"validation"},
    "dbt": set(),
}
# Parts whose functions may take a function, because the callee is in a lower layer.
MAY_TAKE_FUNCTIONS = ("cli", "dbt_json", "validation", "deadline", "files", "formatting")
# The command passes a callback to the server that reports its start.
FUNCTION_PARAMETERS = {("instance/serve", "on_ready")}
# A resource has the same module name on each layer of the server. A command module has the name
# of its command.
RESOURCE_LAYERS = ("instance", "storage")
VAGUE_NAMES = {"utils", "util", "helpers", "common", "core", "base", "misc"}

each_module = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix()
)


@each_module
def test_module_imports_only_lower_layers(path: Path) -> None:
    part = part_of(name_of(path))
    assert part, f"{name_of(path)} is new: add to MAY_IMPORT what it may import"
    imported = {part_of(name) for name in imported_modules(path)}
    assert imported - MAY_IMPORT[part] - {part, "errors", "__init__"} == set()


@each_module
def test_library_is_imported_only_by_owners(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imports(path)}
    name = name_of(path)
    assert {
        library for library in libraries if not is_in(name, LIBRARY_OWNERS.get(library, {name}))
    } == set()


@each_module
def test_functions_are_not_passed_down(path: Path) -> None:
    name = name_of(path)
    if is_in(name, MAY_TAKE_FUNCTIONS):
        return
    assert [
        f"line {line}: {parameter}"
        for line, parameter in callable_annotations(path)
        if (name, parameter) not in FUNCTION_PARAMETERS
    ] == []


def test_only_entry_point_imports_cli() -> None:
    importers = {
        name_of(path)
        for path in MODULES
        if any(is_in(name, ["cli"]) for name in imported_modules(path))
    }
    assert {name for name in importers if not is_in(name, ["cli"])} == {"__main__"}


def test_module_names_are_specific_and_not_in_standard_library() -> None:
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert names & VAGUE_NAMES == set()
    assert (names - {"__init__", "__main__"}) & sys.stdlib_module_names == set()


def test_module_names_are_unique() -> None:
    names = {name_of(path) for path in MODULES if path.stem != "__init__"}
    resources = {stem_of(name) for name in names if is_in(name, RESOURCE_LAYERS)}
    others = [
        stem_of(name)
        for name in names
        if not is_in(name, RESOURCE_LAYERS) and not is_in(name, ["cli"])
    ]
    assert [name for name, count in Counter(others).items() if count > 1] == []
    assert resources & set(others) == set()


def test_modules_and_functions_are_short() -> None:
    assert [
        name_of(path)
        for path in MODULES
        if len(path.read_text(encoding="utf-8").splitlines()) > 300
    ] == []
    assert [
        f"{name_of(path)}: {name}"
        for path in MODULES
        for name, lines in functions(path)
        if lines > 50
    ] == []


@pytest.mark.parametrize("path", TEST_MODULES, ids=lambda path: path.stem)
def test_test_modules_do_not_import_each_other(path: Path) -> None:
    assert [name for name in imports(path) if name.startswith(("tests.test_", "test_"))] == []


def name_of(path: Path) -> str:
    """Return a module's path in the package without suffix, such as "instance/app"."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def stem_of(name: str) -> str:
    return name.rpartition("/")[2]


def is_in(name: str, parts: set[str] | list[str] | tuple[str, ...]) -> bool:
    """Return whether a module is one of the parts or inside one."""
    return any(name == part or name.startswith(f"{part}/") for part in parts)


def part_of(name: str) -> str:
    """Return the longest part that contains a module, or ""."""
    return max((part for part in MAY_IMPORT if is_in(name, [part])), key=len, default="")


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, named as by `name_of`."""
    for name in imports(path):
        words = name.split(".")
        if words[0] != "datapilot_defer":
            continue
        # The last word may be a name in a module, and the package itself has `__version__`.
        while len(words) > 1 and not exists("/".join(words[1:])):
            words.pop()
        yield "/".join(words[1:]) or "__init__"


def exists(name: str) -> bool:
    return (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name).is_dir()


def imports(path: Path) -> Iterator[str]:
    """Yield the full names that a file imports, anywhere in it."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def callable_annotations(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of each parameter, attribute and type alias that is a function."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.arg) and node.annotation and mentions_callable(node.annotation):
            yield node.lineno, node.arg
        elif isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and mentions_callable(statement.annotation):
                    yield statement.lineno, ast.unparse(statement.target)
        elif isinstance(node, ast.Assign) and is_callable_type(node.value):
            yield node.lineno, ast.unparse(node.targets[0])


def mentions_callable(annotation: ast.expr) -> bool:
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    texts = [node.value for node in ast.walk(annotation) if isinstance(node, ast.Constant)]
    return "Callable" in names or any("Callable" in str(text) for text in texts)


def is_callable_type(value: ast.expr) -> bool:
    """Return whether an expression is a type alias such as `Callable[[str], None]`."""
    return isinstance(value, ast.Subscript) and ast.unparse(value.value) == "Callable"


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each function of a file with its number of lines, without its docstring.

    The docstring of a command is its help text.
    """
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield node.name, lines - len(docstring.splitlines())


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
