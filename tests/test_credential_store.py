"""Credentials between calls: in the keyring, in the config file, and in a real keyring once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.errors import NoKeyringError

from datapilot_defer import config, credential_store
from datapilot_defer.config import DEFAULT_URL
from datapilot_defer.credential_sources import CredentialSource
from datapilot_defer.credential_store import StoredCredentials
from datapilot_defer.errors import Unavailable, UsageError
from tests.conftest import MemoryKeyring
from tests.support.console import RecordingConsole
from tests.support.environments import require
from tests.support.instances import RunningInstance

A, B = "https://a.example.com", "https://b.example.com"


def credentials(url: str = A, name: str = "acme", token: str = "token-a") -> StoredCredentials:  # noqa: S107
    return StoredCredentials(url, name, token)


def kept(url: str | None = None, name: str | None = None) -> tuple[str, ...] | None:
    """URL, instance name and token of what is found in the keyring."""
    found = credential_store.find_in_keyring(url, name)
    if found is None:
        return None
    return (found.url, found.instance_name, found.token)


def test_an_empty_keyring_holds_nothing() -> None:
    assert kept() is None
    assert not credential_store.remove_from_keyring("acme", A)


def test_a_set_is_kept_as_one_entry_and_found_again(memory_keyring: MemoryKeyring) -> None:
    credential_store.save_to_keyring(credentials())
    assert kept() == (A, "acme", "token-a")
    found = CredentialSource.from_keyring(None, None, RecordingConsole())
    assert found is not None
    assert found.stored
    assert json.loads(memory_keyring.passwords["datapilot-defer", f"acme {A}"])["url"] == A


def test_several_sets_stand_side_by_side_the_last_one_first() -> None:
    for url, name, token in [(A, "acme", "1"), (B, "acme", "2"), (A, "dev", "3")]:
        credential_store.save_to_keyring(credentials(url, name, token))
    assert kept() == (A, "dev", "3")
    assert kept(url=B) == (B, "acme", "2")
    assert kept(name="acme") == (B, "acme", "2")
    assert kept(A, "acme") == (A, "acme", "1")
    assert kept(B, "dev") is None
    credential_store.save_to_keyring(credentials(A, "acme", "new"))
    assert kept() == (A, "acme", "new")


def test_one_set_is_forgotten_and_the_others_stay(memory_keyring: MemoryKeyring) -> None:
    credential_store.save_to_keyring(credentials(A))
    credential_store.save_to_keyring(credentials(B, token="token-b"))
    assert credential_store.remove_from_keyring("acme", B)
    assert kept() == (A, "acme", "token-a")
    assert "token-b" not in str(memory_keyring.passwords)


def test_an_entry_that_somebody_deleted_is_passed_over(memory_keyring: MemoryKeyring) -> None:
    credential_store.save_to_keyring(credentials(A))
    credential_store.save_to_keyring(credentials(B, token="token-b"))
    del memory_keyring.passwords["datapilot-defer", f"acme {B}"]
    assert kept() == (A, "acme", "token-a")
    assert credential_store.remove_from_keyring("acme", B)


@pytest.mark.parametrize("damage", ["", "nonsense", "{}", "[1, [2]]", '{"token": 7}', "null"])
def test_damaged_entries_are_no_entries(memory_keyring: MemoryKeyring, damage: str) -> None:
    credential_store.save_to_keyring(credentials())
    memory_keyring.passwords["datapilot-defer", f"acme {A}"] = damage
    assert kept() is None
    memory_keyring.passwords["datapilot-defer", "index"] = damage
    assert kept() is None


class Broken(MemoryKeyring):
    """A keyring that fails as real ones do: with an exception of its own."""

    def get_password(self, service: str, username: str) -> str | None:
        raise OSError(f"org.freedesktop.DBus.Error for {service} {username} s3cret")


class Absent(MemoryKeyring):
    """What keyring chooses where there is none."""

    def get_password(self, service: str, username: str) -> str | None:
        raise NoKeyringError("No recommended backend was available.")


class Frozen(MemoryKeyring):
    """A keyring that never answers, until the test is over."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.over.wait()
        return None


@pytest.fixture
def frozen() -> Iterator[Frozen]:
    backend = Frozen()
    keyring.set_keyring(backend)
    yield backend
    backend.over.set()


def test_a_keyring_that_fails_is_unavailable_and_not_quoted() -> None:
    keyring.set_keyring(Broken())
    with pytest.raises(Unavailable, match=r"cannot be used \(OSError\)") as failed:
        kept()
    assert "s3cret" not in str(failed.value)


def test_no_keyring_is_said_to_be_none() -> None:
    keyring.set_keyring(Absent())
    with pytest.raises(Unavailable, match="there is no keyring on this system"):
        kept()


