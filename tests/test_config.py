"""Where settings come from: environment variables, switches, the config file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datapilot_defer import config
from datapilot_defer.config import SettingSource
from datapilot_defer.errors import UsageError


def write(home: Path, text: str | bytes) -> Path:
    """Make this the config file."""
    path = home / ".altimate" / "altimate.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_first_environment_variable_that_is_not_empty_wins() -> None:
    environ = {"DATAPILOT_TOKEN": "", "ALTIMATE_API_KEY": "one"}
    found = config.read_variable(environ, config.CREDENTIAL_VARIABLES["token"])
    assert found == config.Setting(
        "one", "environment variable ALTIMATE_API_KEY", SettingSource.VARIABLE
    )
    assert config.read_variable(
        {**environ, "DATAPILOT_TOKEN": "two"}, config.CREDENTIAL_VARIABLES["token"]
    ) == config.Setting("two", "environment variable DATAPILOT_TOKEN", SettingSource.VARIABLE)
    assert config.read_variable({}, config.CREDENTIAL_VARIABLES["token"]) is None


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("1", True),
        ("TRUE", True),
        ("yes", True),
        ("On", True),
        ("0", False),
        ("false", False),
        ("No", False),
        ("", None),
    ],
)
def test_a_switch_has_the_usual_words(value: str, means: bool | None) -> None:
    assert config.read_boolean_variable({"NAME": value}, "NAME") is means


def test_another_word_in_a_switch_is_refused_by_name() -> None:
    with pytest.raises(
        UsageError, match=r"environment variable NAME is 'maybe'\. Set it to 1 or 0"
    ):
        config.read_boolean_variable({"NAME": "maybe"}, "NAME")


def test_no_config_file_is_an_empty_one(home: Path) -> None:
    file = config.read_config_file(os.environ)
    assert file.get("altimateUrl", os.environ) is None
    assert not file.is_readable_by_others()
    assert file.path == home / ".altimate" / "altimate.json"


def test_a_value_is_given_with_its_line(home: Path) -> None:
    path = write(home, '\ufeff{\n  "other": 1,\n  "altimateUrl": "https://dp.example.com"\n}')
    found = config.read_config_file(os.environ).get("altimateUrl", os.environ)
    assert found == config.Setting("https://dp.example.com", f"{path}:3", SettingSource.CONFIG_FILE)


def test_a_value_may_name_environment_variables(home: Path) -> None:
    write(home, '{"altimateUrl": "https://${env:HOST}:${env:PORT}"}')
    found = config.read_config_file(os.environ).get("altimateUrl", {"HOST": "dp", "PORT": "99"})
    assert found is not None
    assert found.value == "https://dp:99"


def test_an_environment_variable_that_is_not_set_is_named(home: Path) -> None:
    path = write(home, '{\n"altimateApiKey": "${env:MY_TOKEN}"}')
    with pytest.raises(UsageError) as refused:
        config.read_config_file(os.environ).get("altimateApiKey", {"MY_TOKEN": ""})
    assert (
        str(refused.value)
        == f"{path}:2: altimateApiKey contains the environment variable MY_TOKEN, which is not set"
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{not json s3cret", r"altimate\.json:1: the config file is not JSON"),
        ("[1, 2]", "must be one JSON object"),
        ('"s3cret"', "must be one JSON object"),
        ("", "is not JSON"),
        (b"\xff\xfe{}", "it is not UTF-8 text"),
        ("[" * 100_000, "contains a number that is too long"),
    ],
)
def test_a_broken_file_is_named_and_never_quoted(
    home: Path, content: str | bytes, says: str
) -> None:
    write(home, content)
    with pytest.raises(UsageError, match=says) as refused:
        config.read_config_file(os.environ)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("value", ["7", "true", '["t"]', '{"a": 1}'])
def test_a_value_of_another_type_is_refused(home: Path, value: str) -> None:
    path = write(home, f'{{"altimateApiKey": {value}}}')
    with pytest.raises(UsageError) as refused:
        config.read_config_file(os.environ).get("altimateApiKey", os.environ)
    assert str(refused.value) == f"{path}:1: altimateApiKey must be a string, in quotes"


@pytest.mark.parametrize("value", ["null", '""'])
def test_an_empty_value_is_none(home: Path, value: str) -> None:
    write(home, f'{{"altimateApiKey": {value}}}')
    assert config.read_config_file(os.environ).get("altimateApiKey", os.environ) is None


def test_a_folder_in_the_place_of_the_file_is_refused(home: Path) -> None:
    (home / ".altimate" / "altimate.json").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot read the config file "):
        config.read_config_file(os.environ)


@pytest.mark.skipif(os.name == "nt", reason="folders decide on Windows who can read a file")
def test_a_file_that_others_can_read_is_known(home: Path) -> None:
    path = write(home, '{"altimateApiKey": "t"}')
    path.chmod(0o640)
    assert config.read_config_file(os.environ).is_readable_by_others()
    path.chmod(0o600)
    assert not config.read_config_file(os.environ).is_readable_by_others()


def test_nothing_is_read_from_the_working_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '{"altimateUrl": "https://evil.example.com"}')
    assert config.read_config_file(os.environ).values == {}


def test_a_machine_without_home_folder_has_no_config_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert config.config_file_path({}) is None
    assert config.read_config_file({}).values == {}


def test_a_setting_never_shows_its_value() -> None:
    assert "s3cret" not in repr(config.Setting("s3cret", "here"))
    assert "s3cret" not in repr(
        config.ConfigFile(Path("x"), {"altimateApiKey": "s3cret"}, "s3cret")
    )


def test_a_folder_that_is_no_path_of_a_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/x")
    )  # as older ones answer
    with pytest.raises(UsageError, match="Set HOME or XDG_CACHE_HOME"):
        config.user_cache_directory()


def test_the_folders_of_the_program_are_in_the_home(home: Path) -> None:
    assert home in config.user_cache_directory().parents
    folder = config.user_config_directory()
    assert folder is not None
    assert home in folder.parents


def test_a_program_gets_no_copy_of_a_token(home: Path) -> None:
    write(home, '{"altimateApiKey": "${env:CORP_TOKEN}"}')
    environ = {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "ALTIMATE_API_KEY": "hosted-token",
        "COPY": "hosted-token",
        "CORP_TOKEN": "corp-token",
        "OTHER": "dpd_0123456789abcdef",
        "DBT_USER": "me",
    }
    kept = config.without_tokens(environ)
    assert kept == {"HOME": str(home), "USERPROFILE": str(home), "DBT_USER": "me"}
