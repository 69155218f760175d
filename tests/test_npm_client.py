"""The unchanged npm package of the VS Code extension as a client of our instance."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.environments import require
from tests.support.instance_calls import make_integration, onboard
from tests.support.instances import RunningInstance

pytestmark = pytest.mark.peer

# The extension passes its settings to the client in code, and so does this program.
PROGRAM = """
const dbtIntegration = require("@altimateai/dbt-integration");
const { AltimateHttpClient, DbtIntegrationClient, DeferConfig } = dbtIntegration;
const { url, token, instance, id, root } = JSON.parse(process.argv[1]);
const nothing = new Proxy({}, { get: () => () => undefined });
const configuration = {
  getAltimateUrl: () => url, getAltimateAiKey: () => token, getAltimateInstanceName: () => instance,
  getIsLocalMode: () => false,
};
const client = new DbtIntegrationClient(new AltimateHttpClient(nothing, configuration), nothing);
const defer = new DeferConfig(true, false, undefined, "remote", id);
(async () => {
  const print = console.log; console.log = () => {};
  try {
    await client.sendDeferToProdEvent("remote");
    const path = await defer.getManifestPath(client, nothing, root);
    print(JSON.stringify({ path, url: (await client.fetchArtifactUrl("manifest", id)).url }));
  } catch (error) {
    print(JSON.stringify({ error: error.message }));
  }
})();
"""


def defer(
    instance: RunningInstance, integration_id: int, directory: Path, token: str | None = None
) -> dict[str, str]:
    node = shutil.which("node")
    modules = require("node") / "node_modules"
    assert node is not None
    directory.mkdir(exist_ok=True)
    values = {
        "url": instance.url,
        "token": token or instance.token,
        "instance": instance.instance_name,
    }
    words = [
        node,
        "-e",
        PROGRAM,
        json.dumps({**values, "id": integration_id, "root": str(directory)}),
    ]
    done = subprocess.run(
        words,
        cwd=directory,
        capture_output=True,
        check=False,
        timeout=60,
        env={"NODE_PATH": str(modules), "TMPDIR": str(directory), "PATH": str(Path(node).parent)},
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, str] = json.loads(done.stdout.decode().splitlines()[-1])
    return answer


def test_client_downloads_current_manifest(
    instance: RunningInstance, tmp_path: Path, artifacts: Path
) -> None:
    integration_id = make_integration(instance)
    content = (artifacts / "manifest.json").read_bytes()
    onboard(instance, integration_id, content)
    answer = defer(instance, integration_id, tmp_path / "project")
    assert "error" not in answer
    assert Path(answer["path"]).read_bytes() == content


def test_client_reports_missing_upload(instance: RunningInstance, tmp_path: Path) -> None:
    answer = defer(instance, make_integration(instance), tmp_path / "project")
    assert answer["error"] == "Resource Not found"


@pytest.mark.parametrize("token", ["dpd_wrong", "x"])
def test_client_reports_wrong_token(instance: RunningInstance, tmp_path: Path, token: str) -> None:
    answer = defer(instance, make_integration(instance), tmp_path / "project", token)
    assert answer["error"].startswith("Invalid credentials")
