"""Isolation of every test, and the fixtures `artifacts`, `shop` and `wheel`.

Every test has an empty home directory and an empty keyring. It gets no settings of the machine and
can connect to loopback addresses only.
"""

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

from tests.support.dbt_project import Shop, copy_recorded_artifacts, copy_shop
from tests.support.environments import REPOSITORY, run

pytest_plugins = ["tests.support.fixtures", "tests.support.markers"]

_SETTINGS = (
    *("ALTIMATE_", "DATAPILOT_", "DBT_", "SHOP_", "AIRFLOW_", "PYTHON_KEYRING_"),
    *("CI_", "GITHUB_", "RUNNER_", "GITLAB_", "JENKINS_", "BUILDKITE", "CIRCLE", "BITBUCKET_"),
    *("TEAMCITY_", "TRAVIS", "BUILD_", "SYSTEM_", "AGENT_", "XDG_"),
)
_SETTING_NAMES = {
    *("CI", "TF_BUILD", "NETRC", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
}


class MemoryKeyring(KeyringBackend):
    """A keyring in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.passwords: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.passwords.pop((service, username), None) is None:
            raise PasswordDeleteError(f"no password for {username} of {service}")


@pytest.fixture(scope="session", autouse=True)
def _unset_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Unset every environment variable that could change the behavior of the program."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if _is_setting(name):
                patch.delenv(name)
        _use_home(patch, tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _handle_sigint() -> None:
    """Handle SIGINT, because child processes inherit that a background job ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty home directory of this test."""
    directory = tmp_path_factory.mktemp("home")
    _use_home(monkeypatch, directory)
    return directory


@pytest.fixture(autouse=True)
def memory_keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryKeyring]:
    """Yield an empty keyring for this process. Child processes have no keyring."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    before = keyring.get_keyring()
    memory_keyring = MemoryKeyring()
    keyring.set_keyring(memory_keyring)
    yield memory_keyring
    keyring.set_keyring(before)


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Fail a test that connects to another machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: object) -> None:
        _check_loopback(self, address)
        connect(self, address)  # type: ignore[arg-type]

    def guarded_connect_ex(self: socket.socket, address: object) -> int:
        _check_loopback(self, address)
        return connect_ex(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        yield


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a read-only directory with the five artifacts that dbt 1.11 wrote for the shop."""
    return copy_recorded_artifacts(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the checkout without ignored files, and return its path."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]).split("\0")
    for name in filter(None, files):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", built, source]
    )
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Return a copy of the shop with its production artifacts and database in `tmp_path`."""
    return copy_shop(tmp_path)


def _is_setting(name: str) -> bool:
    upper = name.upper()
    return not upper.startswith("DATAPILOT_TEST_") and (
        upper.startswith(_SETTINGS) or upper in _SETTING_NAMES
    )


def _use_home(patch: pytest.MonkeyPatch, directory: Path) -> None:
    for name in ("HOME", "USERPROFILE"):
        patch.setenv(name, str(directory))
    for name, part in {"APPDATA": "Roaming", "LOCALAPPDATA": "Local"}.items():
        patch.setenv(name, str(directory / "AppData" / part))
    for kind in ("CONFIG", "CACHE", "DATA", "STATE"):
        patch.setenv(f"XDG_{kind}_HOME", str(directory / f".{kind.lower()}"))


def _check_loopback(connecting: socket.socket, address: object) -> None:
    if connecting.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return
    host = str(address[0])
    if host == "localhost" or _is_loopback(host):
        return
    connecting.close()
    pytest.fail(f"a test tried to connect to {host}; tests may use loopback addresses only")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
