"""Documentation that matches the program.

It lists every command, option, environment variable and exit code and nothing that does not
exist. Its quick start works as pasted.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from datapilot_defer import errors
from datapilot_defer.cli.main import root
from tests.support.commands import LEAVES
from tests.support.dbt_project import Shop
from tests.support.environments import REPOSITORY, executable, require_program
from tests.support.package_variables import VARIABLE, variables_of_package

PACKAGE = REPOSITORY / "datapilot_defer"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def read_pages(pattern: str) -> str:
    """Return the README and the pages below docs/ that match a pattern."""
    pages = sorted((REPOSITORY / "docs").glob(pattern))
    return README + "".join(page.read_text(encoding="utf-8") for page in pages)


@pytest.mark.parametrize("dotted", LEAVES)
def test_help_of_every_command_is_a_sentence(dotted: str) -> None:
    text = LEAVES[dotted].help or ""
    assert text[:1].isupper()
    assert text.split("\n\n")[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("dotted", LEAVES)
def test_every_option_has_help(dotted: str) -> None:
    options = [parameter.to_info_dict() for parameter in LEAVES[dotted].params]
    without_help = [
        option["name"]
        for option in options
        if option["param_type_name"] == "option" and not option["help"]
    ]
    assert without_help == []


@pytest.mark.parametrize("dotted", LEAVES)
def test_readme_lists_every_command(dotted: str) -> None:
    group, _, leaf = dotted.rpartition(".")
    rows = [
        line for line in README.splitlines() if line.startswith(f"| `{group.replace('.', ' ')}")
    ]
    assert [row for row in rows if re.search(rf"\b{leaf}\b", row)]


def test_command_reference_is_current() -> None:
    command = [sys.executable, "scripts/docs", "--check"]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr


def test_documented_variables_are_those_of_package() -> None:
    documented = {
        name
        for name in VARIABLE.findall(read_pages("**/*.md"))
        if not name.startswith("DATAPILOT_TEST_")
    }
    assert documented == variables_of_package()


def test_every_exit_code_is_documented() -> None:
    codes = {
        str(error.exit_code)
        for error in errors.DatapilotError.__subclasses__()
        if error is not errors.Interrupted
    } | {"0", "99", "128+n"}
    rows = re.findall(r"^\| `?([\d+n]+)`? \|", README, flags=re.MULTILINE)
    assert set(rows) == codes


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 230


def test_links_to_files_are_valid() -> None:
    pages = [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *(REPOSITORY / "docs").glob("*.md"),
    ]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )


def test_paths_in_contributing_exist() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## Where does a new")[2].partition("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    paths = re.findall(r"`([a-z_/]+(?:\.py|/))`", table)
    assert paths
    roots = (REPOSITORY / "datapilot_defer", REPOSITORY)
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


def commands_in_pages() -> set[str]:
    """Return the command lines in code blocks, backticks and tables of the documentation."""
    code = re.findall(r"^```.*?^```|`[^`\n]+`", read_pages("*.md"), flags=re.MULTILINE | re.DOTALL)
    lines = (line for block in code for line in block.strip("`").splitlines())
    matches = (re.search(r"\bdatapilot(?:-defer)? [a-z][^`']*", line) for line in lines)
    return {
        match.group().strip().rstrip('\\)"') for match in matches if match and " " in match.group()
    }


def commands_in_messages() -> set[str]:
    """Return the command lines in messages and templates, in backticks or code elements."""
    texts = [
        path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("instance/web/*/*.html"))
    ]
    for path in sorted(PACKAGE.rglob("*.py")):
        texts += string_literals(path)
    commands: set[str] = set()
    for text in texts:
        commands |= set(re.findall(r"`(datapilot [a-z][^`{]*)`", text))
        commands |= set(re.findall(r"<code>(datapilot [a-z][^<{]*)</code>", text))
    return commands


def string_literals(path: Path) -> list[str]:
    """Return the strings of a module, in which values of f-strings are replaced.

    A variable called `options` becomes an empty string and any other value becomes 1.
    """
    texts: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            texts.append("".join(part_of_string(part) for part in node.values))
    return [" ".join(text.split()) for text in texts]


def part_of_string(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    if isinstance(part.value, ast.Name) and part.value.id == "options":
        return ""
    return "1"


@pytest.mark.parametrize("line", sorted(commands_in_pages() | commands_in_messages()))
def test_printed_and_documented_command_lines_are_valid(line: str) -> None:
    _, *words = shlex.split(re.split(r" [&|;<>]", line)[0], comments=True)
    command: click.Command = root
    while words and isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    context = click.Context(command, **command.context_settings)
    _, remaining, _ = command.make_parser(context).parse_args(words)
    assert remaining == [] or context.allow_extra_args


def quick_start() -> list[str]:
    """Return the command lines of the README's quick start, in order."""
    section = README.partition("## Quick start")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```bash\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


@pytest.fixture
def new_user(tmp_path: Path, shop: Shop, wheel: Path) -> dict[str, str]:
    """Return a new user's environment: pipx, dbt, and a package index with our package."""
    programs = tmp_path / "bin"
    pipx = executable(Path(sys.prefix), "pipx").parent
    dbt = require_program("dbt", "dbt").parent
    path = os.pathsep.join([str(programs), str(dbt), str(pipx), os.environ["PATH"]])
    links = f"{wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}"
    return {
        **shop.environment,
        "PATH": path,
        "PIP_FIND_LINKS": links,
        "PIPX_HOME": str(tmp_path / "pipx"),
        "PIPX_BIN_DIR": str(programs),
        "PIPX_DEFAULT_PYTHON": sys.executable,
    }


def test_quick_start_onboards_and_defers(shop: Shop, new_user: dict[str, str]) -> None:
    install, serve, parse, create, onboard, enable, build = quick_start()
    run_in_project(install, shop, new_user)
    serve += " --port 0"  # The default port may be in use; this is the only change.
    with subprocess.Popen(
        ["bash", "-c", f"exec {serve}"], env=new_user, stdout=subprocess.PIPE, text=True
    ) as instance:
        try:
            exports = "\n".join(read_export_lines(instance))
            assert exports.count("export ") == 3
            run_in_project(f"{parse}\n{exports}\n{create}", shop, new_user)
            assert "Onboarded to" in run_in_project(f"{exports}\n{onboard}", shop, new_user)
            run_in_project(f"{exports}\n{enable}", shop, new_user)
            built = run_in_project(
                f"{exports}\n{build.replace('my_model', 'revenue_by_country')}", shop, new_user
            )
            assert "Completed successfully" in built
        finally:
            instance.terminate()
    compiled = shop.project / "target/compiled/shop/models/marts/revenue_by_country.sql"
    assert '"prod"."orders"' in compiled.read_text(encoding="utf-8")


def read_export_lines(instance: subprocess.Popen[str]) -> list[str]:
    """Return the export lines that the instance prints when it is ready."""
    assert instance.stdout is not None
    lines: list[str] = []
    for line in instance.stdout:
        lines.append(line.strip())
        if "dbt onboard" in line:
            break
    return [line for line in lines if line.startswith("export ")]


def run_in_project(lines: str, shop: Shop, terminal: dict[str, str]) -> str:
    """Run lines in a shell in the project's directory and return both output streams."""
    done = subprocess.run(
        ["bash", "-euc", lines],
        cwd=shop.project,
        env=terminal,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
