"""Sources of settings: environment variables, booleans and the config file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datapilot_defer import config
from datapilot_defer.config import SettingSource
from datapilot_defer.errors import UsageError


def write(home: Path, text: str | bytes) -> Path:
    """Write the config file and return its path."""
    path = home / ".altimate" / "altimate.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_first_nonempty_variable_takes_precedence() -> None:
    environ = {"DATAPILOT_TOKEN": "", "ALTIMATE_API_KEY": "one"}
    setting = config.read_variable(environ, config.CREDENTIAL_VARIABLES["token"])
    assert setting == config.Setting(
        "one", "environment variable ALTIMATE_API_KEY", SettingSource.VARIABLE
    )
    assert config.read_variable(
        {**environ, "DATAPILOT_TOKEN": "two"}, config.CREDENTIAL_VARIABLES["token"]
    ) == config.Setting("two", "environment variable DATAPILOT_TOKEN", SettingSource.VARIABLE)
    assert config.read_variable({}, config.CREDENTIAL_VARIABLES["token"]) is None


@pytest.mark.parametrize(
    ("value", "expected"),
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
def test_boolean_variable_accepts_usual_words(value: str, expected: bool | None) -> None:
    assert config.read_boolean_variable({"NAME": value}, "NAME") is expected


def test_invalid_boolean_error_names_variable() -> None:
    with pytest.raises(
        UsageError, match=r"environment variable NAME is 'maybe'\. Set it to 1 or 0"
    ):
        config.read_boolean_variable({"NAME": "maybe"}, "NAME")


def test_missing_config_file_is_empty(home: Path) -> None:
    file = config.read_config_file(os.environ)
    assert file.get("altimateUrl", os.environ) is None
    assert not file.is_readable_by_others()
    assert file.path == home / ".altimate" / "altimate.json"


def test_setting_has_line_as_origin(home: Path) -> None:
    path = write(home, '\ufeff{\n  "other": 1,\n  "altimateUrl": "https://dp.example.com"\n}')
    setting = config.read_config_file(os.environ).get("altimateUrl", os.environ)
    assert setting == config.Setting(
        "https://dp.example.com", f"{path}:3", SettingSource.CONFIG_FILE
    )


def test_value_expands_environment_variables(home: Path) -> None:
    write(home, '{"altimateUrl": "https://${env:HOST}:${env:PORT}"}')
    setting = config.read_config_file(os.environ).get("altimateUrl", {"HOST": "dp", "PORT": "99"})
    assert setting is not None
    assert setting.value == "https://dp:99"


def test_unset_variable_error_names_variable(home: Path) -> None:
    path = write(home, '{\n"altimateApiKey": "${env:MY_TOKEN}"}')
    with pytest.raises(UsageError) as raised:
        config.read_config_file(os.environ).get("altimateApiKey", {"MY_TOKEN": ""})
    assert (
        str(raised.value)
        == f"{path}:2: altimateApiKey contains the environment variable MY_TOKEN, which is not set"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json s3cret", r"altimate\.json:1: the config file is not JSON"),
        ("[1, 2]", "must be one JSON object"),
        ('"s3cret"', "must be one JSON object"),
        ("", "is not JSON"),
        (b"\xff\xfe{}", "it is not UTF-8 text"),
        ("[" * 100_000, "contains a number that is too long"),
    ],
)
def test_invalid_file_error_does_not_quote_content(
    home: Path, content: str | bytes, message: str
) -> None:
    write(home, content)
    with pytest.raises(UsageError, match=message) as raised:
        config.read_config_file(os.environ)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("value", ["7", "true", '["t"]', '{"a": 1}'])
def test_value_of_wrong_type_is_rejected(home: Path, value: str) -> None:
    path = write(home, f'{{"altimateApiKey": {value}}}')
    with pytest.raises(UsageError) as raised:
        config.read_config_file(os.environ).get("altimateApiKey", os.environ)
    assert str(raised.value) == f"{path}:1: altimateApiKey must be a string, in quotes"


@pytest.mark.parametrize("value", ["null", '""'])
def test_empty_value_counts_as_missing(home: Path, value: str) -> None:
    write(home, f'{{"altimateApiKey": {value}}}')
    assert config.read_config_file(os.environ).get("altimateApiKey", os.environ) is None


def test_directory_instead_of_file_is_rejected(home: Path) -> None:
    (home / ".altimate" / "altimate.json").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot read the config file "):
        config.read_config_file(os.environ)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_file_readable_by_others_is_detected(home: Path) -> None:
    path = write(home, '{"altimateApiKey": "t"}')
    path.chmod(0o640)
    assert config.read_config_file(os.environ).is_readable_by_others()
    path.chmod(0o600)
    assert not config.read_config_file(os.environ).is_readable_by_others()


def test_current_directory_has_no_config_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '{"altimateUrl": "https://evil.example.com"}')
    assert config.read_config_file(os.environ).values == {}


def test_missing_home_directory_has_no_config_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    assert config.config_file_path({}) is None
    assert config.read_config_file({}).values == {}


def test_repr_of_setting_hides_value() -> None:
    assert "s3cret" not in repr(config.Setting("s3cret", "here"))
    assert "s3cret" not in repr(
        config.ConfigFile(Path("x"), {"altimateApiKey": "s3cret"}, "s3cret")
    )


def test_unexpanded_cache_directory_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    # Older releases of platformdirs return this path without a home directory.
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/x"))
    with pytest.raises(UsageError, match="Set HOME or XDG_CACHE_HOME"):
        config.user_cache_directory()


def test_program_directories_are_in_home(home: Path) -> None:
    assert home in config.user_cache_directory().parents
    directory = config.user_config_directory()
    assert directory is not None
    assert home in directory.parents


def test_child_environment_has_no_copy_of_token(home: Path) -> None:
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
