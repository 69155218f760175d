"""Shell scripts with dbt's environment variables, and deferral in a shell that runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datapilot_defer.defer import shell_variables
from datapilot_defer.errors import UsageError
from tests.support.commands import Outcome, datapilot
from tests.support.dbt_project import Shop
from tests.support.recorded_dbt import recorded_dbt

VALUES = {"DBT_DEFER": "true", "DBT_STATE": "/a b/it's $HOME \\ %x%", "DBT_FAVOR_STATE": "false"}


def env(shop: Shop, *words: object, **environ: str) -> Outcome:
    origin = (
        "--dbt",
        shop.dbt,
        "--manifest-path",
        shop.prod_artifacts,
        "--project-dir",
        shop.project,
    )
    return datapilot("dbt", "defer", "env", *origin, *words, env={**shop.environment, **environ})


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_dbt_defers_in_bash_after_eval(shop: Shop) -> None:
    ours = f"{sys.executable} -m datapilot_defer dbt defer env --shell bash --dbt {shop.dbt}"
    script = (
        f'eval "$({ours} --manifest-path {shop.prod_artifacts})" && '
        f"{shop.dbt} --quiet compile -s revenue_by_country\n"
        f'eval "$({ours} --unset)"; env'
    )
    environ = {**shop.environment, "DBT_DEFER_STATE": "/nowhere"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=shop.project,
        env=environ,
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    [sql] = (shop.project / "target" / "compiled").rglob("revenue_by_country.sql")
    assert '"prod"."orders"' in sql.read_text(encoding="utf-8")
    assert not [
        line
        for line in done.stdout.splitlines()
        if line.startswith(("DBT_DEFER", "DBT_STATE", "DBT_FAVOR"))
    ]


def test_conflicting_variables_are_unset(shop: Shop) -> None:
    done = env(
        shop,
        "--shell",
        "bash",
        "--json",
        "--favor-state",
        DBT_ENGINE_STATE="x",
        DBT_DEFER_STATE="y",
    )
    assert done.exit_code == 0, done.output
    assert done.json["unset"] == ["DBT_DEFER_STATE", "DBT_ENGINE_STATE"]
    assert done.json["set"] == {
        "DBT_DEFER": "true",
        "DBT_STATE": str(shop.prod_artifacts),
        "DBT_FAVOR_STATE": "true",
    }
    assert done.json["script"].splitlines()[-1] == "unset DBT_ENGINE_STATE"


def test_unset_option_removes_all_variables() -> None:
    done = datapilot(
        "dbt",
        "defer",
        "env",
        "--unset",
        "--shell",
        "zsh",
        env={"DBT_DEFER": "1", "DBT_ENGINE_STATE": "/s"},
    )
    assert done.stdout == "unset DBT_DEFER\nunset DBT_ENGINE_STATE\n"


def test_target_directory_is_rejected(shop: Shop) -> None:
    shutil.copytree(shop.prod_artifacts, shop.project / "target")
    done = datapilot(
        "dbt",
        "defer",
        "env",
        "--dbt",
        shop.dbt,
        "--manifest-path",
        shop.project / "target",
        "--project-dir",
        shop.project,
    )
    assert done.exit_code == 2
    assert "dbt's target directory" in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shell_reads_original_values(shell: str) -> None:
    script = (
        shell_variables.format_script(shell, VALUES, ["DBT_DEFER_STATE"])
        + '\nprintf "%s|%s" "$DBT_STATE" "${DBT_DEFER_STATE-gone}"'
    )
    environ = {**os.environ, "DBT_DEFER_STATE": "x"}
    output = subprocess.run(
        ["sh", "-c", script], env=environ, capture_output=True, check=True, encoding="utf-8"
    ).stdout
    assert output == f"{VALUES['DBT_STATE']}|gone"


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("fish", "set -gx DBT_STATE '/a b/it\\'s $HOME \\\\ %x%'\nset -e OLD"),
        (
            "powershell",
            "$env:DBT_STATE = '/a b/it''s $HOME \\ %x%'\n"
            "Remove-Item Env:OLD -ErrorAction SilentlyContinue",
        ),
        ("github", "DBT_STATE=/a b/it's $HOME \\ %x%\nOLD="),
        ("dotenv", "DBT_STATE='/a b/it\\'s $HOME \\\\ %x%'\nOLD="),
    ],
)
def test_scripts_use_quotes_of_each_shell(shell: str, expected: str) -> None:
    assert (
        shell_variables.format_script(shell, {"DBT_STATE": VALUES["DBT_STATE"]}, ["OLD"])
        == expected
    )


POWERSHELL_QUOTES = "'\u2018\u2019\u201a\u201b"


def read_powershell(script: str) -> tuple[str, str]:
    """Parse `$env:NAME = '…'` like PowerShell and return the value and the remaining text.

    Any of five characters is a single quote. Two quotes in a row mean the first one.
    """
    rest = script.removeprefix("$env:DBT_STATE = ")
    assert rest[0] in POWERSHELL_QUOTES
    value = ""
    position = 1
    while True:
        character = rest[position]
        position += 1
        if character in POWERSHELL_QUOTES:
            if rest[position : position + 1] not in tuple(POWERSHELL_QUOTES):
                return value, rest[position:]
            position += 1
        value += character


@pytest.mark.parametrize("quote", POWERSHELL_QUOTES)
def test_quotes_are_escaped_for_powershell(quote: str) -> None:
    for directory in (f"/it{quote}; rm -r x #", f"{quote}{quote}$(x)`", f"/a{quote}'{quote}"):
        script = shell_variables.format_script("powershell", {"DBT_STATE": directory}, [])
        assert read_powershell(script) == (directory, "")


HOSTILE = [
    *("/$(exit 3)`exit 3`", "/a'b\\", "/a\\'b", "/!!", "/%PATH%", "/{a,b}*?[c]", "/a;b&c|d>e"),
    *("/a:=ls", "/a:~root", "/it\u2019s", "/#x", "/-n", '/"$HOME"'),
]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_installed_shell_reads_hostile_directories(shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    for directory in HOSTILE:
        script = shell_variables.format_script(shell, {"DBT_STATE": directory}, [])
        words = [program, "-c", f'{script}\nprintf %s "$DBT_STATE"']
        done = subprocess.run(words, capture_output=True, check=True, encoding="utf-8")
        assert done.stdout == directory


def test_zsh_value_with_colon_is_quoted() -> None:
    script = shell_variables.format_script("zsh", {"DBT_STATE": "/a:=ls"}, [])
    assert script == "export DBT_STATE='/a:=ls'"


@pytest.mark.parametrize("name", ["a\nEVIL=1", "a\rb", "a\x1b[2J", "a\udcff", "a\u2028b"])
@pytest.mark.parametrize("shell", ["bash", "fish", "powershell", "github", "dotenv"])
def test_unprintable_directory_is_rejected(shell: str, name: str) -> None:
    with pytest.raises(UsageError, match="line break or another character that cannot be printed"):
        shell_variables.format_script(shell, {"DBT_STATE": name}, [])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"GITHUB_ENV": "/x", "SHELL": "/bin/bash"}, "bash"),
        ({"SHELL": "/usr/bin/fish"}, "fish"),
        ({"SHELL": "/bin/zsh"}, "zsh"),
        ({"SHELL": "/bin/tcsh"}, "powershell" if os.name == "nt" else "bash"),
    ],
)
def test_shell_is_detected_from_environment(environ: dict[str, str], expected: str) -> None:
    assert shell_variables.detect_shell(environ) == expected


@pytest.mark.skipif(os.name == "nt", reason="the recorded dbt is a shell script")
@pytest.mark.parametrize("name", ["a##[b", "a?token=abcd"])
@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_script_that_would_be_altered_is_not_printed(
    workspace: Path, prod: Path, name: str, arguments: tuple[str, ...]
) -> None:
    directory = prod.rename(prod.parent / name)
    dbt = recorded_dbt(workspace / "bin").path
    words = ("--shell", "bash", "--dbt", dbt, "--manifest-path", directory, *arguments)
    done = datapilot("dbt", "defer", "env", *words)
    assert done.exit_code == 2
    assert "is therefore not printed. Use another directory" in done.stderr
    assert "export" not in done.stdout
