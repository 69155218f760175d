"""Every row of the fault table, by a whole process through a real proxy to a real instance."""

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
    Ended,
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

# The fault proxy ends TLS and states that in X-Forwarded-Proto.
BEHIND_PROXY = InstanceSettings(behind_proxy=True)

ROWS = [
    pytest.param(row, id=f"{group}: {row.name}") for group, rows in GROUPS.items() for row in rows
]


@pytest.fixture(scope="module")
def world(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Yield an instance that the whole table shares; each row has an integration of its own."""
    folder = tmp_path_factory.mktemp("faults")
    with running_instance(folder / "instance", settings=BEHIND_PROXY) as instance:
        yield make_world(instance, artifacts / "manifest.json", folder / "world")


@pytest.mark.parametrize("row", ROWS)
def test_the_command_ends_as_the_table_says(world: World, row: Row, tmp_path: Path) -> None:
    integration = world.integration(row.name)
    with proxy_of(world, row) as proxy:
        environ = environ_of(world, row, proxy, tmp_path / "home")
        ended = run(
            our_command(world, row, integration),
            environ,
            kill_after_s=row.timeout_s + HANGS_AFTER_S,
        )
    print(ended.output)
    assert ended.exit_code == row.exit_code
    assert re.search(row.says, ended.output, re.DOTALL), f"it does not say {row.says!r}"
    assert {
        call: proxy.count(call) for call in row.calls if proxy.count(call) not in row.calls[call]
    } == {}
    assert world.holds(integration) == row.holds
    _the_json_says_the_same(ended, row)
    _no_secret_appears(world, ended)
    _the_token_goes_to_the_api_only(world, proxy)
    if not row.ends_well:
        world.put(integration, world.new)  # whatever happened, the next onboarding works
        assert world.holds(integration) == "new"


def _the_json_says_the_same(ended: Ended, row: Row) -> None:
    if row.exit_code:
        assert ended.json["exit_code"] == row.exit_code
        assert ended.json["ok"] is False
    else:
        assert ended.json.get("ok", True) is True


def _no_secret_appears(world: World, ended: Ended) -> None:
    assert "Traceback" not in ended.output
    for secret in (world.instance.token, "signature=", "pass-in-url", "\x1b"):
        assert secret not in ended.output


def _the_token_goes_to_the_api_only(world: World, proxy: FaultProxy) -> None:
    for head in proxy.heads:
        to_api = "/dbt/v" in head.split("\r\n")[0] and "localhost" not in head
        assert (f"Bearer {world.instance.token}" in head) is to_api, head.split("\r\n")[0]
        assert "Basic" not in head


def test_each_wait_is_one_line_that_says_why_and_how_long(world: World, tmp_path: Path) -> None:
    said = _said_of_two_faults(world, tmp_path, "-v")
    waits = [line for line in said.stderr.splitlines() if ". Next attempt" in line]
    assert len(waits) == 2
    for line in waits:
        assert re.fullmatch(
            r"uploading the manifest: http://127.0.0.1:\d+ returned a server error \(HTTP 503\); "
            r"next try in \d+\.\d s",
            line,
        )


def test_quiet_says_nothing_of_waits(world: World, tmp_path: Path) -> None:
    assert "Next attempt" not in _said_of_two_faults(world, tmp_path, "-q").output


def _said_of_two_faults(world: World, tmp_path: Path, option: str) -> Ended:
    integration = world.integration(f"two faults {option}")
    row = Row("two", At(PUT, act.answer(503), 2), 0, "")
    with proxy_of(world, row) as proxy:
        command = [word for word in our_command(world, row, integration) if word != "-v"]
        ended = run(
            [*command, option], environ_of(world, row, proxy, tmp_path / "home"), kill_after_s=60
        )
    assert ended.exit_code == 0
    return ended


def test_a_storage_that_takes_no_more_is_given_up_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "SEND_TIMEOUT_S", 0.3)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    artifact = parse_artifact(
        b" " * 20_000_000, path="manifest.json", kind=Kind.MANIFEST
    )  # more than a kernel buffers
    with (
        fault_proxy("http://127.0.0.1:1", At("PUT", act.stall_request(1000))) as proxy,
        pytest.raises(Unavailable) as e,
    ):
        instance_at(proxy.url).upload(
            UploadTarget(f"{proxy.url}/files/1", 1), artifact, NoProgress()
        )
    tries = proxy.count("PUT")
    assert tries > 1
    assert f"(tried {tries} times in " in str(e.value)


def test_an_instance_that_is_silent_is_given_up_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "READ_TIMEOUT_S", 0.1)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    answers = act.answer(200, b'{"ok": true}')
    with fault_proxy("http://127.0.0.1:1", At("GET", act.stall, 2), At("GET", answers)) as proxy:
        instance_at(proxy.url).check_credentials()
    assert proxy.count("GET") == 3


def test_what_may_have_been_done_is_not_done_twice(world: World) -> None:
    with fault_proxy(world.instance.url, At("POST", act.cut_answer(0), 1)) as proxy:
        name, token = world.instance.instance_name, world.instance.token
        with pytest.raises(Unavailable, match="closed the connection unexpectedly"):
            create_integration(instance_at(proxy.url, name, token), "made once", "PROD")
        assert proxy.count("POST") == 1
        assert [
            each.name for each in instance_at(proxy.url, name, token).list_integrations()
        ].count("made once") == 1
