"""Stored credentials in the keyring, in the config file and in a real keyring."""

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


def keyring_entry(url: str | None = None, name: str | None = None) -> tuple[str, ...] | None:
    """Return URL, instance name and token of the selected credentials in the keyring."""
    stored = credential_store.find_in_keyring(url, name)
    if stored is None:
        return None
    return (stored.url, stored.instance_name, stored.token)


def test_empty_keyring_has_no_credentials() -> None:
    assert keyring_entry() is None
    assert not credential_store.remove_from_keyring("acme", A)


def test_credentials_are_stored_as_one_entry(memory_keyring: MemoryKeyring) -> None:
    credential_store.save_to_keyring(credentials())
    assert keyring_entry() == (A, "acme", "token-a")
    source = CredentialSource.from_keyring(None, None, RecordingConsole())
    assert source is not None
    assert source.stored
    assert json.loads(memory_keyring.passwords["datapilot-defer", f"acme {A}"])["url"] == A


def test_last_saved_credentials_take_precedence() -> None:
    for url, name, token in [(A, "acme", "1"), (B, "acme", "2"), (A, "dev", "3")]:
        credential_store.save_to_keyring(credentials(url, name, token))
    assert keyring_entry() == (A, "dev", "3")
    assert keyring_entry(url=B) == (B, "acme", "2")
    assert keyring_entry(name="acme") == (B, "acme", "2")
    assert keyring_entry(A, "acme") == (A, "acme", "1")
    assert keyring_entry(B, "dev") is None
    credential_store.save_to_keyring(credentials(A, "acme", "new"))
    assert keyring_entry() == (A, "acme", "new")


def test_removal_keeps_other_credentials(memory_keyring: MemoryKeyring) -> None:
    credential_store.save_to_keyring(credentials(A))
    credential_store.save_to_keyring(credentials(B, token="token-b"))
    assert credential_store.remove_from_keyring("acme", B)
    assert keyring_entry() == (A, "acme", "token-a")
    assert "token-b" not in str(memory_keyring.passwords)


def test_externally_deleted_entry_is_skipped(memory_keyring: MemoryKeyring) -> None:
    credential_store.save_to_keyring(credentials(A))
    credential_store.save_to_keyring(credentials(B, token="token-b"))
    del memory_keyring.passwords["datapilot-defer", f"acme {B}"]
    assert keyring_entry() == (A, "acme", "token-a")
    assert credential_store.remove_from_keyring("acme", B)


@pytest.mark.parametrize("content", ["", "nonsense", "{}", "[1, [2]]", '{"token": 7}', "null"])
def test_damaged_entries_are_ignored(memory_keyring: MemoryKeyring, content: str) -> None:
    credential_store.save_to_keyring(credentials())
    memory_keyring.passwords["datapilot-defer", f"acme {A}"] = content
    assert keyring_entry() is None
    memory_keyring.passwords["datapilot-defer", "index"] = content
    assert keyring_entry() is None


class FailingKeyring(MemoryKeyring):
    """A keyring that raises an exception of its own, as real ones do."""

    def get_password(self, service: str, username: str) -> str | None:
        raise OSError(f"org.freedesktop.DBus.Error for {service} {username} s3cret")


class MissingKeyring(MemoryKeyring):
    """The backend that keyring selects on a system without a keyring."""

    def get_password(self, service: str, username: str) -> str | None:
        raise NoKeyringError("No recommended backend was available.")


