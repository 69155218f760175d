"""The first admin token is printed or stored in a file. Otherwise, it is not created."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from datapilot_defer.instance.services import instances, tokens
from datapilot_defer.instance.services.token_format import generate_token
from datapilot_defer.storage import audit, open_storage
from datapilot_defer.storage.audit import Actor
from datapilot_defer.storage.instances import find_instance
from tests.support.commands import Outcome, datapilot
from tests.support.instance_calls import call
from tests.support.other_user import needs_root
from tests.support.served_command import REPOSITORY, Serving, serving

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


def list_tokens(data: Path) -> list[tuple[str, str]]:
    """Return name and state of each token, the newest first."""
    listed = datapilot("instance", "token", "list", "--data", data, "--json")
    assert listed.exit_code == 0, listed.output
    return [(token["name"], token["state"]) for token in listed.json["tokens"]]


def init(data: Path, *options: object, name: str = "main") -> Outcome:
    return datapilot("instance", "init", "--data", data, "--instance-name", name, *options)


def is_admin(running: Serving, data: Path, token: str) -> bool:
    answer = call(running.instance(data, token), "GET", "dbt/v1/project_integrations")
    return answer.status_code == 200


def test_a_busy_port_does_not_lose_the_token(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        rejected = datapilot("instance", "serve", "--data", tmp_path, "--port", port)
    assert rejected.exit_code == 2
    assert list_tokens(tmp_path) == []
    with serving(tmp_path, "--json") as running:
        assert is_admin(running, tmp_path, running.result["token"])


def test_an_invalid_certificate_does_not_lose_the_token(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    options = ("--tls-certificate", certificate, "--tls-key", certificate, "--port", 0)
    rejected = datapilot("instance", "serve", "--data", tmp_path / "data", *options)
    assert rejected.exit_code == 2
    assert list_tokens(tmp_path / "data") == []


@linux_only
@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("init", "--instance-name", "main")])
def test_an_output_that_cannot_be_written_does_not_lose_the_token(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        result = subprocess.run(
            [sys.executable, "-m", "datapilot_defer", "instance", *command, "--data", tmp_path],
            cwd=REPOSITORY,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    assert result.returncode == 2
    assert "cannot write the result to standard output: No space left" in result.stderr
    assert "Traceback" not in result.stderr
    assert list_tokens(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGPIPE or EPIPE")
def test_a_closed_output_does_not_lose_the_token(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [
                *(sys.executable, "-m", "datapilot_defer", "instance", "serve", "--port", "0"),
                *("--data", tmp_path),
            ],
            cwd=REPOSITORY,
            stdout=writer,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert result.returncode == 1
    assert result.stderr == ""
    assert list_tokens(tmp_path) == []


def test_a_new_token_is_written_to_the_file_and_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "data" / "admin token"
    with serving(tmp_path / "data", "--admin-token-file", file) as running:
        token = file.read_text(encoding="ascii").strip()
        _, stdout, stderr = running.stop()
    assert token.startswith("dpd_")
    assert token not in running.first_line + stdout + stderr
    assert f"Created instance main. Its admin token is stored in {file}." in stdout
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        command = stdout.partition("export ALTIMATE_API_KEY=")[2].splitlines()[0]
        echoed = subprocess.run(["sh", "-c", f"echo {command}"], capture_output=True, check=True)
        assert echoed.stdout.decode().strip() == token
    with serving(tmp_path / "data", "--admin-token-file", file, "--json") as again:
        assert again.result.keys() == {"url"}
        assert is_admin(again, tmp_path / "data", token)
        assert again.stop()[2].count("Warning") == 0
    assert file.read_text(encoding="ascii").strip() == token
    assert list_tokens(tmp_path / "data") == [("first", "valid")]


@pytest.mark.parametrize("content", ["", "\n"])
def test_init_writes_the_token_to_an_empty_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content, encoding="ascii")
    created = init(tmp_path / "data", "--admin-token-file", file, "--json")
    assert created.json == {"ok": True, "instance_name": "main", "admin_token_file": str(file)}
    token = file.read_text(encoding="ascii").strip()
    assert token.startswith("dpd_")
    assert token not in created.output
    again = init(tmp_path / "data", "--admin-token-file", file)
    assert again.exit_code == 2
    assert "already contains the instance main" in again.stderr
    assert file.read_text(encoding="ascii").strip() == token


def test_a_token_in_the_file_becomes_the_first_admin_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = generate_token()
    file.write_text(f"{token}\r\n", encoding="ascii")
    file.chmod(0o440)
    data = tmp_path / "data"
    for _ in range(2):
        with serving(data, "--admin-token-file", file, "--json") as running:
            assert is_admin(running, data, token)
            assert token not in running.first_line + "".join(running.stop()[1:])
    assert list_tokens(data) == [("first", "valid")]


def test_a_new_token_in_the_file_becomes_another_admin_token(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = tmp_path / "token"
    init(data)
    token = generate_token()
    file.write_text(token, encoding="ascii")
    for _ in range(2):
        with serving(data, "--admin-token-file", file, "--json") as running:
            assert is_admin(running, data, token)
    assert list_tokens(data) == [("admin token file", "valid"), ("first", "valid")]
    with open_storage(data) as storage, storage.database.read() as connection:
        owner = find_instance(connection, "main")
        assert owner is not None
        events = audit.list_events(connection, owner.id, limit=10)
    assert [(event.action, event.detail) for event in events] == [
        ("token.create", "admin token file (admin)"),
        ("token.create", "first (admin)"),
    ]
    assert {event.actor.partition("(")[0] for event in events} == {"command line "}


def test_a_revoked_token_in_the_file_is_reported_and_stays_revoked(tmp_path: Path) -> None:
    file = tmp_path / "token"
    data = tmp_path / "data"
    init(data, "--admin-token-file", file)
    assert datapilot("instance", "token", "revoke", "--data", data, 1).exit_code == 0
    with serving(data, "--admin-token-file", file, "--json") as running:
        assert not is_admin(running, data, file.read_text(encoding="ascii").strip())
        stderr = running.stop()[2]
    assert f"the token in {file} is not a valid admin token" in stderr
    assert list_tokens(data) == [("first", "revoked")]


@pytest.mark.parametrize("content", [b"secret-password", b"dpd_" + b"0" * 46, b"\xff\x00" * 3000])
@pytest.mark.parametrize("command", [("serve", "--port", 0), ("init", "--instance-name", "main")])
def test_a_file_with_other_content_is_rejected_and_not_changed(
    tmp_path: Path, content: bytes, command: tuple[object, ...]
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    rejected = datapilot(
        "instance", *command, "--data", tmp_path / "data", "--admin-token-file", file
    )
    assert rejected.exit_code == 2
    assert f"{file} does not contain a valid token" in rejected.stderr
    assert "secret" not in rejected.output
    assert file.read_bytes() == content
    assert not (tmp_path / "data").exists()


def test_a_file_that_cannot_be_written_does_not_lose_the_token(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = tmp_path / "missing" / "token"
    for command in (("serve", "--port", 0), ("init", "--instance-name", "main")):
        rejected = datapilot("instance", *command, "--data", data, "--admin-token-file", file)
        assert rejected.exit_code == 2
        assert f"cannot write the admin token file {file}: No such file" in rejected.stderr
        assert "dpd_" not in rejected.output
    assert list_tokens(data) == []
    rejected = init(data, "--admin-token-file", tmp_path)
    assert rejected.exit_code == 2
    assert f"cannot read the admin token file {tmp_path}" in rejected.stderr


@needs_root
def test_a_device_is_not_replaced_by_the_file(tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, stat.S_IFCHR | 0o666, Path(os.devnull).stat().st_rdev)
    rejected = init(tmp_path / "data", "--admin-token-file", device)
    assert rejected.exit_code == 2
    assert "not a regular file" in rejected.stderr
    assert stat.S_ISCHR(device.stat().st_mode)


def test_a_file_for_one_of_several_instances_needs_the_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = tmp_path / "token"
    file.write_text(generate_token(), encoding="ascii")
    init(data, name="one")
    init(data, name="two")
    options = ("--data", data, "--port", 0, "--admin-token-file", file)
    rejected = datapilot("instance", "serve", *options)
    assert rejected.exit_code == 2
    assert "--instance-name" in rejected.stderr
    with serving(data, "--instance-name", "two", "--admin-token-file", file) as running:
        assert running.first_line.startswith("Serving at ")
        assert running.stop()[1] == "Instances: one, two\n"
    assert ("admin token file", "valid") in list_tokens(data)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_kill_between_writing_file_and_record_leaves_a_valid_token_in_the_file(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    file = tmp_path / "token"
    script = """
