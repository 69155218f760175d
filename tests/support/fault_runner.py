"""Run one row of the fault table with its instance, proxy and command."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import trustme

from datapilot_defer.client import retries
from datapilot_defer.client.instance_client import InstanceClient
from datapilot_defer.client.retries import TimeLimits
from datapilot_defer.config import Setting
from datapilot_defer.credentials import Credentials
from datapilot_defer.deadline import Deadline
from tests.support import fault_actions
from tests.support.console import RecordingConsole
from tests.support.fault_proxy import Accept, FaultProxy, fault_proxy
from tests.support.fault_table import Row
from tests.support.instances import RunningInstance
from tests.support.json_contract import check_output

# On a busy machine, a command may exceed its deadline by this time. After that, it hangs.
HANGS_AFTER_S = 20


@dataclass(frozen=True)
class World:
    """The instance, two manifests and the certificates that all rows share."""

    instance: RunningInstance
    old: Path
    new: Path
    directory: Path
    contexts: Mapping[str, ssl.SSLContext] = field(repr=False)

    def access(self, url: str) -> dict[str, str]:
        """Return the environment variables that select this instance at a URL."""
        name, token = self.instance.instance_name, self.instance.token
        return {"ALTIMATE_URL": url, "ALTIMATE_INSTANCE_NAME": name, "ALTIMATE_API_KEY": token}

    def integration(self, name: str) -> int:
        """Create an integration with the old manifest and return its id."""
        created = self._post(
            "project_integration", name=name, environment="PROD", integration_type="dbt_core"
        )
        integration = int(created["dbt_core_integration_id"])
        self.put(integration, self.old)
        return integration

    def put(self, integration: int, file: Path) -> None:
        """Onboard a manifest with plain requests."""
        environment = {
            "dbt_core_integration_id": str(integration),
            "dbt_core_integration_environment_type": "PROD",
        }
        location = requests.get(
            f"{self.instance.url}/dbt/v1/signed_url",
            params={**environment, "file_type": "manifest"},
            headers=self.instance.headers,
            timeout=20,
        ).json()
        requests.put(location["url"], data=file.read_bytes(), timeout=20).raise_for_status()
        self._post(
            "verify_upload", dbt_core_integration_file_id=location["dbt_core_integration_file_id"]
        )

    def current_manifest(self, integration: int) -> str:
        """Return which manifest is current: "old", "new" or a description."""
        answer = requests.get(
            f"{self.instance.url}/dbt/v1/fetch_artifact_url",
            params={"dbt_core_integration_id": str(integration), "artifact_type": "manifest"},
            headers=self.instance.headers,
            timeout=20,
        )
        content = requests.get(answer.json()["url"], timeout=20).content
        known = {self.old.read_bytes(): "old", self.new.read_bytes(): "new"}
        return known.get(content, f"another file: sha256 {hashlib.sha256(content).hexdigest()}")

    def _post(self, path: str, **body: object) -> dict[str, Any]:
        answer = requests.post(
            f"{self.instance.url}/dbt/v1/{path}",
            json=body,
            headers=self.instance.headers,
            timeout=20,
        )
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content


def make_world(instance: RunningInstance, manifest: Path, directory: Path) -> World:
    """Create the manifests and certificates in a new directory."""
    directory.mkdir()
    old, new = directory / "old.json", directory / "new.json"
    old.write_bytes(manifest.read_bytes())
    new.write_bytes(manifest.read_bytes() + b"\n")
    (directory / "notes.txt").write_text("no certificate\n", encoding="utf-8")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    certificates = {
        "good": authority.issue_cert("127.0.0.1", "localhost", "instance.invalid"),
        "expired": authority.issue_cert(
            "127.0.0.1", not_before=long_ago, not_after=long_ago.replace(year=2021)
        ),
        "other host": authority.issue_cert("somewhere.example"),
    }
    return World(
        instance, old, new, directory, {name: _context(each) for name, each in certificates.items()}
    )


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command. exit_code: None if it had to be killed."""

    exit_code: int | None
    seconds: float
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Return standard output followed by standard error."""
        return self.stdout + self.stderr

    @property
    def json(self) -> dict[str, object]:
        """Return the object in the last line of stdout."""
        content: dict[str, object] = json.loads(self.stdout.splitlines()[-1])
        return content


@contextmanager
def proxy_of(world: World, row: Row) -> Iterator[FaultProxy]:
    """Run the proxy with the fault of a row."""
    faults = [row.fault] if row.fault else []
    scheme = "https" if row.tls else "http"
    with fault_proxy(
        world.instance.url,
        *faults,
        scheme=scheme,
        host=row.host,
        accept=_accept(world, row),
        listen_after_s=row.listen_after_s,
    ) as proxy:
        yield proxy


def _accept(world: World, row: Row) -> Accept:
    cut = fault_actions.cut_handshakes(row.handshakes_cut)

    def accept(client: socket.socket) -> socket.socket:
        client = fault_actions.read_silently(client) if row.reads_silently else cut(client)
        if row.tls == "plain http":
            fault_actions.answer_without_tls(client)
        context = world.contexts.get(row.tls)
        return context.wrap_socket(client, server_side=True) if context else client

    return accept


def our_command(world: World, row: Row, integration: int) -> list[str]:
    """Return the command of a row."""
    common = [
        "--integration-id",
        str(integration),
        "--timeout",
        f"{row.timeout_s:g}",
        "--json",
        "-v",
    ]
    common += ["--allow-http"] if row.host == "instance.invalid" else []
    arguments = (
        ["onboard", "--manifest-path", str(world.new)]
        if row.command == "onboard"
        else ["pull", "--output", str(world.directory / f"pulled-{integration}")]
    )
    return [sys.executable, "-m", "datapilot_defer", "dbt", *arguments, *common]


def environ_of(world: World, row: Row, proxy: FaultProxy, home: Path) -> dict[str, str]:
    """Return the environment variables for the command of a row."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
    home.mkdir(exist_ok=True)
    (home / ".netrc").write_text(row.netrc, encoding="utf-8")
    (home / ".netrc").chmod(0o600)
    port = urlsplit(proxy.url).port
    ca, notes = world.directory / "ca.pem", world.directory / "notes.txt"
    variables = {
        name: value.format(ca=ca, notes=notes, closed=closed, url=f"http://127.0.0.1:{port}")
        for name, value in row.environ.items()
    }
    return {
        **os.environ,
        "HOME": str(home),
        "USERPROFILE": str(home),
        **world.access(proxy.url),
        **variables,
    }


def run(
    command: Sequence[str], environ: Mapping[str, str], *, kill_after_s: float
) -> CommandResult:
    """Run a command, and kill it after `kill_after_s`."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    code: int | None
    try:
        stdout, stderr = process.communicate(timeout=kill_after_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        code = None
    check_output(command[3:], stdout, code)  # The words before are "python -m datapilot_defer".
    return CommandResult(code, time.monotonic() - started, stdout, stderr)


def instance_at(url: str, instance_name: str = "acme", token: str = "") -> InstanceClient:
    """Return a client with a deadline of 20 s that retries for 0.5 s."""
    credentials = Credentials(
        *(Setting(value, "the test") for value in (url, instance_name, token))
    )
    limits = TimeLimits(Deadline(20), retry_s=0.5, read_timeout_s=retries.READ_TIMEOUT_S)
    return InstanceClient(credentials, limits=limits, log=RecordingConsole())
