"""Secrets, which must not appear in output, logs, argument lists or temporary files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from datapilot_defer.client.messages import Request
from datapilot_defer.client.responses import ArtifactLocation, UploadTarget
from tests.support import fault_actions as act
from tests.support.commands import LEAVES, datapilot
from tests.support.dbt_project import Shop
from tests.support.fault_proxy import At, fault_proxy
from tests.support.fault_runner import make_world
from tests.support.fault_table import PUT
from tests.support.instances import RunningInstance
from tests.support.protocol_server import TOKEN, ProtocolServer, RecordedRequest, Reply

SIGNATURE = "c4n4ry-s1gnature"
PASSWORD = "c4n4ry-passw0rd"
SECRETS = (TOKEN, SIGNATURE, PASSWORD)

INTEGRATION = ["--integration-id", "7"]
COMMANDS: Mapping[str, list[str]] = {
    "auth.login": ["--store", "file"],
    "auth.status": [],
    "dbt.defer.enable": [*INTEGRATION, "--environment", "PROD"],
    "dbt.defer.status": [],
    "dbt.defer.env": INTEGRATION,
    "dbt.defer.run": [*INTEGRATION, "build"],
    "dbt.defer.explain": INTEGRATION,
    "dbt.integrations.list": [],
    "dbt.integrations.create": ["--name", "x"],
    "dbt.integrations.show": INTEGRATION,
    "dbt.integrations.history": INTEGRATION,
    "dbt.integrations.restore": [*INTEGRATION, "--file-id", "1"],
    "dbt.integrations.accept": ["1"],
    "dbt.integrations.checks": [*INTEGRATION, "--disable", "relations"],
    "dbt.integrations.delete": [*INTEGRATION, "--yes"],
    "dbt.integrations.rename": [*INTEGRATION, "--to", "x"],
    "dbt.integrations.undelete": INTEGRATION,
    "dbt.onboard": [*INTEGRATION, "--manifest-path", "target/manifest.json"],
    "dbt.pull": [*INTEGRATION, "--output", "state"],
    "doctor": INTEGRATION,
}


def repeat_secrets(
    status: int, body: Callable[[str], object] = lambda text: {"detail": text}
) -> Callable[[RecordedRequest], Reply]:
    """Return a function whose response repeats every secret."""

    def reply(request: RecordedRequest) -> Reply:
        text = f"bad {request.headers.get('Authorization')} at https://s.example.com/f?signature={SIGNATURE}"
        return Reply(body(f"{text} https://u:{PASSWORD}@s.example.com"), status)

    return reply


def redirect(request: RecordedRequest) -> Reply:
    token = str(request.headers.get("Authorization")).rpartition(" ")[2]
    return Reply(
        {},
        307,
        {"Location": f"https://u:{PASSWORD}@evil.example.com/?token={token}&signature={SIGNATURE}"},
    )


def send_url_of_closed_port(_: RecordedRequest) -> Reply:
    url = f"http://u:{PASSWORD}@127.0.0.1:9/f?X-Amz-Signature={SIGNATURE}"
    return Reply({"url": url, "dbt_core_integration_file_id": 1, "ok": True, "sha256": "0" * 64})


FAILURES: Mapping[str, Callable[[RecordedRequest], Reply]] = {
    "a 401 response that repeats the token": repeat_secrets(401),
    "a 403 response that repeats the token": repeat_secrets(403),
    "a list of errors that repeats the token": repeat_secrets(
        422, lambda text: {"detail": [{"loc": ["header"], "msg": text}]}
    ),
    "a server error that repeats the token": repeat_secrets(500),
    "a response of another type that repeats the token": repeat_secrets(200, lambda text: [text]),
    "a negative response that repeats the token": repeat_secrets(
        200, lambda text: {"ok": False, "message": text}
    ),
    "a redirect with secrets": redirect,
    "a signed URL of a closed port with secrets": send_url_of_closed_port,
}


class SameAnswer(dict[str, Callable[[RecordedRequest], Reply]]):
    """The same response for every route."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: str) -> Callable[[RecordedRequest], Reply]:
        return self.answer

    answer: Callable[[RecordedRequest], Reply]


