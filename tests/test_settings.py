"""`config show`: effective settings and their origins, without secrets."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.commands import datapilot


def test_config_show_has_defaults() -> None:
    shown = datapilot("config", "show", "--json").json["settings"]
    assert shown["url"] == {"value": "https://api.myaltimate.com", "origin": "default"}
    assert shown["token"] == {"value": None, "origin": "not set anywhere"}


def test_each_value_is_shown_with_origin(home: Path) -> None:
    directory = home / ".altimate"
    directory.mkdir()
    values = {"altimateUrl": "https://dp.example.com", "altimateApiKey": "${env:SECRET_TOKEN}"}
    (directory / "altimate.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    done = datapilot(
        *("config", "show", "--origin"),
        env={"SECRET_TOKEN": "t0ken-t0ken", "DATAPILOT_INSTANCE_NAME": "acme"},
    )
    assert done.exit_code == 0, done.output
    rows = [" ".join(row.split()) for row in done.stdout.splitlines()]
    assert f"url https://dp.example.com {directory / 'altimate.json'}:2" in rows
    assert "instance name acme environment variable DATAPILOT_INSTANCE_NAME" in rows
    assert f"token *** (11 characters) {directory / 'altimate.json'}:3" in rows
    assert "t0ken-t0ken" not in done.output


def test_boolean_variables_are_shown() -> None:
    env = {"DATAPILOT_REQUIRE_SUCCESS": "1", "DATAPILOT_DEBUG": "true"}
    rows = datapilot("config", "show", "--origin", env=env).stdout.splitlines()
    shown = [" ".join(row.split()) for row in rows]
    for name, value in env.items():
        label = name.removeprefix("DATAPILOT_").lower().replace("_", " ")
        assert f"{label} {value} environment variable {name}" in shown


def test_proxy_is_shown_without_password() -> None:
    done = datapilot(
        "config", "show", env={"HTTPS_PROXY": "http://user:pa55word@proxy.example.com:3128"}
    )
    assert "http://proxy.example.com:3128" in done.stdout
    assert "pa55word" not in done.output


def test_invalid_boolean_variable_is_rejected() -> None:
    done = datapilot("config", "show", env={"DATAPILOT_KEYRING": "perhaps"})
    assert done.exit_code == 2
    assert "DATAPILOT_KEYRING is 'perhaps'" in done.stderr
