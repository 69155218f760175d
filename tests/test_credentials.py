"""Instance URL, instance name and token: which set is used, and which mixtures are refused."""

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
    """Make this the config file: url, name, token."""
    keys = {"url": "altimateUrl", "name": "altimateInstanceName", "token": "altimateApiKey"}
    path = home / ".altimate" / "altimate.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({keys[key]: value for key, value in values.items()}), encoding="utf-8"
    )
    return path


def found(
    options: CredentialSource, environ: Mapping[str, str], home: Path, *kept: tuple[str, str, str]
) -> tuple[str, ...]:
    """Return URL, instance name and token that are used.

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


def test_an_option_wins_over_an_environment_variable_over_the_file_over_the_keyring(
    home: Path,
) -> None:
    keyring = (A, "keyring", "keyring-token")
    assert found(options(), {}, home, keyring) == keyring
    write(home, url=A, name="file", token="file-token")
    assert found(options(), {}, home, keyring) == (A, "file", "file-token")
    assert found(options(), ENVIRON, home, keyring) == (A, "env", "env-token")
    assert found(options("option-token", "option", A), ENVIRON, home, keyring) == (
        A,
        "option",
        "option-token",
    )


def test_our_environment_variables_win_over_those_of_the_ecosystem(home: Path) -> None:
    ours = {"DATAPILOT_URL": B, "DATAPILOT_INSTANCE_NAME": "ours", "DATAPILOT_TOKEN": "our-token"}
    assert found(options(), {**ENVIRON, **ours}, home) == (B, "ours", "our-token")


def test_each_part_may_come_from_another_place(home: Path) -> None:
    write(home, url=A)
    assert found(options(name="n"), {"ALTIMATE_API_KEY": "t"}, home) == (A, "n", "t")


def test_without_a_url_it_is_the_hosted_instance(home: Path) -> None:
    assert found(options("t", "n"), {}, home) == (DEFAULT_URL, "n", "t")


def test_empty_values_count_as_not_given(home: Path) -> None:
    write(home, url="", name="file", token="t")
    assert found(options("", "", ""), dict.fromkeys(ENVIRON, ""), home) == (
        DEFAULT_URL,
        "file",
        "t",
    )


def test_the_file_is_not_read_when_everything_is_given(home: Path) -> None:
    write(home).write_text("{broken", encoding="utf-8")
    assert found(options(), ENVIRON, home) == (A, "env", "env-token")
    with pytest.raises(UsageError, match="not JSON"):
        found(options(), {"ALTIMATE_URL": A}, home)


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
def test_one_of_several_instances_is_chosen_by_url_or_name(
    wanted: CredentialSource, used: tuple[str, str, str], home: Path
) -> None:
    assert found(wanted, {}, home, *KEPT) == used


def test_the_set_in_the_file_does_not_hide_that_of_another_instance_in_the_keyring(
    home: Path,
) -> None:
    write(home, name="prod", token="file-token")
    assert found(options(), {}, home, *KEPT) == (DEFAULT_URL, "prod", "file-token")
    assert found(options(url=B), {}, home, *KEPT) == KEPT[0]
    assert found(options(name="dev"), {}, home, *KEPT) == KEPT[2]
    assert found(options(), {"ALTIMATE_URL": A}, home, *KEPT) == KEPT[1]


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
def test_a_token_goes_nowhere_but_where_it_belongs(mixture: str, home: Path) -> None:
    given_options, environ, file, says = MIXTURES[mixture]
    write(home, **file)
    with pytest.raises(UsageError, match=says) as refused:
        found(given_options, environ, home)
    for token in ("env-token", "'x'", "'t'"):
        assert token not in str(refused.value)
    assert "--token" in str(refused.value) or "--backend-url" in str(refused.value)


def test_an_option_may_replace_the_token_of_a_variable_and_a_variable_that_of_the_file(
    home: Path,
) -> None:
    assert found(options("x"), ENVIRON, home) == (
        ENVIRON["ALTIMATE_URL"],
        ENVIRON["ALTIMATE_INSTANCE_NAME"],
        "x",
    )
    write(home, url=A, token="t", name="n")
    assert found(options(), {"ALTIMATE_API_KEY": "x"}, home) == (A, "n", "x")


def test_the_same_token_by_another_way_is_no_mixture(home: Path) -> None:
    write(home, url=A, token="${env:ALTIMATE_API_KEY}", name="n")
    assert found(options(), {"ALTIMATE_API_KEY": "x"}, home) == (A, "n", "x")


def test_the_same_url_in_another_spelling_is_no_mixture(home: Path) -> None:
    write(home, url="https://A.example.com/", token="t", name="n")
    assert found(options(url=A), {}, home) == (A, "n", "t")


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
def test_a_url_that_can_not_be_used_is_refused_with_the_reason(url: str, home: Path) -> None:
    with pytest.raises(UsageError, match=URLS[url].replace("(", r"\(")) as refused:
        found(options("t", "n", url), {}, home)
    assert "the instance URL from option --backend-url cannot be used" in str(refused.value)
    assert "s3cret" not in str(refused.value)


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
def test_a_good_url_is_used_in_one_spelling(url: str, used: str, home: Path) -> None:
    assert found(options("t", "n", url), {}, home)[0] == used


def test_http_to_another_machine_is_possible_on_request(home: Path) -> None:
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
def test_what_can_not_travel_in_a_header_is_refused_and_not_quoted(
    part: str, value: str, home: Path
) -> None:
    wrong = options(value, "n", A) if part == "token" else options("t", value, A)
    with pytest.raises(UsageError, match=f"the {part} from option") as refused:
        found(wrong, {}, home)
    assert value not in str(refused.value)


def test_what_is_missing_is_named_with_every_way_to_give_it(home: Path) -> None:
    with pytest.raises(UsageError) as refused:
        found(options(), {}, home)
    for way in (
        "ALTIMATE_API_KEY",
        "--token",
        "ALTIMATE_INSTANCE_NAME",
        "--instance-name",
        "datapilot auth login",
    ):
        assert way in str(refused.value)
    with pytest.raises(UsageError, match="no token") as refused:
        found(options(name="n"), {}, home)
    assert "instance name" not in str(refused.value)


def test_somebody_at_a_terminal_is_asked_for_what_is_missing(home: Path) -> None:
    console = RecordingConsole({"instance name": "answer", "token": "answer"})
    used = resolve_credentials(options(url=A), environ={"HOME": str(home)}, console=console)
    assert (used.instance_name.value, used.token.value, console.asked) == (
        "answer",
        "answer",
        ["instance name", "token"],
    )
    assert used.token.origin == "prompt"


def test_a_denial_says_where_each_part_came_from() -> None:
    mine = Credentials(
        Setting(A, "option --backend-url"),
        Setting("acme", "the file"),
        Setting("s3cret", "keyring"),
    )
    said = str(rejected_credentials_error(mine))
    assert "token (from keyring)" in said
    assert "'acme' (from the file)" in said
    assert said.endswith("the token is not revoked or expired")
    assert "s3cret" not in said + repr(mine)


def test_loopback_is_this_machine_only() -> None:
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
