"""The documentation matches the program.

It names every command, option, environment variable and exit code, nothing that does not exist,
and its quick start works as pasted.
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

PACKAGE = REPOSITORY / "datapilot_defer"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = README + "".join(
    page.read_text(encoding="utf-8") for page in sorted((REPOSITORY / "docs").rglob("*.md"))
)
# Ours, as opposed to what other programs and the tests read.
VARIABLE = re.compile(r"\b(?:DATAPILOT|ALTIMATE)_[A-Z_]*[A-Z]\b")


def variables_of_the_program() -> set[str]:
    """Return the environment variables that string literals of the package name."""
    found: set[str] = set()
    for path in (REPOSITORY / "datapilot_defer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(VARIABLE.findall(node.value))
    return found


@pytest.mark.parametrize("dotted", LEAVES)
def test_every_command_has_help_that_is_a_sentence(dotted: str) -> None:
    text = LEAVES[dotted].help or ""
    assert text[:1].isupper()
    assert text.split("\n\n")[0].rstrip().endswith((".", ":"))


@pytest.mark.parametrize("dotted", LEAVES)
def test_every_option_says_what_it_does(dotted: str) -> None:
    options = [parameter.to_info_dict() for parameter in LEAVES[dotted].params]
    silent = [
        option["name"]
        for option in options
        if option["param_type_name"] == "option" and not option["help"]
    ]
    assert silent == []


@pytest.mark.parametrize("dotted", LEAVES)
def test_the_readme_names_every_command(dotted: str) -> None:
    group, _, leaf = dotted.rpartition(".")
    rows = [
        line for line in README.splitlines() if line.startswith(f"| `{group.replace('.', ' ')}")
    ]
    assert [row for row in rows if re.search(rf"\b{leaf}\b", row)]


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    command = [sys.executable, "scripts/docs", "--check"]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr


def test_every_environment_variable_is_documented_and_exists() -> None:
    documented = {
        name for name in VARIABLE.findall(PAGES) if not name.startswith("DATAPILOT_TEST_")
    }
    assert documented == variables_of_the_program()


def test_every_exit_code_is_documented() -> None:
    codes = {
        str(error.exit_code)
        for error in errors.DatapilotError.__subclasses__()
        if error is not errors.Interrupted
    } | {"0", "99", "128+n"}
    rows = re.findall(r"^\| `?([\d+n]+)`? \|", README, flags=re.MULTILINE)
    assert set(rows) == codes


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 200


def test_every_link_to_a_file_leads_to_one() -> None:
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


def test_the_table_for_contributors_names_modules_that_exist() -> None:
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## Where does a new")[2].partition("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    paths = re.findall(r"`([a-z_/]+(?:\.py|/))`", table)
    assert paths
    roots = (REPOSITORY / "datapilot_defer", REPOSITORY)
    assert [path for path in paths if not any((root / path).exists() for root in roots)] == []


def commands_in_the_pages() -> set[str]:
    """Yield each command line that a reader could copy, from code blocks, backticks and tables."""
    code = re.findall(r"^```.*?^```|`[^`\n]+`", PAGES, flags=re.MULTILINE | re.DOTALL)
    lines = (line for block in code for line in block.strip("`").splitlines())
    found = (re.search(r"\bdatapilot(?:-defer)? [a-z][^`']*", line) for line in lines)
    return {
        match.group().strip().rstrip('\\)"') for match in found if match and " " in match.group()
    }


def commands_in_messages() -> set[str]:
    """Return each command line that a message or a template contains, in backticks or as code."""
    texts = [
        path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("instance/web/*/*.html"))
    ]
    for path in sorted(PACKAGE.rglob("*.py")):
        texts += string_literals(path)
    found: set[str] = set()
    for text in texts:
        found |= set(re.findall(r"`(datapilot [a-z][^`{]*)`", text))
        found |= set(re.findall(r"<code>(datapilot [a-z][^<{]*)</code>", text))
    return found


def string_literals(path: Path) -> list[str]:
    """Return the strings of a module. Values in f-strings become 1, whole options nothing."""
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


@pytest.mark.parametrize("line", sorted(commands_in_the_pages() | commands_in_messages()))
def test_the_program_understands_every_command_line_that_it_prints(line: str) -> None:
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
def newcomer(tmp_path: Path, shop: Shop, wheel: Path) -> dict[str, str]:
    """Return a newcomer's environment: pipx, dbt, and a package index with our package."""
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


def test_the_quick_start_onboards_and_defers(shop: Shop, newcomer: dict[str, str]) -> None:
    install, serve, parse, create, onboard, enable, build = quick_start()
    pasted(install, shop, newcomer)
    serve += " --port 0"  # 8585 may be taken here; everything else is as pasted
    with subprocess.Popen(
        ["bash", "-c", f"exec {serve}"], env=newcomer, stdout=subprocess.PIPE, text=True
    ) as instance:
        try:
            exports = "\n".join(shown_by(instance))
            assert exports.count("export ") == 3
            pasted(f"{parse}\n{exports}\n{create}", shop, newcomer)
            assert "Onboarded to" in pasted(f"{exports}\n{onboard}", shop, newcomer)
            pasted(f"{exports}\n{enable}", shop, newcomer)
            built = pasted(
                f"{exports}\n{build.replace('my_model', 'revenue_by_country')}", shop, newcomer
            )
            assert "Completed successfully" in built
        finally:
            instance.terminate()
    compiled = shop.project / "target/compiled/shop/models/marts/revenue_by_country.sql"
    assert '"prod"."orders"' in compiled.read_text(encoding="utf-8")


def shown_by(instance: subprocess.Popen[str]) -> list[str]:
    """Return the lines to paste that the instance shows when it is up."""
    assert instance.stdout is not None
    lines: list[str] = []
    for line in instance.stdout:
        lines.append(line.strip())
        if "dbt onboard" in line:
            break
    return [line for line in lines if line.startswith("export ")]


def pasted(lines: str, shop: Shop, terminal: dict[str, str]) -> str:
    """Return both streams of lines that are pasted into a terminal in the project's directory."""
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
