"""Content, installation and start of the wheel."""

import configparser
import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import datapilot_defer
from tests.support.environments import REPOSITORY, executable, run

SLOW = {
    *(
        "requests",
        "urllib3",
        "jsonschema",
        "jsonschema_rs",
        "keyring",
        "msgspec",
        "yaml",
        "asyncio",
    ),
    *("fastapi", "pydantic", "uvicorn", "sqlalchemy", "obstore", "jinja2"),
}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel and its dependencies, without extras."""
    environment = tmp_path_factory.mktemp("installed")
    venv.create(environment, with_pip=True)
    run([executable(environment, "python"), "-m", "pip", "install", "--quiet", wheel])
    return environment


def test_wheel_has_schemas_types_and_pages(wheel: Path) -> None:
    names = {
        name.split("/", 1)[1]
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("datapilot_defer/")
    }
    package = REPOSITORY / "datapilot_defer"
    sources = {
        path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()
    }
    assert names == {name for name in sources if "__pycache__" not in name}
    assert {"py.typed", "__main__.py"} <= names
    assert any(name.startswith("validation/schemas/") for name in names)
    assert any(name.startswith("instance/web/templates/") for name in names)


def test_wheel_has_only_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {re.sub(r"-[\d.]+\.dist-info$", ".dist-info", top) for top in tops} == {
        "datapilot_defer",
        "datapilot_defer.dist-info",
    }
    assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_wheel_declares_both_programs(wheel: Path) -> None:
    (name,) = (
        name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/entry_points.txt")
    )
    points = configparser.ConfigParser(delimiters="=")
    points.read_string(zipfile.ZipFile(wheel).read(name).decode())
    assert set(points["console_scripts"]) == {"datapilot", "datapilot-defer"}
    assert len(set(points["console_scripts"].values())) == 1


@pytest.mark.parametrize("name", ["datapilot", "datapilot-defer"])
def test_installed_programs_are_equal(installed: Path, name: str) -> None:
    module = run([executable(installed, "python"), "-m", "datapilot_defer", "--help"])
    assert module.startswith("Usage: datapilot [")
    assert run([executable(installed, name), "--help"]) == module.replace(
        "Usage: datapilot", f"Usage: {name}"
    )


def test_installation_without_extras_validates_manifest(installed: Path, artifacts: Path) -> None:
    output = run(
        [executable(installed, "datapilot"), "dbt", "validate", artifacts / "manifest.json"]
    )
    assert "accepted" in output


def test_serve_without_extra_names_package_to_install(installed: Path, tmp_path: Path) -> None:
    command = [
        str(executable(installed, "datapilot")),
        "instance",
        "serve",
        "--data",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert 'pip install "datapilot-defer[instance]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_no_slow_module() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "datapilot_defer", "--help"]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", cwd=REPOSITORY, check=True
    )
    imported = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "click" in imported
    assert {name for name in imported if name.split(".")[0] in SLOW} == set()
    assert {
        name
        for name in imported
        if name.startswith(("datapilot_defer.instance", "datapilot_defer.storage"))
    } == set()


def test_changelog_has_heading_for_version() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    headings = re.findall(
        r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert headings[0] in ("Unreleased", setup["metadata"]["version"])


def test_package_has_version() -> None:
    assert datapilot_defer.__version__ == version("datapilot-defer")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = datapilot_defer.nothing
