"""The npm package that the VS Code extension defers with, unchanged, against our instance."""

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

# Node has no way to hand a client its settings from outside: this is what the extension does.
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
  const said = console.log; console.log = () => {};
  try {
    await client.sendDeferToProdEvent("remote");
    const path = await defer.getManifestPath(client, nothing, root);
    said(JSON.stringify({ path, url: (await client.fetchArtifactUrl("manifest", id)).url }));
  } catch (error) {
    said(JSON.stringify({ error: error.message }));
  }
})();
"""


def defer(
    instance: RunningInstance, integration_id: int, folder: Path, token: str | None = None
) -> dict[str, str]:
    node = shutil.which("node")
    modules = require("node") / "node_modules"
    assert node is not None
    folder.mkdir(exist_ok=True)
    told = {
        "url": instance.url,
        "token": token or instance.token,
        "instance": instance.instance_name,
    }
    words = [node, "-e", PROGRAM, json.dumps({**told, "id": integration_id, "root": str(folder)})]
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
        env={"NODE_PATH": str(modules), "TMPDIR": str(folder), "PATH": str(Path(node).parent)},
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, str] = json.loads(done.stdout.decode().splitlines()[-1])
    return answer


def test_the_extensions_client_gets_the_current_manifest_byte_for_byte(
    instance: RunningInstance, tmp_path: Path, artifacts: Path
) -> None:
    integration_id = make_integration(instance)
    content = (artifacts / "manifest.json").read_bytes()
    onboard(instance, integration_id, content)
    answer = defer(instance, integration_id, tmp_path / "project")
    assert "error" not in answer
    assert Path(answer["path"]).read_bytes() == content


def test_the_extensions_client_says_that_nothing_was_uploaded(
    instance: RunningInstance, tmp_path: Path
) -> None:
    answer = defer(instance, make_integration(instance), tmp_path / "project")
    assert answer["error"] == "Resource Not found"


@pytest.mark.parametrize("token", ["dpd_wrong", "x"])
def test_the_extensions_client_says_that_the_token_is_wrong(
    instance: RunningInstance, tmp_path: Path, token: str
) -> None:
    answer = defer(instance, make_integration(instance), tmp_path / "project", token)
    assert answer["error"].startswith("Invalid credentials")