@pytest.fixture
def project(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_retry_delay: None
) -> Path:
    """Return a dbt project with artifacts, the current directory."""
    (tmp_path / "dbt_project.yml").write_text(
        "name: shop\nversion: '1'\nprofile: shop\n", encoding="utf-8"
    )
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "manifest.json").write_bytes((artifacts / "manifest.json").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_with_token_option_is_tested() -> None:
    assert set(COMMANDS) == {
        name
        for name, command in LEAVES.items()
        if any("--token" in option.opts for option in command.params)
    }


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_do_not_repeat_secrets(
    command: str, failure: str, hosted: ProtocolServer, project: Path
) -> None:
    hosted.answers = SameAnswer()
    hosted.answers.answer = FAILURES[failure]
    words = [*command.split("."), *COMMANDS[command], "-v", "--timeout", "5"]
    for more in (
        [],
        ["--json"],
        ["--log-format", "json"],
        ["--token", TOKEN, "--backend-url", hosted.url],
    ):
        done = datapilot(
            *words, *more, env={**hosted.access, "HTTPS_PROXY": f"http://u:{PASSWORD}@127.0.0.1:9"}
        )
        for secret in SECRETS:
            assert secret not in done.output, done.output
    for path in project.rglob("*"):
        assert not (path.is_file() and TOKEN.encode() in path.read_bytes()), path


def test_invalid_url_with_secrets_is_not_repeated(project: Path) -> None:
    for url in (
        f"https://u:{PASSWORD}@dp.example.com",
        f"https://dp.example.com/?token={TOKEN}",
        f"x://{PASSWORD}@h",
    ):
        done = datapilot(
            "auth", "status", "-v", "--backend-url", url, "--token", TOKEN, "--instance-name", "n"
        )
        assert done.exit_code == 2
        for secret in SECRETS:
            assert secret not in done.output


CRASH = """
import sys
from datapilot_defer.client import transport
from datapilot_defer.__main__ import main
def crash(self, *_, **__):
    raise ZeroDivisionError(repr([self, self.__dict__, _, __]))
transport.Transport.{method} = crash
sys.argv = ["datapilot", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("method", ["send_to_api", "send_to_storage"])
def test_traceback_of_bug_has_no_secrets(
    method: str, hosted: ProtocolServer, project: Path
) -> None:
    command = ["dbt", "onboard", *COMMANDS["dbt.onboard"], "-v"]
    done = subprocess.run(
        [sys.executable, "-c", CRASH.replace("{method}", method), *command],
        env={**os.environ, **hosted.access},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert "ZeroDivisionError" in done.stdout
    assert TOKEN not in done.stdout
    assert "s3cret" not in done.stdout  # The signature of this instance's signed URLs.


def test_repr_hides_secrets() -> None:
    url = f"https://s.example.com/f?signature={SIGNATURE}"
    for thing in (
        UploadTarget(url, 1),
        ArtifactLocation(url, 1, None, None, None, None, None, None, None),
        Request("x", "PUT", url),
    ):
        assert SIGNATURE not in repr(thing)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_process_arguments_have_no_token(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    world = make_world(instance, artifacts / "manifest.json", tmp_path / "world")
    integration = world.integration("shop")
    with fault_proxy(instance.url, At(PUT, act.stall)) as proxy:
        command = [
            sys.executable,
            "-m",
            "datapilot_defer",
            "dbt",
            "onboard",
            "--integration-id",
            str(integration),
        ]
        environ = {**os.environ, **world.access(proxy.url), "TMPDIR": str(tmp_path)}
        with subprocess.Popen(
            [*command, "--manifest-path", str(world.new)], env=environ
        ) as process:
            while not proxy.count(PUT):
                assert process.poll() is None
            lists = [_argument_list(pid) for pid in _process_tree(process.pid)]
            process.kill()
    assert len(lists) >= 1
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and instance.token.encode() in path.read_bytes()), path
    assert instance.token.encode() not in b"".join(lists)


def test_arguments_of_dbt_have_no_token(
    instance: RunningInstance, shop: Shop, tmp_path: Path
) -> None:
    dbt = tmp_path / "bin" / "dbt"
    dbt.parent.mkdir()
    dbt.write_text(
        f"#!{sys.executable}\nimport sys, os\n"
        "if '--version' in sys.argv: print('Core:\\n  - installed: 1.11.16'); sys.exit()\n"
        f"open({str(tmp_path / 'words')!r}, 'w').write(repr(sys.argv))\n",
        encoding="utf-8",
    )
    dbt.chmod(0o755)
    world = make_world(instance, shop.prod_artifacts / "manifest.json", tmp_path / "world")
    integration = world.integration("shop")
    done = datapilot(
        *(
            "dbt",
            "defer",
            "run",
            "--integration-id",
            integration,
            "--project-dir",
            shop.project,
            "--dbt",
            dbt,
            "build",
        ),
        env=world.access(instance.url),
    )
    assert (tmp_path / "words").exists(), done.output
    assert instance.token not in (tmp_path / "words").read_text(encoding="utf-8") + done.output


def _process_tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(descendant for child in children for descendant in _process_tree(int(child)))]


def _argument_list(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_server_log_has_no_token_and_no_signature(artifacts: Path, tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "datapilot_defer", "instance"]
    data = ["--data", str(tmp_path / "data")]
    created = datapilot("instance", "init", *data, "--instance-name", "acme", "--json").json
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [*serve, "serve", *data, "--port", "0", "--json", "-v"],
            stdout=subprocess.PIPE,
            stderr=stderr,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            env = {
                "ALTIMATE_URL": url,
                "ALTIMATE_INSTANCE_NAME": "acme",
                "ALTIMATE_API_KEY": created["token"],
            }
            assert (
                datapilot("dbt", "integrations", "create", "--name", "shop", env=env).exit_code == 0
            )
            manifest = ["--manifest-path", artifacts / "manifest.json"]
            assert (
                datapilot("dbt", "onboard", "--integration-id", 1, *manifest, env=env).exit_code
                == 0
            )
            assert (
                datapilot(
                    "dbt", "pull", "--integration-id", 1, "--output", tmp_path / "state", env=env
                ).exit_code
                == 0
            )
            assert datapilot("auth", "status", "--instance-name", "wrong", env=env).exit_code == 3
        finally:
            process.terminate()
    text = log.read_text(encoding="utf-8")
    assert "PUT /files/1" in text
    assert created["token"] not in text
    assert "signature" not in text


def test_token_in_path_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = "dpd_" + "a1" * 20
    monkeypatch.chdir(tmp_path)
    text = "name: shop\ntarget-path: \"{{ env_var('CORP_TOKEN') }}\"\n"
    (tmp_path / "dbt_project.yml").write_text(text, encoding="utf-8")
    words = ("dbt", "onboard", "--integration-id", "1", "--dry-run")
    for more in ((), ("--json",)):
        done = datapilot(*words, *more, env={"CORP_TOKEN": token})
        assert "CORP_TOKEN, which may contain a secret" in done.output
        done = datapilot(*words, *more, env={"CORP_TOKEN": f"out/{token}"})
        assert done.exit_code == 2
        assert "dpd_***" in done.output
        assert token not in done.output