def test_a_keyring_that_never_answers_is_given_up(
    frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert credential_store.KEYRING_TIMEOUT_S == 5
    monkeypatch.setattr(credential_store, "KEYRING_TIMEOUT_S", 0.05)
    with pytest.raises(Unavailable, match=r"did not respond within 0\.05 s"):
        kept()


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, True),
        ({"CI": "true"}, False),
        ({"GITHUB_ACTIONS": "true"}, False),
        ({"AIRFLOW_CTX_DAG_ID": "d"}, False),
        ({"CI": "true", "DATAPILOT_KEYRING": "1"}, True),
        ({"DATAPILOT_KEYRING": "0"}, False),
    ],
)
def test_in_ci_the_keyring_is_asked_only_when_told(environ: dict[str, str], wanted: bool) -> None:
    assert credential_store.is_keyring_enabled(environ) is wanted


def test_the_file_is_readable_by_its_owner_only_and_keeps_what_else_it_holds(home: Path) -> None:
    file = home / ".altimate" / "altimate.json"
    file.parent.mkdir()
    file.write_text('{"theirs": {"a": [1, "\u00e4"]}, "altimateApiKey": "old"}', encoding="utf-8")
    file.chmod(0o644)
    assert credential_store.save_to_config_file(credentials(), os.environ) == file
    values = json.loads(file.read_text(encoding="utf-8"))
    assert values == {
        "theirs": {"a": [1, "\u00e4"]},
        "altimateUrl": A,
        "altimateInstanceName": "acme",
        "altimateApiKey": "token-a",
    }
    assert list(file.parent.iterdir()) == [file]
    if os.name != "nt":
        assert file.stat().st_mode & 0o777 == 0o600
    assert credential_store.find_in_config_file(os.environ) == ("acme", A)


def test_the_set_is_taken_out_of_the_file_and_the_rest_stays(home: Path) -> None:
    assert credential_store.remove_from_config_file(os.environ) is None
    file = credential_store.save_to_config_file(credentials(), os.environ)
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), "theirs": 1}), encoding="utf-8"
    )
    assert credential_store.remove_from_config_file(os.environ) == file
    assert json.loads(file.read_text(encoding="utf-8")) == {"theirs": 1}
    assert credential_store.find_in_config_file(os.environ) is None


def test_a_file_without_url_is_about_the_hosted_instance(home: Path) -> None:
    (home / ".altimate").mkdir()
    (home / ".altimate" / "altimate.json").write_text('{"altimateApiKey": "t"}', encoding="utf-8")
    assert credential_store.find_in_config_file(os.environ) == ("", DEFAULT_URL)


def test_a_broken_file_is_not_written_over(home: Path) -> None:
    file = home / ".altimate" / "altimate.json"
    file.parent.mkdir()
    file.write_text("{broken", encoding="utf-8")
    with pytest.raises(UsageError, match="not JSON"):
        credential_store.save_to_config_file(credentials(), os.environ)
    assert file.read_text(encoding="utf-8") == "{broken"


def test_a_home_that_can_not_be_written_is_said_to_be_one(home: Path) -> None:
    (home / ".altimate").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(UsageError, match="the config file"):
        credential_store.save_to_config_file(credentials(), os.environ)


def test_without_a_home_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "home_directory", lambda _: None)
    with pytest.raises(UsageError, match="no home directory"):
        credential_store.save_to_config_file(credentials(), os.environ)


REAL = """
import subprocess, sys
unlock = ["gnome-keyring-daemon", "--unlock"]
assert subprocess.run(unlock, input=b"pass\\n", stdout=subprocess.DEVNULL).returncode == 0
program = [sys.executable, "-m", "datapilot_defer", "auth"]
for words in (["login", "--token-stdin"], ["status", "--json"], ["logout"], ["status"]):
    text = sys.argv[1] if "login" in words else ""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([*program, *words], input=text, text=True, **streams)
    print(words[0], done.returncode, done.stdout.strip().splitlines()[-1])
"""


@pytest.mark.slow
def test_a_real_keyring_keeps_and_forgets(instance: RunningInstance, home: Path) -> None:
    require("gnome-keyring")
    environ = {
        name: value for name, value in os.environ.items() if name != "PYTHON_KEYRING_BACKEND"
    }
    environ |= {"ALTIMATE_URL": instance.url, "ALTIMATE_INSTANCE_NAME": instance.instance_name}
    done = subprocess.run(
        ["dbus-run-session", "--", sys.executable, "-c", REAL, instance.token],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    login, status, logout, nothing = done.stdout.splitlines()[-4:]
    assert login == (
        f"login 0 Logged in to {instance.url} as instance name 'acme'; "
        "the credentials are in the system keyring."
    ), done.stdout
    assert json.loads(status.partition("status 0 ")[2])["token_origin"] == "the system keyring"
    assert logout.startswith("logout 0 Logged out: removed from the system keyring")
    assert nothing.startswith("status 2 Error: no token")
    assert instance.token not in done.stdout
    assert not any(
        instance.token.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file()
    )
