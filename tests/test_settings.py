"""`config show`: what is in effect, from where, and no secret."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.commands import datapilot


def test_without_any_setting_the_defaults_are_shown() -> None:
    shown = datapilot("config", "show", "--json").json["settings"]
    assert shown["url"] == {"value": "https://api.myaltimate.com", "origin": "default"}
    assert shown["token"] == {"value": None, "origin": "not set anywhere"}


def test_each_value_is_shown_with_the_place_it_comes_from(home: Path) -> None:
    folder = home / ".altimate"
    folder.mkdir()
    values = {"altimateUrl": "https://dp.example.com", "altimateApiKey": "${env:SECRET_TOKEN}"}
    (folder / "altimate.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    done = datapilot(
        *("config", "show", "--origin"),
        env={"SECRET_TOKEN": "t0ken-t0ken", "DATAPILOT_INSTANCE_NAME": "acme"},
    )
    assert done.exit_code == 0, done.output
    rows = [" ".join(row.split()) for row in done.stdout.splitlines()]
    assert f"url https://dp.example.com {folder / 'altimate.json'}:2" in rows
    assert "instance name acme environment variable DATAPILOT_INSTANCE_NAME" in rows
    assert f"token *** (11 characters) {folder / 'altimate.json'}:3" in rows
    assert "t0ken-t0ken" not in done.output


def test_the_switches_that_ci_sets_are_shown() -> None:
    env = {"DATAPILOT_REQUIRE_SUCCESS": "1", "DATAPILOT_DEBUG": "true"}
    rows = datapilot("config", "show", "--origin", env=env).stdout.splitlines()
    shown = [" ".join(row.split()) for row in rows]
    for name, value in env.items():
        label = name.removeprefix("DATAPILOT_").lower().replace("_", " ")
        assert f"{label} {value} environment variable {name}" in shown


def test_a_proxy_is_shown_without_its_password() -> None:
    done = datapilot(
        "config", "show", env={"HTTPS_PROXY": "http://user:pa55word@proxy.example.com:3128"}
    )
    assert "http://proxy.example.com:3128" in done.stdout
    assert "pa55word" not in done.output


def test_a_switch_that_is_neither_on_nor_off_is_refused() -> None:
    done = datapilot("config", "show", env={"DATAPILOT_KEYRING": "perhaps"})
    assert done.exit_code == 2
    assert "DATAPILOT_KEYRING is 'perhaps'" in done.stderr