class BlockedKeyring(MemoryKeyring):
    """A keyring that does not respond until the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.test_ended = threading.Event()

    def get_password(self, service: str, username: str) -> str | None:
        self.test_ended.wait()
        return None


@pytest.fixture
def blocked_keyring() -> Iterator[BlockedKeyring]:
    backend = BlockedKeyring()
    keyring.set_keyring(backend)
    yield backend
    backend.test_ended.set()


def test_failing_keyring_error_does_not_quote_exception() -> None:
    keyring.set_keyring(FailingKeyring())
    with pytest.raises(Unavailable, match=r"cannot be used \(OSError\)") as failed:
        keyring_entry()
    assert "s3cret" not in str(failed.value)


def test_missing_keyring_is_reported() -> None:
    keyring.set_keyring(MissingKeyring())
    with pytest.raises(Unavailable, match="there is no keyring on this system"):
        keyring_entry()


def test_blocked_keyring_times_out(
    blocked_keyring: BlockedKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert credential_store.KEYRING_TIMEOUT_S == 5
    monkeypatch.setattr(credential_store, "KEYRING_TIMEOUT_S", 0.05)
    with pytest.raises(Unavailable, match=r"did not respond within 0\.05 s"):
        keyring_entry()


@pytest.mark.parametrize(
    ("environ", "is_enabled"),
    [
        ({}, True),
        ({"CI": "true"}, False),
        ({"GITHUB_ACTIONS": "true"}, False),
        ({"AIRFLOW_CTX_DAG_ID": "d"}, False),
        ({"CI": "true", "DATAPILOT_KEYRING": "1"}, True),
        ({"DATAPILOT_KEYRING": "0"}, False),
    ],
)
def test_keyring_is_disabled_in_ci_by_default(environ: dict[str, str], is_enabled: bool) -> None:
    assert credential_store.is_keyring_enabled(environ) is is_enabled


def test_saved_config_file_is_private_and_keeps_other_values(home: Path) -> None:
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


def test_removal_from_config_file_keeps_other_values(home: Path) -> None:
    assert credential_store.remove_from_config_file(os.environ) is None
    file = credential_store.save_to_config_file(credentials(), os.environ)
    file.write_text(
        json.dumps({**json.loads(file.read_text(encoding="utf-8")), "theirs": 1}), encoding="utf-8"
    )
    assert credential_store.remove_from_config_file(os.environ) == file
    assert json.loads(file.read_text(encoding="utf-8")) == {"theirs": 1}
    assert credential_store.find_in_config_file(os.environ) is None


def test_config_file_without_url_uses_default_url(home: Path) -> None:
    (home / ".altimate").mkdir()
    (home / ".altimate" / "altimate.json").write_text('{"altimateApiKey": "t"}', encoding="utf-8")
    assert credential_store.find_in_config_file(os.environ) == ("", DEFAULT_URL)


def test_invalid_config_file_is_not_overwritten(home: Path) -> None:
    file = home / ".altimate" / "altimate.json"
    file.parent.mkdir()
    file.write_text("{broken", encoding="utf-8")
    with pytest.raises(UsageError, match="not JSON"):
        credential_store.save_to_config_file(credentials(), os.environ)
    assert file.read_text(encoding="utf-8") == "{broken"


def test_unwritable_home_is_reported(home: Path) -> None:
    (home / ".altimate").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(UsageError, match="the config file"):
        credential_store.save_to_config_file(credentials(), os.environ)


def test_missing_home_directory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "home_directory", lambda _: None)
    with pytest.raises(UsageError, match="no home directory"):
        credential_store.save_to_config_file(credentials(), os.environ)


REAL_KEYRING_SCRIPT = """
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
def test_real_keyring_stores_and_removes_credentials(instance: RunningInstance, home: Path) -> None:
    require("gnome-keyring")
    environ = {
        name: value for name, value in os.environ.items() if name != "PYTHON_KEYRING_BACKEND"
    }
    environ |= {"ALTIMATE_URL": instance.url, "ALTIMATE_INSTANCE_NAME": instance.instance_name}
    done = subprocess.run(
        ["dbus-run-session", "--", sys.executable, "-c", REAL_KEYRING_SCRIPT, instance.token],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    login, status, logout, nothing = done.stdout.splitlines()[-4:]
    assert login == (
        f"login 0 Logged in to {instance.url} with instance name 'acme'. "
        "The credentials are in the system keyring."
    ), done.stdout
    assert json.loads(status.partition("status 0 ")[2])["token_origin"] == "the system keyring"
    assert logout.startswith("logout 0 Logged out: removed from the system keyring")
    assert nothing.startswith("status 2 Error: no token")
    assert instance.token not in done.stdout
    assert not any(
        instance.token.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file()
    )
