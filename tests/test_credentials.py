"""Resolution of instance URL, instance name and token from several sources."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from datapilot_defer import credential_store
from datapilot_defer.config import DEFAULT_URL, Setting
from datapilot_defer.credential_sources import CredentialSource
from datapilot_defer.credential_store import StoredCredentials
from datapilot_defer.credentials import (
    Credentials,
    is_loopback,
    rejected_credentials_error,
    resolve_credentials,
)
from datapilot_defer.errors import UsageError
from tests.support.console import RecordingConsole

A, B = "https://a.example.com", "https://b.example.com"


def options(
    token: str | None = None, name: str | None = None, url: str | None = None
) -> CredentialSource:
    return CredentialSource.from_options(token=token, instance_name=name, url=url)


def write(home: Path, **values: str) -> Path:
    """Write the config file with any of url, name and token, and return its path."""
    keys = {"url": "altimateUrl", "name": "altimateInstanceName", "token": "altimateApiKey"}
    path = home / ".altimate" / "altimate.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({keys[key]: value for key, value in values.items()}), encoding="utf-8"
    )
    return path


def resolve(
    options: CredentialSource, environ: Mapping[str, str], home: Path, *kept: tuple[str, str, str]
) -> tuple[str, ...]:
    """Return the resolved URL, instance name and token.

    kept: the credentials in the keyring, the last used first.
    """
    for stored in reversed(kept):
        credential_store.save_to_keyring(StoredCredentials(*stored))
    used = resolve_credentials(
        options,
        environ={"HOME": str(home), "USERPROFILE": str(home), **environ},
        console=RecordingConsole(),
    )
    for url, name, _ in kept:
        credential_store.remove_from_keyring(name, url)
    return used.url.value, used.instance_name.value, used.token.value


ENVIRON = {"ALTIMATE_URL": A, "ALTIMATE_INSTANCE_NAME": "env", "ALTIMATE_API_KEY": "env-token"}


def test_precedence_is_option_variable_file_keyring(
    home: Path,
) -> None:
    keyring = (A, "keyring", "keyring-token")
    assert resolve(options(), {}, home, keyring) == keyring
    write(home, url=A, name="file", token="file-token")
    assert resolve(options(), {}, home, keyring) == (A, "file", "file-token")
    assert resolve(options(), ENVIRON, home, keyring) == (A, "env", "env-token")
    assert resolve(options("option-token", "option", A), ENVIRON, home, keyring) == (
        A,
        "option",
        "option-token",
    )


def test_datapilot_variables_take_precedence_over_altimate_variables(home: Path) -> None:
    ours = {"DATAPILOT_URL": B, "DATAPILOT_INSTANCE_NAME": "ours", "DATAPILOT_TOKEN": "our-token"}
    assert resolve(options(), {**ENVIRON, **ours}, home) == (B, "ours", "our-token")


def test_each_value_may_have_another_source(home: Path) -> None:
    write(home, url=A)
    assert resolve(options(name="n"), {"ALTIMATE_API_KEY": "t"}, home) == (A, "n", "t")


def test_default_url_is_hosted_instance(home: Path) -> None:
    assert resolve(options("t", "n"), {}, home) == (DEFAULT_URL, "n", "t")


def test_empty_values_count_as_missing(home: Path) -> None:
    write(home, url="", name="file", token="t")
    assert resolve(options("", "", ""), dict.fromkeys(ENVIRON, ""), home) == (
        DEFAULT_URL,
        "file",
        "t",
    )


def test_config_file_is_not_read_if_not_needed(home: Path) -> None:
    write(home).write_text("{broken", encoding="utf-8")
    assert resolve(options(), ENVIRON, home) == (A, "env", "env-token")
    with pytest.raises(UsageError, match="not JSON"):
        resolve(options(), {"ALTIMATE_URL": A}, home)


KEPT = [(B, "staging", "token-b"), (A, "prod", "token-a"), (A, "dev", "token-dev")]


@pytest.mark.parametrize(
    ("wanted", "used"),
    [
        (options(), KEPT[0]),
        (options(url=A), KEPT[1]),
        (options(url="HTTPS://A.Example.com/"), KEPT[1]),
        (options(name="dev"), KEPT[2]),
        (options(name="dev", url=A), KEPT[2]),
    ],
)
def test_stored_credentials_are_selected_by_url_or_name(
    wanted: CredentialSource, used: tuple[str, str, str], home: Path
) -> None:
    assert resolve(wanted, {}, home, *KEPT) == used


def test_config_file_does_not_hide_other_instance_in_keyring(
    home: Path,
) -> None:
    write(home, name="prod", token="file-token")
    assert resolve(options(), {}, home, *KEPT) == (DEFAULT_URL, "prod", "file-token")
    assert resolve(options(url=B), {}, home, *KEPT) == KEPT[0]
    assert resolve(options(name="dev"), {}, home, *KEPT) == KEPT[2]
    assert resolve(options(), {"ALTIMATE_URL": A}, home, *KEPT) == KEPT[1]


MIXTURES = {
    "a stored token to another URL": (
        options(url=B),
        {},
        {"url": A, "token": "t", "name": "n"},
        f"belongs to {A}",
    ),
    "a token stored without URL": (
        options(url=B),
        {},
        {"token": "t", "name": "n"},
        f"belongs to {DEFAULT_URL}",
    ),
    "a stored token to the URL of a variable": (
        options(),
        {"ALTIMATE_URL": B},
        {"url": A, "token": "t"},
        "belongs to",
    ),
    "the token of variables to another URL": (options(url=B), ENVIRON, {}, f"belongs to {A}"),
    "another token to the URL of the file": (
        options("x", "n"),
        {},
        {"url": A, "token": "t"},
        "another token",
    ),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_token_of_another_instance_is_rejected(mixture: str, home: Path) -> None:
    given_options, environ, file, message = MIXTURES[mixture]
    write(home, **file)
    with pytest.raises(UsageError, match=message) as raised:
        resolve(given_options, environ, home)
    for token in ("env-token", "'x'", "'t'"):
        assert token not in str(raised.value)
    assert "--token" in str(raised.value) or "--backend-url" in str(raised.value)


def test_token_may_be_replaced_by_source_of_higher_precedence(
    home: Path,
) -> None:
    assert resolve(options("x"), ENVIRON, home) == (
        ENVIRON["ALTIMATE_URL"],
        ENVIRON["ALTIMATE_INSTANCE_NAME"],
        "x",
    )
    write(home, url=A, token="t", name="n")
    assert resolve(options(), {"ALTIMATE_API_KEY": "x"}, home) == (A, "n", "x")


def test_same_token_from_two_sources_is_accepted(home: Path) -> None:
    write(home, url=A, token="${env:ALTIMATE_API_KEY}", name="n")
    assert resolve(options(), {"ALTIMATE_API_KEY": "x"}, home) == (A, "n", "x")


def test_same_url_in_another_spelling_is_accepted(home: Path) -> None:
    write(home, url="https://A.example.com/", token="t", name="n")
    assert resolve(options(url=A), {}, home) == (A, "n", "t")


URLS = {
    "a.example.com": "has to begin with https://",
    "ftp://a.example.com": "has to begin with https://",
    "s3cret": "has to begin with https://",
    "https://": "has no host",
    "https://user:s3cret@a.example.com": "contains a user or a password",
    "https://s3cret@a.example.com": "contains a user or a password",
    "https://a.example.com/api": "it has a path",
    "https://a.example.com/?token=s3cret": "it has a path, a query or a fragment",
    "https://a.example.com#x": "it has a path, a query or a fragment",
    "https://a.example.com:port": "malformed",
    "https://a.example.com:99999": "malformed",
    "https://[::1": "malformed",
    "https://a .example.com": "a space",
    "https://a\u00e4.example.com": "not ASCII",
    "http://a.example.com": "http would send the token unencrypted. "
    "Use https://, or add --allow-http",
    "http://10.0.0.1": "http would send the token unencrypted",
    "http://127.0.0.1.example.com": "http would send the token unencrypted",
    "http://localhost.example.com": "http would send the token unencrypted",
}


@pytest.mark.parametrize("url", URLS)
def test_invalid_url_error_states_reason(url: str, home: Path) -> None:
    with pytest.raises(UsageError, match=URLS[url].replace("(", r"\(")) as raised:
        resolve(options("t", "n", url), {}, home)
    assert "the instance URL from option --backend-url cannot be used" in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("https://A.Example.com/", A),
        ("https://a.example.com:8443", "https://a.example.com:8443"),
        ("http://127.0.0.1:8585", "http://127.0.0.1:8585"),
        ("http://localhost:8585/", "http://localhost:8585"),
        ("http://[::1]:8585", "http://[::1]:8585"),
        ("http://instance.localhost", "http://instance.localhost"),
    ],
)
def test_valid_url_is_normalized(url: str, used: str, home: Path) -> None:
    assert resolve(options("t", "n", url), {}, home)[0] == used


def test_allow_http_permits_other_hosts(home: Path) -> None:
    used = resolve_credentials(
        options("t", "n", "http://10.0.0.1"),
        environ={"HOME": str(home)},
        console=RecordingConsole(),
        allow_http=True,
    )
    assert used.url.value == "http://10.0.0.1"


@pytest.mark.parametrize(
    "value", ["to\nken", "token\n", " t0ken", "tök", "tok\ten", "to\x00ken", "\u200btoken"]
)
@pytest.mark.parametrize("part", ["token", "instance name"])
def test_value_invalid_in_header_is_rejected_without_quoting(
    part: str, value: str, home: Path
) -> None:
    invalid_options = options(value, "n", A) if part == "token" else options("t", value, A)
    with pytest.raises(UsageError, match=f"the {part} from option") as raised:
        resolve(invalid_options, {}, home)
    assert value not in str(raised.value)


def test_missing_value_error_lists_all_sources(home: Path) -> None:
    with pytest.raises(UsageError) as raised:
        resolve(options(), {}, home)
    for way in (
        "ALTIMATE_API_KEY",
        "--token",
        "ALTIMATE_INSTANCE_NAME",
        "--instance-name",
        "datapilot auth login",
    ):
        assert way in str(raised.value)
    with pytest.raises(UsageError, match="no token") as raised:
        resolve(options(name="n"), {}, home)
    assert "instance name" not in str(raised.value)


def test_missing_values_are_prompted(home: Path) -> None:
    console = RecordingConsole({"instance name": "answer", "token": "answer"})
    used = resolve_credentials(options(url=A), environ={"HOME": str(home)}, console=console)
    assert (used.instance_name.value, used.token.value, console.prompts) == (
        "answer",
        "answer",
        ["instance name", "token"],
    )
    assert used.token.origin == "prompt"


def test_rejected_credentials_error_names_each_origin() -> None:
    rejected = Credentials(
        Setting(A, "option --backend-url"),
        Setting("acme", "the file"),
        Setting("s3cret", "keyring"),
    )
    error_message = str(rejected_credentials_error(rejected))
    assert "token (from keyring)" in error_message
    assert "'acme' (from the file)" in error_message
    assert error_message.endswith("the token is not revoked or expired")
    assert "s3cret" not in error_message + repr(rejected)


def test_loopback_addresses_are_recognized() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1", "x.localhost")))
    spellings = ("localhost.", "LOCALHOST", "127.1", "2130706433", "0x7f000001", "0x7f.1")
    assert all(map(is_loopback, (*spellings, "127.0.0.1.", "::ffff:127.0.0.1", "0.0.0.0", "::")))
    assert not any(map(is_loopback, ("128.1", "1.1", "0x08080808", "::ffff:8.8.8.8", "1.2.3.4.5")))
    assert not any(
        map(
            is_loopback,
            ("", "10.0.0.1", "localhost.example.com", "127.0.0.1.example.com"),
        )
    )
