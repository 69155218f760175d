"""Connections to an instance, whose settings are resolved when they are needed."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from datapilot_defer.client.connection import Connection, ConnectionOptions, InstanceAddress
from datapilot_defer.deadline import DEFAULT_TIMEOUT_S
from datapilot_defer.errors import UsageError
from tests.support.console import RecordingConsole

URL = "https://a.example.com"
ADDRESS = {"ALTIMATE_URL": f"{URL}/", "ALTIMATE_INSTANCE_NAME": "acme"}
TOKEN = "s3cret-token"


def connection(
    environ: dict[str, str],
    console: RecordingConsole | None = None,
    options: ConnectionOptions | None = None,
) -> Connection:
    return Connection(
        options or ConnectionOptions(),
        environ={"HOME": os.environ["HOME"], **environ},
        console=console or RecordingConsole(),
    )


def timeout_s(connection: Connection, max_timeout_s: float = math.inf) -> float:
    return connection.open(max_timeout_s)._transport._deadline.seconds


def test_address_needs_no_token(home: Path) -> None:
    console = RecordingConsole()
    opened = connection(ADDRESS, console)
    assert opened.address == InstanceAddress(URL, "acme")
    assert console.messages == []
    with pytest.raises(UsageError, match="no token"):
        _ = opened.credentials


def test_credentials_are_resolved_when_needed(home: Path) -> None:
    console = RecordingConsole()
    opened = connection({}, console, ConnectionOptions(token=TOKEN))
    assert not console.messages
    assert not console.secrets
    with pytest.raises(UsageError, match="no instance name"):
        _ = opened.address
    assert console.secrets == [TOKEN]
    assert "--token is visible" in console.messages[0][1]


def test_each_missing_value_is_prompted_once(home: Path) -> None:
    console = RecordingConsole({"instance name": "acme", "token": TOKEN})
    opened = connection({"ALTIMATE_URL": URL}, console)
    assert opened.address == InstanceAddress(URL, "acme")
    assert opened.credentials.token.value == TOKEN
    opened.open()
    opened.open()
    assert console.prompts == ["instance name", "token"]
    assert console.secrets == [TOKEN]


def test_shorter_timeout_applies(home: Path) -> None:
    environ = {**ADDRESS, "ALTIMATE_API_KEY": TOKEN}
    assert timeout_s(connection(environ)) == DEFAULT_TIMEOUT_S
    assert timeout_s(connection(environ), 10) == 10
    for variable, expected in [("7", 7), ("20", 10)]:
        opened = connection({**environ, "DATAPILOT_TIMEOUT": variable})
        assert timeout_s(opened) == float(variable)
        assert timeout_s(opened, 10) == expected
    for option, limit in [(5.0, 5.0), (20.0, 10.0)]:
        opened = connection(environ, options=ConnectionOptions(timeout_s=option))
        assert timeout_s(opened, 10) == limit


@pytest.mark.parametrize("value", ["soon", "0", "86401", "nan"])
def test_invalid_timeout_is_rejected(home: Path, value: str) -> None:
    environ = {**ADDRESS, "ALTIMATE_API_KEY": TOKEN, "DATAPILOT_TIMEOUT": value}
    with pytest.raises(UsageError, match=r"DATAPILOT_TIMEOUT is .* 1 to 86400"):
        connection(environ).open()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_readable_token_causes_warning(home: Path) -> None:
    file = home / ".altimate" / "altimate.json"
    file.parent.mkdir()
    file.write_text(f'{{"altimateApiKey": "{TOKEN}"}}', encoding="utf-8")
    file.chmod(0o644)
    for environ, count in [({}, 1), ({"ALTIMATE_API_KEY": TOKEN}, 0)]:
        console = RecordingConsole()
        _ = connection({"ALTIMATE_INSTANCE_NAME": "acme", **environ}, console).credentials
        warnings = [text for level, text in console.messages if level == "warn"]
        assert len(warnings) == count
        assert all(f"chmod 600 {file}" in text for text in warnings)


def test_repr_of_options_hides_token() -> None:
    assert TOKEN not in repr(ConnectionOptions(token=TOKEN))
