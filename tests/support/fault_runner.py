"""Run one row of the fault table: its instance and proxy, the command, and the outcome."""

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

# After its deadline, a command may need this long on a busy machine; later, it hangs.
HANGS_AFTER_S = 20


@dataclass(frozen=True)
class World:
    """The instance, the old and the new manifest, and the certificates that all rows share."""

    instance: RunningInstance
    old: Path
    new: Path
    folder: Path
    contexts: Mapping[str, ssl.SSLContext] = field(repr=False)

    def access(self, url: str) -> dict[str, str]:
        """Return the environment variables that select this instance at a URL."""
        name, token = self.instance.instance_name, self.instance.token
        return {"ALTIMATE_URL": url, "ALTIMATE_INSTANCE_NAME": name, "ALTIMATE_API_KEY": token}

    def integration(self, name: str) -> int:
        """Create an integration with the old manifest and return its id."""
        made = self._post(
            "project_integration", name=name, environment="PROD", integration_type="dbt_core"
        )
        integration = int(made["dbt_core_integration_id"])
        self.put(integration, self.old)
        return integration

    def put(self, integration: int, file: Path) -> None:
        """Onboard a manifest with plain requests."""
        where = {
            "dbt_core_integration_id": str(integration),
            "dbt_core_integration_environment_type": "PROD",
        }
        place = requests.get(
            f"{self.instance.url}/dbt/v1/signed_url",
            params={**where, "file_type": "manifest"},
            headers=self.instance.headers,
            timeout=20,
        ).json()
        requests.put(place["url"], data=file.read_bytes(), timeout=20).raise_for_status()
        self._post(
            "verify_upload", dbt_core_integration_file_id=place["dbt_core_integration_file_id"]
        )

    def holds(self, integration: int) -> str:
        """Return which manifest is current: "old", "new" or a description."""
        answer = requests.get(
            f"{self.instance.url}/dbt/v1/fetch_artifact_url",
            params={"dbt_core_integration_id": str(integration), "artifact_type": "manifest"},
            headers=self.instance.headers,
            timeout=20,
        )
        content = requests.get(answer.json()["url"], timeout=20).content
        known = {self.old.read_bytes(): "old", self.new.read_bytes(): "new"}
        return known.get(content, f"something else: sha256 {hashlib.sha256(content).hexdigest()}")

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


def make_world(instance: RunningInstance, manifest: Path, folder: Path) -> World:
    """Create the manifests and certificates in a new directory."""
    folder.mkdir()
    old, new = folder / "old.json", folder / "new.json"
    old.write_bytes(manifest.read_bytes())
    new.write_bytes(manifest.read_bytes() + b"\n")
    (folder / "notes.txt").write_text("no certificate\n", encoding="utf-8")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    certificates = {
        "good": authority.issue_cert("127.0.0.1", "localhost", "instance.invalid"),
        "expired": authority.issue_cert(
            "127.0.0.1", not_before=long_ago, not_after=long_ago.replace(year=2021)
        ),
        "other host": authority.issue_cert("somewhere.example"),
    }
    return World(
        instance, old, new, folder, {name: _context(each) for name, each in certificates.items()}
    )


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@dataclass(frozen=True)
class Ended:
    """Outcome of a command. exit_code: None if it had to be killed."""

    exit_code: int | None
    seconds: float
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """Both streams."""
        return self.stdout + self.stderr

    @property
    def json(self) -> dict[str, object]:
        """The object in the last line of stdout."""
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
    cut = fault_actions.hang_up(row.handshakes_cut)

    def accept(client: socket.socket) -> socket.socket:
        client = fault_actions.swallow(client) if row.swallows else cut(client)
        if row.tls == "plain http":
            fault_actions.misunderstand(client)
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
    what = (
        ["onboard", "--manifest-path", str(world.new)]
        if row.command == "onboard"
        else ["pull", "--output", str(world.folder / f"pulled-{integration}")]
    )
    return [sys.executable, "-m", "datapilot_defer", "dbt", *what, *common]


def environ_of(world: World, row: Row, proxy: FaultProxy, home: Path) -> dict[str, str]:
    """Return the environment variables for the command of a row."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
    home.mkdir(exist_ok=True)
    (home / ".netrc").write_text(row.netrc, encoding="utf-8")
    (home / ".netrc").chmod(0o600)
    port = urlsplit(proxy.url).port
    ca, notes = world.folder / "ca.pem", world.folder / "notes.txt"
    given = {
        name: value.format(ca=ca, notes=notes, dead=dead, url=f"http://127.0.0.1:{port}")
        for name, value in row.environ.items()
    }
    return {
        **os.environ,
        "HOME": str(home),
        "USERPROFILE": str(home),
        **world.access(proxy.url),
        **given,
    }


def run(command: Sequence[str], environ: Mapping[str, str], *, kill_after_s: float) -> Ended:
    """Run a command, and kill it after `kill_after_s`."""
    began = time.monotonic()
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
    check_output(command[3:], stdout, code)  # after "python -m datapilot_defer"
    return Ended(code, time.monotonic() - began, stdout, stderr)


def instance_at(url: str, instance_name: str = "acme", token: str = "") -> InstanceClient:
    """Return an instance in this process. It allows 20 s in all and retries for 0.5 s."""
    found = Credentials(*(Setting(value, "the test") for value in (url, instance_name, token)))
    limits = TimeLimits(Deadline(20), retry_s=0.5, read_timeout_s=retries.READ_TIMEOUT_S)
    return InstanceClient(found, limits=limits, log=RecordingConsole())
