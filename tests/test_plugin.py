"""Entry points of the commands, which any Click group can mount."""

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


def declared_entry_points() -> dict[str, str]:
    """Return the entry points that setup.cfg declares."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    points = configparser.ConfigParser(delimiters="=")
    points.read_string("[all]\n" + setup["options.entry_points"].get(GROUP, "").strip())
    return dict(points["all"])


def make_host_group() -> click.Group:
    """Return a group of another program with every entry point under a name of its own."""
    host = click.Group("host")
    for dotted, value in declared_entry_points().items():
        host.add_command(EntryPoint(dotted, value, GROUP).load(), dotted.replace(".", "-"))
    return host


def test_every_command_has_entry_point() -> None:
    assert set(declared_entry_points()) == set(LEAVES)


@pytest.mark.parametrize("dotted", LEAVES)
def test_entry_point_loads_command_of_our_group(dotted: str) -> None:
    assert EntryPoint(dotted, declared_entry_points()[dotted], GROUP).load() is LEAVES[dotted]


@pytest.mark.parametrize("dotted", LEAVES)
def test_mounted_command_has_help_and_json_option(dotted: str) -> None:
    command = LEAVES[dotted]
    assert isinstance(command, Command)
    done = CliRunner().invoke(make_host_group(), [dotted.replace(".", "-"), "--help"])
    assert done.exit_code == 0
    assert (command.help or "").splitlines()[0][:40] in " ".join(done.output.split())
    assert "--json" in done.output


def test_mounted_command_keeps_exit_code_and_message(tmp_path: Path) -> None:
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
    done = CliRunner().invoke(make_host_group(), arguments)
    assert done.exit_code == 2
    assert str(missing) in done.stderr
    failure = json.loads(done.stdout.splitlines()[-1])
    assert find_problems("dbt.onboard", failure) == []
    assert failure["ok"] is False
    assert failure["exit_code"] == 2


def test_mounted_command_rejects_invalid_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    arguments = [
        "dbt-onboard",
        "--integration-id",
        "1",
        "--manifest-path",
        str(tmp_path / "manifest.json"),
        "--dry-run",
    ]
    done = CliRunner().invoke(make_host_group(), arguments)
    assert done.exit_code == 1
    assert "Traceback" not in done.output


def test_mounted_command_succeeds(artifacts: Path) -> None:
    arguments = [
        "dbt-onboard",
        "--integration-id",
        "1",
        "--manifest-path",
        str(artifacts / "manifest.json"),
        "--dry-run",
    ]
    done = CliRunner().invoke(make_host_group(), [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["artifacts"][0]["kind"] == "manifest"
    assert find_problems("dbt.onboard", result) == []


def test_commands_import_no_slow_module() -> None:
    modules = ", ".join(value.partition(":")[0] for value in declared_entry_points().values())
    command = [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", check=True, cwd=REPOSITORY
    )
    assert not {"requests", "keyring", "jsonschema", "fastapi", "sqlalchemy"} & set(
        done.stdout.split()
    )