import os, signal, sys
from pathlib import Path
from datapilot_defer.cli.instance.admin_token import load_first_token
from datapilot_defer.instance.services.instances import creating_instance
from datapilot_defer.storage import open_storage
from datapilot_defer.storage.audit import Actor

first_token = load_first_token(Path(sys.argv[2]))
with open_storage(Path(sys.argv[1])) as storage:
    with creating_instance(storage, "main", token=first_token.token, actor=Actor("test")):
        first_token.save()
        os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script, data, file], cwd=REPOSITORY, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    assert list_tokens(data) == []
    token = file.read_text(encoding="ascii").strip()
    with serving(data, "--admin-token-file", file, "--json") as running:
        assert is_admin(running, data, token)
    assert list_tokens(data) == [("first", "valid")]


def test_a_start_without_a_valid_admin_token_prints_the_command_that_creates_one(
    tmp_path: Path,
) -> None:
    data = tmp_path / "the data"
    init(data, name="one")
    init(data, name="two")
    for token_id in (1, 2):
        datapilot("instance", "token", "revoke", "--data", data, token_id)
    with open_storage(data) as storage:
        scopes = frozenset({"read", "upload"})
        tokens.create_token(storage, "two", name="x", scopes=scopes, actor=Actor("test"))
        assert instances.list_names_without_admin(storage) == ["one", "two"]
    with serving(data) as running:
        stderr = running.stop()[2].splitlines()
        warnings = [line for line in stderr if line.startswith("Warning: ")]
    assert len(warnings) == 2
    for warning, name in zip(warnings, ("one", "two"), strict=True):
        assert warning.startswith(f"Warning: instance {name} has no valid admin token.")
        command = warning.partition("`datapilot ")[2].partition("`")[0]
        words = shlex.split(command.replace("NAME", "me"))
        assert datapilot(*words).exit_code == 0
    with serving(data) as running:
        assert "Warning" not in running.stop()[2]


def test_an_invalid_name_is_rejected_before_the_port_is_bound(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        options = ("--port", busy.getsockname()[1], "--instance-name", "a b")
        rejected = datapilot("instance", "serve", "--data", tmp_path, *options)
    assert rejected.exit_code == 2
    assert "'a b' is not a valid instance name" in rejected.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_log_states_which_signal_stopped_the_server(
    tmp_path: Path, number: signal.Signals
) -> None:
    with serving(tmp_path / "data") as running:
        lines = running.stop(number)[2].splitlines()
    assert lines[-2:] == [f"stopping: received {number.name}", "stopped"]
    with serving(tmp_path / "data", "--quiet") as running:
        assert "stop" not in running.stop(number)[2]
