"""The commands of `datapilot auth` at a terminal, in scripts and in CI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import keyring
import pytest
from keyring.errors import NoKeyringError

from datapilot_defer import credential_store
from datapilot_defer.client.hosted_pages import find_site
from tests.conftest import MemoryKeyring
from tests.support import fault_actions as act
from tests.support.commands import access, datapilot
from tests.support.fault_proxy import At, fault_proxy
from tests.support.instances import RunningInstance, running_instance
from tests.support.protocol_server import Reply, protocol_server


def instance_variables(instance: RunningInstance) -> dict[str, str]:
    """Return the environment variables with URL and instance name but without a token."""
    return {name: value for name, value in access(instance).items() if name != "ALTIMATE_API_KEY"}


def log_in(instance: RunningInstance, *more: str, token: str | None = None) -> None:
    done = datapilot(
        "auth",
        "login",
        "--token-stdin",
        *more,
        env=instance_variables(instance),
        stdin=f"{token or instance.token}\n",
    )
    assert done.exit_code == 0, done.output


def config_file(home: Path) -> Path:
    return home / ".altimate" / "altimate.json"


def test_token_from_stdin_is_verified_and_stored(instance: RunningInstance) -> None:
    done = datapilot(
        "auth",
        "login",
        "--token-stdin",
        "--json",
        env=instance_variables(instance),
        stdin=f"{instance.token}\n",
    )
    assert done.exit_code == 0, done.output
    assert done.json == {
        "ok": True,
        "instance_name": "acme",
        "url": instance.url,
        "stored_in": "the system keyring",
    }
    assert instance.token not in done.output
    status = datapilot("auth", "status", "--json").json
    assert status["accepted"] is True
    assert status["may_upload"] is True
    assert {status[f"{part}_origin"] for part in ("url", "instance_name", "token")} == {
        "the system keyring"
    }
    assert status["token"] == f"*** ({len(instance.token)} characters)"


def test_token_from_file_is_sent_to_instance_of_options(
    instance: RunningInstance, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{instance.token}\n", encoding="utf-8")
    where = ["--backend-url", instance.url, "--instance-name", instance.instance_name]
    other = {"ALTIMATE_API_KEY": "of-another-instance", "ALTIMATE_URL": "https://other.example.com"}
    done = datapilot("auth", "login", "--token-file", file, *where, env=other)
    assert done.exit_code == 0, done.output
    assert (
        "the token in environment variable ALTIMATE_API_KEY takes precedence over the stored one"
        in done.stderr
    )
    assert datapilot("auth", "status").exit_code == 0


def test_rejected_token_is_not_stored(
    instance: RunningInstance, memory_keyring: MemoryKeyring
) -> None:
    done = datapilot(
        "auth", "login", "--token-stdin", env=instance_variables(instance), stdin="wrong-token\n"
    )
    assert done.exit_code == 3
    assert f"{instance.url} does not accept the token (from standard input)" in done.stderr
    assert "wrong-token" not in done.output
    assert memory_keyring.passwords == {}


@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (["--token", "a-token-1", "--token-stdin"], "b", "use only one of"),
        (["--token-file", "{missing}"], None, "cannot read the token from "),
        (["--token-file", "{binary}"], None, "is not text"),
        (["--token-file", "{long}"], None, "is too long for a token"),
        (["--token-stdin"], "t" * 20_000, "is too long for a token"),
        (["--token-stdin"], "", "no token"),
        (["--token-stdin"], "two\nlines\n", "contains a line break"),
        ([], None, "no token"),
        (["--token-stdin", "--store", "cloud"], "t", "'cloud' is not one of"),
    ],
)
def test_invalid_token_is_rejected(
    words: list[str], stdin: str | None, message: str, instance: RunningInstance, tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "long").write_text("t" * 20_000, encoding="utf-8")
    files = {name: tmp_path / name for name in ("missing", "binary", "long")}
    done = datapilot(
        "auth",
        "login",
        *(word.format(**files) for word in words),
        env=instance_variables(instance),
        stdin=stdin,
    )
    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_token_option_works_with_warning(instance: RunningInstance) -> None:
    done = datapilot("auth", "login", "--token", instance.token, env=instance_variables(instance))
    assert done.exit_code == 0
    assert "--token is visible in process lists" in done.stderr
    assert instance.token not in done.output


def test_store_file_uses_config_file(instance: RunningInstance, home: Path) -> None:
    log_in(instance, "--store", "file")
    status = datapilot("auth", "status", "--json").json
    assert status["token_origin"] == f"{config_file(home)}:4"
    if os.name != "nt":
        assert config_file(home).stat().st_mode & 0o777 == 0o600
    assert datapilot("auth", "logout").exit_code == 0
    assert json.loads(config_file(home).read_text(encoding="utf-8")) == {}
    assert datapilot("auth", "status").exit_code == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_readable_config_file_causes_warning(instance: RunningInstance, home: Path) -> None:
    log_in(instance, "--store", "file")
    assert "chmod" not in datapilot("auth", "status").stderr
    config_file(home).chmod(0o644)
    assert (
        f"other users of this machine can read the token in {config_file(home)}. Run `chmod 600"
        in datapilot("auth", "status").stderr
    )
    assert "chmod" not in datapilot("auth", "status", env=access(instance)).stderr


def test_login_warns_of_config_file_that_takes_precedence(
    instance: RunningInstance, home: Path
) -> None:
    config_file(home).parent.mkdir()
    config_file(home).write_text(
        '{"altimateApiKey": "t", "altimateInstanceName": "hosted"}', encoding="utf-8"
    )
    done = datapilot(
        "auth", "login", "--token-stdin", env=instance_variables(instance), stdin=instance.token
    )
    assert done.exit_code == 0, done.output
    assert (
        "contains credentials for https://api.myaltimate.com, which take precedence" in done.stderr
    )
    assert datapilot("auth", "status", "--backend-url", instance.url).exit_code == 0


class NoKeyring(MemoryKeyring):
    """The backend that keyring selects on a system without a keyring."""

    def get_password(self, service: str, username: str) -> str | None:
        raise NoKeyringError("none")


@pytest.mark.parametrize(
    ("variable", "value", "label"),
    [
        ("ALTIMATE_API_KEY", "another-token", "token"),
        ("DATAPILOT_TOKEN", "another-token", "token"),
        ("DATAPILOT_URL", "https://other.example.com", "URL"),
        ("DATAPILOT_INSTANCE_NAME", "other", "instance name"),
    ],
)
def test_login_warns_of_variable_that_takes_precedence(
    variable: str, value: str, label: str, instance: RunningInstance
) -> None:
    where = ["--backend-url", instance.url, "--instance-name", instance.instance_name]
    words = ("auth", "login", "--token-stdin", *where)
    done = datapilot(*words, env={variable: value}, stdin=instance.token)
    assert done.exit_code == 0, done.output
    assert (
        f"the {label} in environment variable {variable} takes precedence over the stored one"
        in done.stderr
    )
    same = datapilot(
        *words,
        env={**instance_variables(instance), "ALTIMATE_URL": f"{instance.url}/"},
        stdin=instance.token,
    )
    assert "wins" not in same.stderr


def test_login_warns_of_every_variable_that_takes_precedence(instance: RunningInstance) -> None:
    where = ["--backend-url", instance.url, "--instance-name", instance.instance_name]
    contradicting = {
        "ALTIMATE_API_KEY": "another-token",
        "DATAPILOT_TOKEN": "one-more-token",
        "ALTIMATE_URL": "https://other.example.com",
        "DATAPILOT_INSTANCE_NAME": "other",
    }
    words = ("auth", "login", "--token-stdin", *where)
    done = datapilot(*words, env=contradicting, stdin=instance.token)
    assert done.exit_code == 0, done.output
    for variable in contradicting:
        assert (
            f"in environment variable {variable} takes precedence over the stored one"
            in done.stderr
        )
    logout = datapilot("auth", "logout", env=contradicting)
    assert "is still used. Unset DATAPILOT_TOKEN and ALTIMATE_API_KEY to stop that" in logout.stderr


def test_login_ignores_variable_behind_equal_one(instance: RunningInstance) -> None:
    env = {
        **instance_variables(instance),
        "DATAPILOT_TOKEN": instance.token,
        "ALTIMATE_API_KEY": "another",
    }
    done = datapilot("auth", "login", "--token-stdin", env=env, stdin=instance.token)
    assert done.exit_code == 0, done.output
    assert "wins" not in done.stderr


@pytest.mark.parametrize("variable", ["ALTIMATE_API_KEY", "DATAPILOT_TOKEN"])
def test_logout_warns_of_remaining_variable(variable: str, instance: RunningInstance) -> None:
    log_in(instance)
    done = datapilot("auth", "logout", "--json", env={variable: "another-token"})
    assert done.exit_code == 0, done.output
    assert f"the token from environment variable {variable} is still used. Unset" in done.stderr
    assert done.json["remaining_token_origin"] == f"environment variable {variable}"
    second_logout = datapilot("auth", "logout", env={variable: "another-token"})
    assert second_logout.exit_code == 4
    assert f"The token from environment variable {variable} is still used" in second_logout.stderr


def test_logout_warns_of_remaining_config_file(
    instance: RunningInstance, home: Path, tmp_path: Path
) -> None:
    with running_instance(tmp_path / "other", "staging") as other:
        log_in(instance, "--store", "file")
        log_in(other)
        done = datapilot("auth", "logout", "--instance-name", "staging", "--json")
        assert done.exit_code == 0, done.output
        assert f"the token from {config_file(home)}:4 is still used" in done.stderr
        assert done.json["remaining_token_origin"] == f"{config_file(home)}:4"
        last = datapilot("auth", "logout", "--json")
        assert last.json["remaining_token_origin"] is None
        assert "still used" not in last.stderr


def test_logout_removes_nothing_when_the_config_file_is_broken(
    instance: RunningInstance, home: Path
) -> None:
    log_in(instance)
    config_file(home).parent.mkdir(exist_ok=True)
    config_file(home).write_text("{bad", encoding="utf-8")
    assert datapilot("auth", "logout").exit_code == 2
    config_file(home).unlink()
    assert datapilot("auth", "status").exit_code == 0


def test_logout_is_done_when_the_config_file_names_a_variable_that_is_not_set(
    instance: RunningInstance, home: Path
) -> None:
    log_in(instance)
    config_file(home).parent.mkdir(exist_ok=True)
    content = {"altimateApiKey": "${env:NOT_SET}", "altimateInstanceName": "other"}
    config_file(home).write_text(json.dumps(content), encoding="utf-8")
    done = datapilot("auth", "logout", "--instance-name", "acme", "--json")
    assert (done.exit_code, done.json["remaining_token_origin"]) == (0, None), done.output


def test_login_without_keyring_suggests_store_file(instance: RunningInstance, home: Path) -> None:
    keyring.set_keyring(NoKeyring())
    done = datapilot(
        "auth", "login", "--token-stdin", env=instance_variables(instance), stdin=instance.token
    )
    assert done.exit_code == 2
    assert (
        "there is no keyring on this system. The credentials were not stored. Use --store"
        in done.stderr
    )
    assert not config_file(home).exists()
    log_in(instance, "--store", "file")
    assert datapilot("auth", "status").exit_code == 0


def test_login_in_ci_stores_nothing_by_default(
    instance: RunningInstance, memory_keyring: MemoryKeyring
) -> None:
    env = {**instance_variables(instance), "CI": "true"}
    done = datapilot("auth", "login", "--token-stdin", env=env, stdin=instance.token)
    assert done.exit_code == 2
    assert "the keyring is disabled" in done.stderr
    assert memory_keyring.passwords == {}
    env["DATAPILOT_KEYRING"] = "1"
    assert datapilot("auth", "login", "--token-stdin", env=env, stdin=instance.token).exit_code == 0


def test_credentials_of_several_instances_are_kept(
    instance: RunningInstance, tmp_path: Path
) -> None:
    with running_instance(tmp_path / "other", "staging") as other:
        log_in(instance)
        log_in(other)
        assert status_of()["url"] == other.url
        assert status_of("--backend-url", instance.url)["instance_name"] == "acme"
        assert status_of("--instance-name", "acme")["url"] == instance.url
        assert datapilot("auth", "logout", "--instance-name", "staging").exit_code == 0
        assert status_of()["url"] == instance.url
        crossed = datapilot("auth", "status", "--backend-url", other.url)
        assert crossed.exit_code == 2  # No token belongs to this instance name at this URL.
        assert "no instance name and no token" in crossed.stderr


def status_of(*words: str) -> dict[str, str]:
    done = datapilot("auth", "status", "--json", *words)
    assert done.exit_code == 0, done.output
    status: dict[str, str] = done.json
    return status


def test_logout_without_credentials_is_not_found() -> None:
    done = datapilot("auth", "logout", "--json")
    assert done.exit_code == 4
    assert done.json["error"]["kind"] == "not_found"


def test_logout_removes_selected_credentials_from_both_stores(
    instance: RunningInstance, home: Path
) -> None:
    log_in(instance)
    log_in(instance, "--store", "file")
    assert datapilot("auth", "logout", "--backend-url", "https://other.example.com").exit_code == 4
    done = datapilot("auth", "logout", "--backend-url", f"{instance.url}/", "--json")
    assert done.json["removed_from"] == [
        f"the system keyring (acme at {instance.url})",
        str(config_file(home)),
    ]
    assert credential_store.find_in_keyring(None, None) is None


def test_status_shows_origin_of_each_value(instance: RunningInstance) -> None:
    env = {
        "DATAPILOT_URL": instance.url,
        "ALTIMATE_INSTANCE_NAME": instance.instance_name,
        "ALTIMATE_API_KEY": instance.token,
    }
    done = datapilot("auth", "status", env=env)
    assert done.stdout.splitlines() == [
        f"url:           {instance.url}  (environment variable DATAPILOT_URL)",
        "instance name: acme  (environment variable ALTIMATE_INSTANCE_NAME)",
        f"token:         *** ({len(instance.token)} characters)"
        "  (environment variable ALTIMATE_API_KEY)",
        "accepted:      yes, and the token may upload",
    ]


def test_status_of_read_only_token(instance: RunningInstance) -> None:
    done = datapilot("auth", "status", env=access(instance, instance.new_token("read")))
    assert done.exit_code == 0
    assert "accepted:      yes, but the token may not upload" in done.stdout


def test_status_of_expired_token(instance: RunningInstance) -> None:
    token = instance.new_token("admin", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    done = datapilot("auth", "status", "--json", env=access(instance, token))
    assert (done.exit_code, done.json["accepted"], done.json["ok"]) == (3, False, False)
    assert "does not accept the token" in done.json["problem"]


def test_rejected_credentials_appear_in_job_summary(
    instance: RunningInstance, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    done = datapilot("auth", "status", env={**access(instance, "wrong-token-0000"), **env})
    assert done.exit_code == 3
    assert f"::error title=datapilot::{instance.url} does not accept the token" in done.stderr
    assert "does not accept the token" in summary.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("remaining", "words"),
    [
        (timedelta(days=14, minutes=-1), "in 13 days"),
        (timedelta(days=1, minutes=1), "in 1 day"),
        (timedelta(hours=5, minutes=1), "in 5 hours"),
        (timedelta(minutes=5), "within the hour"),
        (timedelta(days=14, minutes=5), None),
        (None, None),
    ],
)
def test_status_warns_of_token_that_expires_soon(
    remaining: timedelta | None, words: str | None, instance: RunningInstance
) -> None:
    expires_at = None
    if remaining is not None:
        expires_at = datetime.now(UTC) + remaining
    token = instance.new_token("read", expires_at=expires_at)
    env = access(instance, token)
    done = datapilot("auth", "status", "--json", env=env)
    assert (done.exit_code, done.json["ok"], done.json["problem"]) == (0, True, None)
    if expires_at is None:
        assert done.json["token_expires_at"] is None
        assert "token expires:" not in datapilot("auth", "status", env=env).stdout
    else:
        assert datetime.fromisoformat(done.json["token_expires_at"]) == expires_at
        shown = datapilot("auth", "status", env=env).stdout
        assert f"token expires: {expires_at:%Y-%m-%d %H:%M} UTC" in shown
    if words is None:
        assert done.stderr == ""
    else:
        assert f"the token expires {words}, on {expires_at:%Y-%m-%d}. Create a new" in done.stderr


@pytest.mark.parametrize(
    "value", ["soon", "", 7, [], "9999-12-31T23:59:59-23:59", "2020-01-01\n", "9" * 5000]
)
def test_invalid_expiry_is_ignored(value: object) -> None:
    with protocol_server() as server:
        server.answers["GET /dbt/v3/validate-credentials"] = lambda _: Reply(
            {"ok": True, "token_expires_at": value}
        )
        done = datapilot("auth", "status", "--json", env=server.access)
    assert (done.exit_code, done.json["token_expires_at"], done.stderr) == (0, None, "")


def test_status_of_unavailable_instance_does_not_judge_token() -> None:
    env = {
        "ALTIMATE_URL": "http://127.0.0.1:9",
        "ALTIMATE_INSTANCE_NAME": "n",
        "ALTIMATE_API_KEY": "some-token",
    }
    done = datapilot("auth", "status", "--json", "--timeout", "1", env=env)
    assert (done.exit_code, done.json["accepted"]) == (5, None)
    assert "connection refused" in done.json["problem"]


class LockedKeyring(MemoryKeyring):
    """A locked keyring."""

    def get_password(self, service: str, username: str) -> str | None:
        raise OSError("locked")


def test_logout_with_failing_keyring_removes_file_entry(
    instance: RunningInstance, home: Path
) -> None:
    log_in(instance, "--store", "file")
    keyring.set_keyring(LockedKeyring())
    done = datapilot("auth", "logout")
    assert done.exit_code == 0
    assert "the system keyring cannot be used (OSError)" in done.stderr
    assert "altimateApiKey" not in config_file(home).read_text(encoding="utf-8")


def test_logout_in_ci_does_not_change_keyring(
    instance: RunningInstance, memory_keyring: MemoryKeyring
) -> None:
    log_in(instance)
    assert datapilot("auth", "logout", env={"CI": "1"}).exit_code == 4
    assert memory_keyring.passwords != {}


def test_status_ignores_failing_keyring(instance: RunningInstance) -> None:
    keyring.set_keyring(LockedKeyring())
    log_in(instance, "--store", "file")
    done = datapilot("auth", "status", "--backend-url", "https://other.example.com", "-v")
    assert done.exit_code == 2
    assert "the system keyring cannot be used (OSError)" in done.stderr
    assert "belongs to" in done.stderr


def test_status_without_permissions_call_has_unknown_permission() -> None:
    with protocol_server() as hosted:
        hosted.answers["GET /dbt/v1/validate-permissions"] = lambda _: Reply({}, 404)
        done = datapilot("auth", "status", "--json", env=hosted.access)
        text = datapilot("auth", "status", env=hosted.access).stdout
    assert (done.exit_code, done.json["accepted"], done.json["may_upload"]) == (0, True, None)
    assert "accepted:      yes, but it is unknown whether the token may upload\n" in text


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "1e9"])
def test_invalid_timeout_error_names_variable(seconds: str, instance: RunningInstance) -> None:
    done = datapilot("auth", "status", env={**access(instance), "DATAPILOT_TIMEOUT": seconds})
    assert done.exit_code == 2
    assert (
        f"environment variable DATAPILOT_TIMEOUT is '{seconds}'. Set it to a number of seconds"
        in done.stderr
    )


def test_timeout_variable_limits_command() -> None:
    with fault_proxy("http://127.0.0.1:1", At("", act.stall)) as proxy:
        env = {
            "ALTIMATE_URL": proxy.url,
            "ALTIMATE_INSTANCE_NAME": "n",
            "ALTIMATE_API_KEY": "some-token",
        }
        done = datapilot("auth", "status", env={**env, "DATAPILOT_TIMEOUT": "1.5"})
    assert done.exit_code == 5
    assert "did not end within 1.5 s" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.parametrize(
    ("words", "origin"),
    [(["--token-file", "{pipe}"], "the file {pipe}"), (["--token-stdin"], "standard input")],
)
def test_missing_token_input_times_out(
    words: list[str], origin: str, instance: RunningInstance, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    filled = [word.format(pipe=pipe) for word in words]
    silent, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-m", "datapilot_defer", "auth", "login", *filled, "--timeout", "1"],
        env={**os.environ, **instance_variables(instance)},
        stdin=silent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(silent)
    os.close(writer)
    assert done.returncode == 5
    assert f"reading the token from {origin.format(pipe=pipe)} did not end within" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
def test_token_from_pipe_is_stored(instance: RunningInstance, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(instance.token,))
    writer.start()
    done = datapilot("auth", "login", "--token-file", pipe, env=instance_variables(instance))
    writer.join()
    assert done.exit_code == 0, done.output


def test_site_of_hosted_instance_ignores_default_port() -> None:
    for url in ("https://api.getaltimate.com", "https://api.getaltimate.com:443"):
        assert find_site(url, "acme") == "https://acme.app.getaltimate.com"
    assert find_site("https://a.example:443", "acme") == "https://a.example:443"
