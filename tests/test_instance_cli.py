"""`datapilot instance`: creating, serving and administering instances on the command line."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import requests
import trustme

from datapilot_defer.cli.instance import tokens as cli
from datapilot_defer.instance.services.principal import SCOPES
from datapilot_defer.storage import open_storage
from tests.support.commands import datapilot
from tests.support.contents import SlowBody
from tests.support.instance_calls import (
    SECONDS,
    announce,
    call,
    fetch,
    make_integration,
    manifest,
    onboard,
)
from tests.support.instances import RunningInstance
from tests.support.served_command import serving


def test_init_creates_an_instance_and_prints_its_token_once(tmp_path: Path) -> None:
    created = datapilot(
        "instance",
        "init",
        "--data",
        tmp_path / "new" / "directory",
        "--instance-name",
        "acme",
        "--json",
    )
    assert created.exit_code == 0
    assert created.json["instance_name"] == "acme"
    assert re.fullmatch(r"dpd_[0-9A-Za-z]{46}", created.json["token"])


def test_a_second_init_is_rejected_with_the_command_that_creates_a_token(tmp_path: Path) -> None:
    datapilot("instance", "init", "--data", tmp_path, "--instance-name", "acme")
    again = datapilot("instance", "init", "--data", tmp_path, "--instance-name", "acme")
    assert again.exit_code == 2
    assert "datapilot instance token create --data" in again.stderr
    other = datapilot("instance", "init", "--data", tmp_path, "--instance-name", "other", "--json")
    assert other.exit_code == 0


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 64, "-a"])
def test_init_rejects_an_invalid_name(tmp_path: Path, name: str) -> None:
    assert (
        datapilot("instance", "init", "--data", tmp_path, f"--instance-name={name}").exit_code == 2
    )


def test_a_data_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    rejected = datapilot(
        "instance", "init", "--data", tmp_path / "file" / "data", "--instance-name", "acme"
    )
    assert rejected.exit_code == 2
    assert "as the data directory: Not a directory" in rejected.stderr


def test_tokens_are_created_listed_and_revoked(tmp_path: Path) -> None:
    datapilot("instance", "init", "--data", tmp_path, "--instance-name", "acme")
    create = (
        "instance",
        "token",
        "create",
        "--data",
        tmp_path,
        "--name",
        "ci",
        "--scope",
        "upload",
        "--json",
    )
    created = datapilot(*create, "--expires-days", 30).json
    assert created["token"].startswith("dpd_")
    assert created["scopes"] == ["upload"]
    listed = datapilot("instance", "token", "list", "--data", tmp_path)
    assert created["token"] not in listed.output
    assert "ci" in listed.stdout
    assert (
        datapilot("instance", "token", "revoke", "--data", tmp_path, created["id"]).exit_code == 0
    )
    assert (
        datapilot("instance", "token", "revoke", "--data", tmp_path, created["id"]).exit_code == 4
    )
    states = datapilot("instance", "token", "list", "--data", tmp_path, "--json").json["tokens"]
    assert [(each["name"], each["state"]) for each in states] == [
        ("ci", "revoked"),
        ("first", "valid"),
    ]


def test_the_columns_of_the_token_table_are_aligned_with_their_headings(tmp_path: Path) -> None:
    datapilot("instance", "init", "--data", tmp_path, "--instance-name", "acme")
    create = (
        "instance",
        "token",
        "create",
        "--data",
        tmp_path,
        "--name",
        "a long name",
        "--expires-days",
        30,
    )
    datapilot(*create, "--scope", "upload", "--scope", "read")
    head, *rows = datapilot("instance", "token", "list", "--data", tmp_path).stdout.splitlines()
    names = ["id", "instance", "name", "scopes", "integration", "state", "expires", "last used"]
    assert re.split(r"  +", head) == names
    starts = [re.search(rf"\b{name}\b", head) for name in names]
    cells = [[row[start.start() :].split("  ")[0] for start in starts if start] for row in rows]
    expires = cells[0].pop(6)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", expires)
    assert cells == [
        ["2", "acme", "a long name", "read,upload", "all", "valid", "never"],
        ["1", "acme", "first", "admin", "all", "valid", "never", "never"],
    ]


def test_the_command_line_offers_every_scope() -> None:
    (kind,) = (option.type for option in cli.create.params if option.name == "scopes")
    assert isinstance(kind, click.Choice)
    assert tuple(kind.choices) == SCOPES


def test_the_name_is_required_if_there_are_several_instances(tmp_path: Path) -> None:
    create = ("instance", "token", "create", "--data", tmp_path, "--name", "ci", "--scope", "read")
    for name in ("one", "two"):
        datapilot("instance", "init", "--data", tmp_path, "--instance-name", name)
    assert datapilot(*create).exit_code == 2
    assert "Available instances: one, two." in datapilot(*create).stderr
    assert datapilot(*create, "--instance-name", "two").exit_code == 0
    assert datapilot(*create, "--instance-name", "three").exit_code == 4
    assert datapilot(*create, "--instance-name", "two", "--integration-id", 9).exit_code == 4
    assert (
        datapilot(
            "instance", "token", "list", "--data", tmp_path, "--instance-name", "three"
        ).exit_code
        == 4
    )


def test_an_admin_token_for_one_integration_is_rejected(tmp_path: Path) -> None:
    datapilot("instance", "init", "--data", tmp_path, "--instance-name", "acme")
    create = ("instance", "token", "create", "--data", tmp_path, "--name", "x", "--scope", "admin")
    rejected = datapilot(*create, "--integration-id", 1)
    assert rejected.exit_code == 2
    assert "the scope admin applies to the complete instance" in rejected.stderr


@pytest.mark.parametrize(
    "words", [("create", "--name", "x", "--scope", "read"), ("list",), ("revoke", 1)]
)
def test_token_commands_fail_without_an_instance_and_write_nothing(
    tmp_path: Path, words: tuple[str | int, ...]
) -> None:
    for data in (tmp_path / "not there", tmp_path):
        rejected = datapilot("instance", "token", *words, "--data", data)
        assert rejected.exit_code == 2
        assert f"{data} does not contain an instance. Check --data" in rejected.stderr
        assert "datapilot instance init --data" in rejected.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_newer_data_directory_is_rejected(tmp_path: Path) -> None:
    with open_storage(tmp_path) as storage, storage.database.write() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET compatible_from = 99")
    rejected = datapilot("instance", "serve", "--data", tmp_path)
    assert rejected.exit_code == 2
    assert "requires migration 99" in rejected.stderr


@pytest.mark.skipif(
    os.name == "nt", reason="Windows knows neither SIGTERM nor SIGINT for other processes"
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_url_first_and_stops_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    with serving(tmp_path, "--json") as first:
        assert first.result.keys() == {"url", "instance_name", "token"}
        instance = first.instance(tmp_path, first.result["token"])
        onboard(instance, make_integration(instance), manifest())
        url = fetch(instance, 1).json()["url"]
        assert requests.get(url, timeout=SECONDS).content == manifest()
        code, _, stderr = first.stop(number)
    assert code == 0
    assert "PUT /files/1 200" in stderr
    assert stderr.splitlines()[-2:] == [f"stopping: received {number.name}", "stopped"]
    for secret in (first.result["token"], "signature", "expires", url.rpartition("=")[2]):
        assert secret not in stderr
    with serving(tmp_path, "--json") as second:
        assert second.result.keys() == {"url"}
        assert fetch(second.instance(tmp_path, first.result["token"]), 1).status_code == 200


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGTERM for other processes")
def test_a_running_upload_finishes_before_the_server_stops(tmp_path: Path) -> None:
    with serving(tmp_path, "--json") as running:
        instance, content = (
            running.instance(tmp_path, running.result["token"]),
            manifest() + b" " * 2_500_000,
        )
        announced = announce(instance, make_integration(instance)).json()

        def slowly() -> Iterator[bytes]:
            yield content[:2_000_000]
            while not list((tmp_path / "blobs" / "incoming").glob("*")):
                assert running.process.poll() is None
            running.process.send_signal(signal.SIGTERM)
            while True:
                try:
                    socket.create_connection((_host(instance), _port(instance)), timeout=1).close()
                except OSError:
                    break
            yield content[2_000_000:]

        body = SlowBody(len(content), slowly())
        assert requests.put(announced["url"], data=body, timeout=SECONDS).status_code == 200
        assert running.process.wait(timeout=30) == 0


def test_the_first_start_prints_commands_to_copy(tmp_path: Path) -> None:
    with serving(tmp_path, "--instance-name", "acme") as running:
        assert running.process.stdout is not None
        lines = [running.first_line, *(running.process.stdout.readline() for _ in range(7))]
    text = "".join(lines)
    assert re.search(r"ALTIMATE_INSTANCE_NAME=.?acme", text)
    assert "datapilot dbt onboard --integration-name my_project" in text


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rejected = datapilot(
            "instance", "serve", "--data", tmp_path, "--port", listener.getsockname()[1]
        )
    assert rejected.exit_code == 2
    assert "cannot listen on 127.0.0.1 port" in rejected.stderr


def test_an_instance_serves_https_with_a_private_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, root = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "root.pem"))
    authority.cert_pem.write_to_path(root)
    issued.private_key_pem.write_to_path(key)
    for part in issued.cert_chain_pems:
        part.write_to_path(certificate, append=True)
    options = ("--tls-certificate", certificate, "--tls-key", key, "--json")
    with serving(tmp_path / "data", *options) as running:
        url = running.result["url"]
        assert url.startswith("https://127.0.0.1:")
        assert requests.get(f"{url}/health", verify=root, timeout=SECONDS).status_code == 200
        data = {"token": running.result["token"]}
        answer = requests.post(
            f"{url}/sign-in", data=data, verify=root, timeout=SECONDS, allow_redirects=False
        )
        assert "; Secure" in answer.headers["set-cookie"]


def test_an_invalid_certificate_is_reported(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nothing", encoding="utf-8")
    words = (
        "instance",
        "serve",
        "--data",
        tmp_path / "data",
        "--port",
        0,
        "--tls-certificate",
        tmp_path / "cert.pem",
    )
    rejected = datapilot(*words, "--tls-key", tmp_path / "cert.pem")
    assert rejected.exit_code == 2
    assert "TLS certificate" in rejected.stderr


@pytest.mark.parametrize("option", ["--tls-certificate", "--tls-key"])
def test_a_certificate_and_its_key_must_be_used_together(tmp_path: Path, option: str) -> None:
    rejected = datapilot(
        "instance", "serve", "--data", tmp_path / "data", "--port", 0, option, tmp_path / "one.pem"
    )
    assert rejected.exit_code == 2
    assert "--tls-certificate and --tls-key must be used together" in rejected.stderr
    assert not (tmp_path / "data").exists()


def test_the_forwarded_host_is_trusted_only_behind_a_proxy(tmp_path: Path) -> None:
    forwarded = {"X-Forwarded-Host": "defer.example.com", "X-Forwarded-Proto": "https"}
    for options, begin in (
        (("--behind-proxy",), "https://defer.example.com/"),
        ((), "http://127.0.0.1:"),
    ):
        with serving(tmp_path / f"{len(options)}", "--json", *options) as running:
            instance = running.instance(tmp_path / f"{len(options)}", running.result["token"])
            onboard_id = make_integration(instance)
            query = {
                "dbt_core_integration_id": str(onboard_id),
                "dbt_core_integration_environment_type": "PROD",
            }
            answer = requests.get(
                f"{instance.url}/dbt/v1/signed_url",
                params={**query, "file_type": "manifest"},
                headers={**instance.headers, **forwarded},
                timeout=SECONDS,
            )
        assert answer.json()["url"].startswith(begin)


def test_signed_urls_start_with_the_public_url(tmp_path: Path) -> None:
    with serving(tmp_path, "--json", "--public-url", "https://defer.example.com/dbt/") as running:
        assert running.result["url"] == "https://defer.example.com/dbt"


def test_listening_on_all_addresses_without_tls_prints_a_warning(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0") as running:
        assert running.process.stderr is not None
        assert "tokens are sent unencrypted" in running.process.stderr.readline()


def test_tokens_can_be_created_while_the_server_is_running(
    instance: RunningInstance,
) -> None:
    words = (
        "instance",
        "token",
        "create",
        "--data",
        instance.data,
        "--name",
        "x",
        "--scope",
        "read",
        "--json",
    )
    assert (
        call(instance, "POST", "auth_health", token=datapilot(*words).json["token"]).status_code
        == 200
    )


def _host(instance: RunningInstance) -> str:
    return instance.url.removeprefix("http://").partition(":")[0]


def _port(instance: RunningInstance) -> int:
    return int(instance.url.rpartition(":")[2])
