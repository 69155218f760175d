"""What every test gets without asking: an empty home folder, no settings from outside, no network but loopback,
and a keyring of its own. And what it can ask for: dbt's real artifacts."""

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

from tests.support.dbt_project import Shop, copy_shop, production
from tests.support.environments import REPOSITORY, run

_SETTINGS = (
    *("ALTIMATE_", "DATAPILOT_", "DBT_", "SHOP_", "AIRFLOW_", "PYTHON_KEYRING_"),
    *(
        "CI_",
        "GITHUB_",
        "RUNNER_",
        "GITLAB_",
        "JENKINS_",
        "BUILDKITE",
        "CIRCLE",
        "BITBUCKET_",
        "TEAMCITY_",
        "TRAVIS",
    ),
    *("BUILD_", "SYSTEM_", "AGENT_", "XDG_"),
)
_SETTING_NAMES = {
    *("CI", "TF_BUILD", "NETRC", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
}


class MemoryKeyring(KeyringBackend):
    """A keyring that forgets everything with its test: the only fake in these tests."""

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
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take away every environment variable that could change what the program does, before the first fixture."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if _is_setting(name):
                patch.delenv(name)
        _use_home(patch, tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _not_deaf_to_ctrl_c() -> None:
    """A job in the background is started with SIGINT ignored, and would pass that on to the programs under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, for this test alone."""
    folder = tmp_path_factory.mktemp("home")
    _use_home(monkeypatch, folder)
    return folder


@pytest.fixture(autouse=True)
def memory_keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryKeyring]:
    """An empty keyring for this process; child processes get none."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    before, mine = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(mine)
    yield mine
    keyring.set_keyring(before)


@pytest.fixture(scope="session", autouse=True)
def _loopback_only() -> Iterator[None]:
    """Fail whatever connects to another machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: object) -> None:
        _refuse_other_machines(self, address)
        connect(self, address)  # type: ignore[arg-type]

    def guarded_connect_ex(self: socket.socket, address: object) -> int:
        _refuse_other_machines(self, address)
        return connect_ex(self, address)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        yield


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """The folder of production's artifacts of the shop, as dbt 1.11 wrote them: to read, never to change."""
    return production() / "artifacts"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what is committed or about to be: nothing that an earlier build left."""
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
    """A copy of the shop, its production and its database, for this test alone (in `tmp_path`)."""
    return copy_shop(tmp_path)


def _is_setting(name: str) -> bool:
    upper = name.upper()
    return not upper.startswith("DATAPILOT_TEST_") and (
        upper.startswith(_SETTINGS) or upper in _SETTING_NAMES
    )


def _use_home(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("HOME", "USERPROFILE"):
        patch.setenv(name, str(folder))
    for name, part in {"APPDATA": "Roaming", "LOCALAPPDATA": "Local"}.items():
        patch.setenv(name, str(folder / "AppData" / part))
    for kind in ("CONFIG", "CACHE", "DATA", "STATE"):
        patch.setenv(f"XDG_{kind}_HOME", str(folder / f".{kind.lower()}"))


def _refuse_other_machines(connecting: socket.socket, address: object) -> None:
    if connecting.family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
        return
    host = str(address[0])
    if host == "localhost" or _is_loopback(host):
        return
    connecting.close()
    pytest.fail(f"a test tried to connect to {host}; tests stay on loopback")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
