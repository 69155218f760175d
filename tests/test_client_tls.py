"""TLS: whose certificates are believed, why one is refused, and what a proxy in between sees."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from datapilot_defer.artifact import Kind, parse_artifact
from datapilot_defer.client.certificates import find_ca_bundle
from datapilot_defer.client.responses import UploadTarget
from datapilot_defer.console import NoProgress
from datapilot_defer.errors import Unavailable, UsageError
from tests.support import fault_actions as act
from tests.support.fault_proxy import Accept, At, fault_proxy
from tests.support.fault_runner import World, instance_at

NOBODY = "http://127.0.0.1:1"
MANIFEST = parse_artifact(b"{}", path="manifest.json", kind=Kind.MANIFEST)

pytestmark = pytest.mark.usefixtures("no_retry_delay")


def handshake(world: World, certificate: str) -> Accept:
    return lambda client: world.contexts[certificate].wrap_socket(client, server_side=True)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_own_authority_is_believed_when_it_is_named(
    variable: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(world.folder / "ca.pem"))
    with fault_proxy(world.instance.url, scheme="https", accept=handshake(world, "good")) as proxy:
        instance_at(
            proxy.url, world.instance.instance_name, world.instance.token
        ).check_credentials()


def test_the_authorities_of_the_system_are_asked_on_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPILOT_SYSTEM_CERTIFICATES", "1")
    with fault_proxy(world.instance.url, scheme="https", accept=handshake(world, "good")) as proxy:
        with pytest.raises(Unavailable, match="not signed by a trusted authority"):
            instance_at(proxy.url).check_credentials()
        monkeypatch.setenv(
            "SSL_CERT_FILE", str(world.folder / "ca.pem")
        )  # which OpenSSL takes for the system's
        instance_at(
            proxy.url, world.instance.instance_name, world.instance.token
        ).check_credentials()


def test_a_proxy_between_sees_a_host_and_no_token(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.folder / "ca.pem"))
    with (
        fault_proxy(
            world.instance.url,
            scheme="https",
            host="instance.invalid",
            accept=handshake(world, "good"),
        ) as instance,
        fault_proxy(NOBODY, At("CONNECT", act.tunnel)) as between,
    ):
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        instance_at(
            instance.url, world.instance.instance_name, world.instance.token
        ).check_credentials()
        assert between.heads[0].startswith(f"CONNECT {instance.url.removeprefix('https://')} HTTP")
        assert (len(between.heads), instance.count("GET")) == (1, 1)
        assert world.instance.token not in between.heads[0]


def test_the_authorities_of_the_system_are_asked_behind_a_proxy_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPILOT_SYSTEM_CERTIFICATES", "1")
    monkeypatch.setenv("SSL_CERT_FILE", str(world.folder / "ca.pem"))  # OpenSSL's system store
    monkeypatch.setattr("datapilot_defer.client.certificates.find_ca_bundle", lambda _: None)
    target = fault_proxy(
        world.instance.url,
        scheme="https",
        host="instance.invalid",
        accept=handshake(world, "good"),
    )
    with target as instance, fault_proxy(NOBODY, At("CONNECT", act.tunnel)) as between:
        monkeypatch.setenv("HTTPS_PROXY", between.url)
        instance_at(
            instance.url, world.instance.instance_name, world.instance.token
        ).check_credentials()


CERTIFICATES = {
    "good": "it is not signed by a trusted authority",
    "expired": "it has expired",
    "other host": "it is for another host",
}


@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_a_certificate_is_refused_for_its_own_reason(
    certificate: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if certificate != "good":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.folder / "ca.pem"))
    with fault_proxy(NOBODY, scheme="https", accept=handshake(world, certificate)) as proxy:
        with pytest.raises(Unavailable) as raised:
            instance_at(proxy.url).check_credentials()
        assert CERTIFICATES[certificate] in str(raised.value)
        assert proxy.connections == 1  # trying again can't help


def test_a_port_without_tls_is_said_to_be_one() -> None:
    def misunderstand(client: socket.socket) -> socket.socket:
        act.misunderstand(client)
        return client

    proxy = fault_proxy(NOBODY, scheme="https", accept=misunderstand)
    with (
        proxy as running,
        pytest.raises(Unavailable, match=r"does not use TLS\. Check the scheme and the port"),
    ):
        instance_at(running.url).check_credentials()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_never_sees_the_token_of_an_instance_on_this_machine(
    world: World, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(NOBODY) as between:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, between.url)
        url = world.instance.url.replace("127.0.0.1", host)
        instance_at(url, world.instance.instance_name, world.instance.token).check_credentials()
        assert between.connections == 0


@pytest.mark.parametrize("where", ["http://127.0.0.1:1", "http://localhost:1", "http://10.0.0.1"])
def test_an_instance_with_tls_must_not_return_urls_without(world: World, where: str) -> None:
    client = instance_at("https://instance.invalid")
    with pytest.raises(UsageError) as e:
        client.upload(UploadTarget(f"{where}/f?signature=s3cret", 1), MANIFEST, NoProgress())
    message = str(e.value)
    assert f"https://instance.invalid returned a URL without TLS, {where}" in message
    assert "--public-url https://instance.invalid" in message
    assert "--behind-proxy" in message
    assert "s3cret" not in message


def test_a_redirect_of_the_api_to_no_tls_names_what_corrects_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.folder / "ca.pem"))
    leave = At("GET", act.redirect(307, "http://127.0.0.1:{port}/x"))
    with fault_proxy(NOBODY, leave, scheme="https", accept=handshake(world, "good")) as proxy:
        with pytest.raises(UsageError, match=r"--public-url https://127\.0\.0\.1"):
            instance_at(proxy.url).check_permissions()
        assert proxy.count("GET") == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://{evil}\\@{base}/x",
        "//{evil}\\@{base}/x",
        "http://user@{base}/x",
        "http://{base}/\u2028",
    ],
)
def test_the_token_goes_to_no_host_that_a_url_hides(location: str) -> None:
    with fault_proxy(NOBODY) as evil:
        leave = act.redirect(
            307,
            location.replace("{base}", "127.0.0.1:{port}").replace(
                "{evil}", evil.url.removeprefix("http://")
            ),
        )
        with fault_proxy(NOBODY, At("", leave)) as proxy:
            client = instance_at(proxy.url)
            with pytest.raises((Unavailable, UsageError)) as raised:
                client.check_permissions()
            assert "returned an unsafe URL" in str(raised.value)
            base = proxy.url.removeprefix("http://")
            signed = f"http://{evil.url.removeprefix('http://')}\\@{base}/f"
            with pytest.raises(Unavailable, match="returned an unsafe URL"):
                client.upload(UploadTarget(signed, 1), MANIFEST, NoProgress())
        assert evil.connections == 0


def test_a_redirect_of_the_storage_to_no_tls_is_not_followed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.folder / "ca.pem"))
    leave = At("PUT", act.redirect(307, "http://127.0.0.1:{port}/f"))
    with fault_proxy(NOBODY, leave, scheme="https", accept=handshake(world, "good")) as proxy:
        target = UploadTarget(f"{proxy.url}/f", 1)
        with pytest.raises(UsageError, match="returned a URL without TLS"):
            instance_at(proxy.url).upload(target, MANIFEST, NoProgress())
        assert proxy.count("PUT") == 1


def test_a_handshake_that_is_cut_is_tried_again() -> None:
    with fault_proxy(NOBODY, scheme="https", accept=act.hang_up(99)) as proxy:
        with pytest.raises(Unavailable, match=r"TLS handshake|closed the connection unexpectedly"):
            instance_at(proxy.url).check_credentials()
        assert proxy.connections > 1


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_file_of_authorities_is_looked_at_first(name: str, tmp_path: Path) -> None:
    assert find_ca_bundle({}) is None
    assert find_ca_bundle({name: str(tmp_path)}) == str(tmp_path)  # a folder, as c_rehash makes it
    with pytest.raises(UsageError, match=f"{name} names .*, which is not there"):
        find_ca_bundle({name: str(tmp_path / "missing")})
    (tmp_path / "notes").write_text("no certificate", encoding="utf-8")
    with pytest.raises(UsageError, match=r"which holds no certificate to read \(PEM\)"):
        find_ca_bundle({name: str(tmp_path / "notes")})
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UsageError, match=f"{name} names .*, which is not a file"):
            find_ca_bundle({name: str(tmp_path / "pipe")})


def test_without_truststore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "truststore", None)
    monkeypatch.setenv("DATAPILOT_SYSTEM_CERTIFICATES", "1")
    with pytest.raises(UsageError, match=r"pip install 'datapilot-defer\[truststore\]'"):
        instance_at(NOBODY)
