"""Each leaf command is an entry point that any Click group can mount."""

import configparser
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from datapilot_defer.cli.command import Command
from tests.support.commands import LEAVES
from tests.support.environments import REPOSITORY
from tests.support.json_contract import find_problems

GROUP = "datapilot.plugins"


def declared() -> dict[str, str]:
    """Return the entry points as setup.cfg declares them: what an installation would find."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    points = configparser.ConfigParser(delimiters="=")
    points.read_string("[all]\n" + setup["options.entry_points"].get(GROUP, "").strip())
    return dict(points["all"])


def mounted() -> click.Group:
    """Return another program's group that mounts every entry point under its own names."""
    host = click.Group("host")
    for dotted, value in declared().items():
        host.add_command(EntryPoint(dotted, value, GROUP).load(), dotted.replace(".", "-"))
    return host


def test_every_leaf_command_is_an_entry_point_under_its_dotted_name() -> None:
    assert set(declared()) == set(LEAVES)


@pytest.mark.parametrize("dotted", LEAVES)
def test_an_entry_point_loads_the_very_command_of_our_own_group(dotted: str) -> None:
    assert EntryPoint(dotted, declared()[dotted], GROUP).load() is LEAVES[dotted]


@pytest.mark.parametrize("dotted", LEAVES)
def test_every_command_answers_help_and_json_wherever_it_is_mounted(dotted: str) -> None:
    command = LEAVES[dotted]
    assert isinstance(command, Command)
    done = CliRunner().invoke(mounted(), [dotted.replace(".", "-"), "--help"])
    assert done.exit_code == 0
    assert (command.help or "").splitlines()[0][:40] in " ".join(done.output.split())
    assert "--json" in done.output


def test_a_mounted_command_keeps_its_exit_code_and_its_message(tmp_path: Path) -> None:
    missing = tmp_path / "manifest.json"
    arguments = [
        "dbt-onboard",
        "--integration-id",
        "1",
        "--manifest-path",
        str(missing),
        "--dry-run",
        "--json",
    ]
    done = CliRunner().invoke(mounted(), arguments)
    assert done.exit_code == 2
    assert str(missing) in done.stderr
    failure = json.loads(done.stdout.splitlines()[-1])
    assert find_problems("dbt.onboard", failure) == []
    assert failure["ok"] is False
    assert failure["exit_code"] == 2


def test_a_mounted_command_refuses_what_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    arguments = [
        "dbt-onboard",
        "--integration-id",
        "1",
        "--manifest-path",
        str(tmp_path / "manifest.json"),
        "--dry-run",
    ]
    done = CliRunner().invoke(mounted(), arguments)
    assert done.exit_code == 1
    assert "Traceback" not in done.output


def test_a_mounted_command_does_its_work(artifacts: Path) -> None:
    arguments = [
        "dbt-onboard",
        "--integration-id",
        "1",
        "--manifest-path",
        str(artifacts / "manifest.json"),
        "--dry-run",
    ]
    done = CliRunner().invoke(mounted(), [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["artifacts"][0]["kind"] == "manifest"
    assert find_problems("dbt.onboard", result) == []


def test_importing_the_commands_imports_nothing_slow() -> None:
    modules = ", ".join(value.partition(":")[0] for value in declared().values())
    command = [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, cwd=REPOSITORY
    )
    assert not {"requests", "keyring", "jsonschema", "fastapi", "sqlalchemy"} & set(
        done.stdout.split()
    )
