"""The tables of docs/reference contain what the program has: settings, exit codes, routes.

The requests of the commands are those that docs/what-leaves-my-machine.md lists.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from datapilot_defer import errors
from datapilot_defer.config import CONFIG_FILE_KEYS
from datapilot_defer.defer import project_settings
from datapilot_defer.instance import app as application
from datapilot_defer.instance.app import create_app
from datapilot_defer.instance.settings import InstanceSettings
from datapilot_defer.storage import open_storage
from tests.support.commands import LEAVES, datapilot
from tests.support.environments import REPOSITORY
from tests.support.package_variables import variables_of_package
from tests.support.protocol_server import ProtocolServer

REFERENCE = REPOSITORY / "docs" / "reference"
# What `requests` adds to ours: Authorization, x-tenant and User-Agent.
_USUAL_HEADERS = {"Host", "Accept", "Accept-Encoding", "Connection"}
_BODY_HEADERS = {"Content-Length", "Content-Type"}
_CELL = re.compile(r" ?\| ?")


def tables(page: str) -> list[list[list[str]]]:
    """Return the tables of a page: rows of cells, the head first."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [[_CELL.split(line)[1:-1] for line in block.splitlines()] for block in blocks]


def code_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def setting_rows() -> list[dict[str, str]]:
    """Return the rows of all tables of settings, by the names of their columns."""
    rows: list[dict[str, str]] = []
    for head, _, *body in tables("settings.md"):
        rows += [dict(zip(head, cells, strict=True)) for cells in body]
    return rows


def test_the_settings_have_every_environment_variable() -> None:
    documented = {name for row in setting_rows() for name in code_in(row["environment variable"])}
    own = {name for name in documented if name.startswith(("DATAPILOT_", "ALTIMATE_"))}
    assert own == variables_of_package()


def test_a_setting_has_the_options_of_its_environment_variable() -> None:
    rows = setting_rows()
    for command in LEAVES.values():
        for option in command.params:
            if option.envvar is None:
                continue
            row = next(row for row in rows if option.envvar in code_in(row["environment variable"]))
            assert sorted(code_in(row["option"])) == sorted(option.opts)


def test_the_defaults_are_those_of_the_program() -> None:
    shown = datapilot("config", "show", "--json").json["settings"]
    defaults = {name: each["value"] for name, each in shown.items() if each["origin"] == "default"}
    del defaults["keyring"]  # in words
    documented = {row["setting"].replace(" ", "_"): row["default"] for row in setting_rows()}
    documented["instance_data"] = documented["data_directory"]
    assert {name: documented.get(name) for name in defaults} == defaults


def test_the_settings_have_every_key_of_the_files() -> None:
    reads = re.findall(r'_read_value\(file, "(\w+)"', inspect.getsource(project_settings))
    reads += re.findall(r'file, "(environment)"', inspect.getsource(project_settings))
    keys = {key for row in setting_rows() for key in code_in(row.get("file key", ""))}
    ignored = {"local", "remote", "target-path", "dbt_project.yml"}
    assert keys - ignored == {*reads, *CONFIG_FILE_KEYS.values()}


def test_the_settings_have_every_option_of_serve() -> None:
    documented: dict[str, str] = {}
    for row in setting_rows():
        if "file key" not in row:
            (option,) = code_in(row["option"])
            documented[option] = row["default"].partition(" (")[0]
    common = {option.name for option in LEAVES["config.show"].params}
    options = [each for each in LEAVES["instance.serve"].params if each.name not in common]
    assert documented == {option.opts[0]: shown_default(option) for option in options}


def shown_default(option: click.Parameter) -> str:
    value = option.to_info_dict()["default"]
    if value is None:
        return "none"
    return str(value)


def test_the_exit_codes_are_those_of_the_errors() -> None:
    head, _, *rows = tables("exit-codes.md")[0]
    assert head[:2] == ["code", "`error.kind`"]
    documented = {code_in(row[0])[0]: code_in(row[1]) for row in rows}
    expected: dict[str, list[str]] = {"0": [], "99": []}
    for error in (*errors.DatapilotError.__subclasses__(),):
        if error is errors.Interrupted:
            expected["128+n"] = [error(2).kind]
        else:
            expected[str(error.exit_code)] = [error().kind]
    assert documented == expected


