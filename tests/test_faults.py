"""The fault table: real commands that use a real instance through the fault proxy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapilot_defer.artifact import Kind, parse_artifact
from datapilot_defer.client import retries, transport
from datapilot_defer.client.integration_calls import create_integration
from datapilot_defer.client.responses import UploadTarget
from datapilot_defer.console import NoProgress
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.settings import InstanceSettings
from tests.support import fault_actions as act
from tests.support.fault_proxy import At, FaultProxy, fault_proxy
from tests.support.fault_runner import (
    HANGS_AFTER_S,
    CommandResult,
    World,
    environ_of,
    instance_at,
    make_world,
    our_command,
    proxy_of,
    run,
)
from tests.support.fault_table import GROUPS, PUT, Row
from tests.support.instances import running_instance

# The fault proxy terminates TLS and sets X-Forwarded-Proto.
BEHIND_PROXY = InstanceSettings(behind_proxy=True)

ROWS = [
    pytest.param(row, id=f"{group}: {row.name}") for group, rows in GROUPS.items() for row in rows
]


@pytest.fixture(scope="module")
def world(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Yield an instance for all rows of the table; each row has its own integration."""
    directory = tmp_path_factory.mktemp("faults")
    with running_instance(directory / "instance", settings=BEHIND_PROXY) as instance:
        yield make_world(instance, artifacts / "manifest.json", directory / "world")


@pytest.mark.parametrize("row", ROWS)
def test_command_ends_as_expected(world: World, row: Row, tmp_path: Path) -> None:
    integration = world.integration(row.name)
    with proxy_of(world, row) as proxy:
        environ = environ_of(world, row, proxy, tmp_path / "home")
        result = run(
            our_command(world, row, integration),
            environ,
            kill_after_s=row.timeout_s + HANGS_AFTER_S,
        )
    print(result.output)
    assert result.exit_code == row.exit_code
    assert re.search(row.message, result.output, re.DOTALL), row.message
    assert {
        call: proxy.count(call) for call in row.calls if proxy.count(call) not in row.calls[call]
    } == {}
    assert world.current_manifest(integration) == row.manifest_after
    _check_json(result, row)
    _check_secrets(world, result)
    _check_recipients_of_token(world, proxy)
    if not row.succeeds:
        # The next onboarding succeeds after each fault.
        world.put(integration, world.new)
        assert world.current_manifest(integration) == "new"


def _check_json(result: CommandResult, row: Row) -> None:
    if row.exit_code:
        assert result.json["exit_code"] == row.exit_code
        assert result.json["ok"] is False
    else:
        assert result.json.get("ok", True) is True


def _check_secrets(world: World, result: CommandResult) -> None:
    assert "Traceback" not in result.output
    for secret in (world.instance.token, "signature=", "pass-in-url", "\x1b"):
        assert secret not in result.output


def _check_recipients_of_token(world: World, proxy: FaultProxy) -> None:
    for head in proxy.heads:
        to_api = "/dbt/v" in head.split("\r\n")[0] and "localhost" not in head
        assert (f"Bearer {world.instance.token}" in head) is to_api, head.split("\r\n")[0]
        assert "Basic" not in head


def test_each_wait_is_reported_on_one_line(world: World, tmp_path: Path) -> None:
    result = _run_with_two_faults(world, tmp_path, "-v")
    waits = [line for line in result.stderr.splitlines() if ". Next attempt" in line]
    assert len(waits) == 2
    for line in waits:
        assert re.fullmatch(
            r"uploading the manifest: http://127.0.0.1:\d+ returned a server error \(HTTP 503\)\. "
            r"Next attempt in \d+\.\d s",
            line,
        )


def test_quiet_hides_waits(world: World, tmp_path: Path) -> None:
    assert "Next attempt" not in _run_with_two_faults(world, tmp_path, "-q").output


def _run_with_two_faults(world: World, tmp_path: Path, option: str) -> CommandResult:
    integration = world.integration(f"two faults {option}")
    row = Row("two", At(PUT, act.answer(503), 2), 0, "")
    with proxy_of(world, row) as proxy:
        command = [word for word in our_command(world, row, integration) if word != "-v"]
        result = run(
            [*command, option], environ_of(world, row, proxy, tmp_path / "home"), kill_after_s=60
        )
    assert result.exit_code == 0
    return result


def test_upload_that_stalls_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "SEND_TIMEOUT_S", 0.3)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    # This is more than the kernel buffers.
    content = b" " * 20_000_000
    artifact = parse_artifact(content, path="manifest.json", kind=Kind.MANIFEST)
    with (
        fault_proxy("http://127.0.0.1:1", At("PUT", act.stall_request(1000))) as proxy,
        pytest.raises(Unavailable) as raised,
    ):
        instance_at(proxy.url).upload(
            UploadTarget(f"{proxy.url}/files/1", 1), artifact, NoProgress()
        )
    tries = proxy.count("PUT")
    assert tries > 1
    assert f"(tried {tries} times in " in str(raised.value)


def test_silent_instance_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "READ_TIMEOUT_S", 0.1)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    answers = act.answer(200, b'{"ok": true}')
    with fault_proxy("http://127.0.0.1:1", At("GET", act.stall, 2), At("GET", answers)) as proxy:
        instance_at(proxy.url).check_credentials()
    assert proxy.count("GET") == 3


def test_call_that_may_have_succeeded_is_not_repeated(world: World) -> None:
    with fault_proxy(world.instance.url, At("POST", act.cut_answer(0), 1)) as proxy:
        name, token = world.instance.instance_name, world.instance.token
        with pytest.raises(Unavailable, match="closed the connection unexpectedly"):
            create_integration(instance_at(proxy.url, name, token), "created once", "PROD")
        assert proxy.count("POST") == 1
        assert [
            each.name for each in instance_at(proxy.url, name, token).list_integrations()
        ].count("created once") == 1
