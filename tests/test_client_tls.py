"""TLS: trusted authorities, rejected certificates, and the requests that a proxy sees."""

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

CLOSED_URL = "http://127.0.0.1:1"
MANIFEST = parse_artifact(b"{}", path="manifest.json", kind=Kind.MANIFEST)

pytestmark = pytest.mark.usefixtures("no_retry_delay")


def handshake(world: World, certificate: str) -> Accept:
    return lambda client: world.contexts[certificate].wrap_socket(client, server_side=True)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_ca_bundle_variable_is_trusted(
    variable: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(world.directory / "ca.pem"))
    with fault_proxy(world.instance.url, scheme="https", accept=handshake(world, "good")) as proxy:
        instance_at(
            proxy.url, world.instance.instance_name, world.instance.token
        ).check_credentials()


def test_system_certificates_are_trusted_on_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPILOT_SYSTEM_CERTIFICATES", "1")
    with fault_proxy(world.instance.url, scheme="https", accept=handshake(world, "good")) as proxy:
        with pytest.raises(Unavailable, match="not signed by a trusted authority"):
            instance_at(proxy.url).check_credentials()
        # OpenSSL reads the system's authorities from this file.
        monkeypatch.setenv("SSL_CERT_FILE", str(world.directory / "ca.pem"))
        instance_at(
            proxy.url, world.instance.instance_name, world.instance.token
        ).check_credentials()


def test_https_proxy_sees_host_but_no_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.directory / "ca.pem"))
    with (
        fault_proxy(
            world.instance.url,
            scheme="https",
            host="instance.invalid",
            accept=handshake(world, "good"),
        ) as instance,
        fault_proxy(CLOSED_URL, At("CONNECT", act.tunnel)) as proxy_server,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy_server.url)
        instance_at(
            instance.url, world.instance.instance_name, world.instance.token
        ).check_credentials()
        assert proxy_server.heads[0].startswith(
            f"CONNECT {instance.url.removeprefix('https://')} HTTP"
        )
        assert (len(proxy_server.heads), instance.count("GET")) == (1, 1)
        assert world.instance.token not in proxy_server.heads[0]


def test_the_authorities_of_the_system_are_asked_behind_a_proxy_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATAPILOT_SYSTEM_CERTIFICATES", "1")
    monkeypatch.setenv("SSL_CERT_FILE", str(world.directory / "ca.pem"))  # OpenSSL's system store
    monkeypatch.setattr("datapilot_defer.client.certificates.find_ca_bundle", lambda _: None)
    target = fault_proxy(
        world.instance.url,
        scheme="https",
        host="instance.invalid",
        accept=handshake(world, "good"),
    )
    with target as instance, fault_proxy(CLOSED_URL, At("CONNECT", act.tunnel)) as between:
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
def test_rejected_certificate_error_states_reason(
    certificate: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if certificate != "good":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.directory / "ca.pem"))
    with fault_proxy(CLOSED_URL, scheme="https", accept=handshake(world, certificate)) as proxy:
        with pytest.raises(Unavailable) as raised:
            instance_at(proxy.url).check_credentials()
        assert CERTIFICATES[certificate] in str(raised.value)
        assert proxy.connections == 1  # A retry cannot help.


def test_port_without_tls_is_reported() -> None:
    def misunderstand(client: socket.socket) -> socket.socket:
        act.answer_without_tls(client)
        return client

    proxy = fault_proxy(CLOSED_URL, scheme="https", accept=misunderstand)
    with (
        proxy as running,
        pytest.raises(Unavailable, match=r"does not use TLS\. Check the scheme and the port"),
    ):
        instance_at(running.url).check_credentials()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_instance_bypasses_proxy(
    world: World, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(CLOSED_URL) as proxy_server:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy_server.url)
        url = world.instance.url.replace("127.0.0.1", host)
        instance_at(url, world.instance.instance_name, world.instance.token).check_credentials()
        assert proxy_server.connections == 0


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:1", "http://localhost:1", "http://10.0.0.1"]
)
def test_signed_url_without_tls_is_rejected(world: World, base_url: str) -> None:
    client = instance_at("https://instance.invalid")
    with pytest.raises(UsageError) as e:
        client.upload(UploadTarget(f"{base_url}/f?signature=s3cret", 1), MANIFEST, NoProgress())
    message = str(e.value)
    assert f"https://instance.invalid returned a URL without TLS, {base_url}" in message
    assert "--public-url https://instance.invalid" in message
    assert "--behind-proxy" in message
    assert "s3cret" not in message


def test_api_redirect_to_http_names_option_to_fix(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.directory / "ca.pem"))
    leave = At("GET", act.redirect(307, "http://127.0.0.1:{port}/x"))
    with fault_proxy(CLOSED_URL, leave, scheme="https", accept=handshake(world, "good")) as proxy:
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
def test_url_that_hides_host_is_rejected(location: str) -> None:
    with fault_proxy(CLOSED_URL) as evil:
        leave = act.redirect(
            307,
            location.replace("{base}", "127.0.0.1:{port}").replace(
                "{evil}", evil.url.removeprefix("http://")
            ),
        )
        with fault_proxy(CLOSED_URL, At("", leave)) as proxy:
            client = instance_at(proxy.url)
            with pytest.raises((Unavailable, UsageError)) as raised:
                client.check_permissions()
            assert "returned an unsafe URL" in str(raised.value)
            base = proxy.url.removeprefix("http://")
            signed = f"http://{evil.url.removeprefix('http://')}\\@{base}/f"
            with pytest.raises(Unavailable, match="returned an unsafe URL"):
                client.upload(UploadTarget(signed, 1), MANIFEST, NoProgress())
        assert evil.connections == 0


def test_storage_redirect_to_http_is_rejected(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.directory / "ca.pem"))
    leave = At("PUT", act.redirect(307, "http://127.0.0.1:{port}/f"))
    with fault_proxy(CLOSED_URL, leave, scheme="https", accept=handshake(world, "good")) as proxy:
        target = UploadTarget(f"{proxy.url}/f", 1)
        with pytest.raises(UsageError, match="returned a URL without TLS"):
            instance_at(proxy.url).upload(target, MANIFEST, NoProgress())
        assert proxy.count("PUT") == 1


def test_interrupted_handshake_is_retried() -> None:
    with fault_proxy(CLOSED_URL, scheme="https", accept=act.cut_handshakes(99)) as proxy:
        with pytest.raises(Unavailable, match=r"TLS handshake|closed the connection unexpectedly"):
            instance_at(proxy.url).check_credentials()
        assert proxy.connections > 1


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_ca_bundle_file_is_checked(name: str, tmp_path: Path) -> None:
    assert find_ca_bundle({}) is None
    assert find_ca_bundle({name: str(tmp_path)}) == str(
        tmp_path
    )  # A directory, as made by c_rehash.
    with pytest.raises(UsageError, match=f"{name} contains .*, which does not exist"):
        find_ca_bundle({name: str(tmp_path / "missing")})
    (tmp_path / "notes").write_text("no certificate", encoding="utf-8")
    with pytest.raises(UsageError, match=r"which has no certificate in PEM format"):
        find_ca_bundle({name: str(tmp_path / "notes")})
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UsageError, match=f"{name} contains .*, which is not a file"):
            find_ca_bundle({name: str(tmp_path / "pipe")})


def test_missing_truststore_error_names_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "truststore", None)
    monkeypatch.setenv("DATAPILOT_SYSTEM_CERTIFICATES", "1")
    with pytest.raises(UsageError, match=r"pip install 'datapilot-defer\[truststore\]'"):
        instance_at(CLOSED_URL)