@pytest.fixture
def openapi(tmp_path: Path) -> dict[str, Any]:
    """Return the description of the API."""
    with open_storage(tmp_path / "data") as storage:
        return create_app(storage, InstanceSettings()).openapi()


def api_rows() -> dict[str, str]:
    """Return the rows about routes of the API, by method and path."""
    rows: dict[str, str] = {}
    for head, _, *body in tables("http-api.md"):
        if head[0] == "method and path":
            rows |= {code_in(cells[0])[0]: " | ".join(cells) for cells in body}
    return rows


def test_the_api_has_the_documented_routes_and_no_others(openapi: dict[str, Any]) -> None:
    routes = {
        f"{method.upper()} {path}"
        for path, operations in openapi["paths"].items()
        for method in operations
    }
    assert set(api_rows()) == routes


def test_a_route_is_documented_with_all_parameters(openapi: dict[str, Any]) -> None:
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            row = api_rows()[f"{method.upper()} {path}"]
            names = [each["name"] for each in operation.get("parameters", [])]
            names += body_fields(openapi, operation)
            assert [name for name in names if name not in row] == [], row


def body_fields(openapi: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    if not name:
        return []
    return list(openapi["components"]["schemas"][name]["properties"])


def test_the_pages_of_an_instance_are_documented() -> None:
    head, _, *rows = tables("http-api.md")[-1]
    assert head == ["path", "page"]
    documented = tuple(path for row in rows for path in code_in(row[0]))
    below = tuple(path for row in rows if "below" in row[0] for path in code_in(row[0]))
    for path in paths_of_pages():
        assert path in documented or path.startswith(below), path


def paths_of_pages() -> set[str]:
    """Return the paths of the routes that the API's description leaves out."""
    hidden: set[str] = set()
    for router in application._ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute | Route)
            if not route.include_in_schema and route.methods != {"HEAD"}:
                hidden.add(route.path)
    # The second path of a call, and the page for everything that does not exist.
    return hidden - {"/dbt/v1/project_integrations/", "/settings/{path:path}"}


def test_the_commands_without_requests_send_nothing(
    hosted: ProtocolServer, artifacts: Path, tmp_path: Path
) -> None:
    manifest = artifacts / "manifest.json"
    state = ("--integration-id", 7, "--output", tmp_path / "state")
    upload = ("dbt", "onboard", "--integration-id", 7, "--manifest-path", manifest)
    assert datapilot(*upload, env=hosted.access).exit_code == 0
    assert datapilot("dbt", "pull", *state, env=hosted.access).exit_code == 0
    hosted.requests.clear()
    assert datapilot(*upload, "--dry-run", env=hosted.access).exit_code == 0
    assert datapilot("dbt", "pull", *state, "--offline", env=hosted.access).exit_code == 0
    assert datapilot("dbt", "validate", manifest, env=hosted.access).exit_code == 0
    assert datapilot("config", "show", "--origin", env=hosted.access).exit_code == 0
    datapilot("auth", "logout", env=hosted.access)
    assert hosted.calls == []


def test_an_onboarding_sends_the_files_and_the_documented_facts(
    hosted: ProtocolServer, artifacts: Path
) -> None:
    run = {
        "GITLAB_CI": "1",
        "CI_COMMIT_SHA": "c0ffee5",
        "CI_COMMIT_REF_NAME": "main",
        "CI_JOB_URL": "https://user:password@gitlab.example.com/shop/-/jobs/12",
    }
    manifest = artifacts / "manifest.json"
    words = ("dbt", "onboard", "--integration-id", 7, "--manifest-path", manifest)
    assert datapilot(*words, env={**hosted.access, **run}).exit_code == 0
    assert list(hosted.uploads.values()) == [manifest.read_bytes()]
    for request in hosted.requests:
        headers = set(request.headers) - _USUAL_HEADERS - _BODY_HEADERS
        expected = {"User-Agent", "Authorization", "x-tenant"}
        if request.path.startswith("/storage/"):
            expected = {"User-Agent"}
        assert headers == expected
    (verification,) = [
        each.json for each in hosted.requests if each.path.endswith("/verify_upload")
    ]
    assert set(verification) == {
        *("dbt_core_integration_file_id", "sha256", "size_bytes"),
        *("commit", "branch", "build_url"),
    }
    assert verification["build_url"] == "https://gitlab.example.com/shop/-/jobs/12"
