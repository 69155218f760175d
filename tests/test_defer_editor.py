"""Settings shared with the VS Code extension, whose engine reads them in Node."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import access, datapilot
from tests.support.dbt_project import PROJECT
from tests.support.environments import require
from tests.support.instances import RunningInstance

# The extension finds the project's entry by path.relative and passes it to DeferConfig.
ENGINE = """
const path = require("path"), fs = require("fs");
const { AltimateHttpClient, DbtIntegrationClient, DeferConfig } =
  require("@altimateai/dbt-integration");
const { url, token, instance, workspace, project } = JSON.parse(process.argv[1]);
const nothing = new Proxy({}, { get: () => () => undefined });
const configuration = {
  getAltimateUrl: () => url, getAltimateAiKey: () => token, getAltimateInstanceName: () => instance,
  getIsLocalMode: () => false,
};
const file = path.join(workspace, ".vscode", "settings.json");
const settings = JSON.parse(fs.readFileSync(file, "utf8"));
const entry = settings["dbt.deferConfigPerProject"][path.relative(workspace, project)];
const resolved = (entry.manifestPathForDeferral || "").replace("${workspaceFolder}", workspace);
const client = new DbtIntegrationClient(new AltimateHttpClient(nothing, configuration), nothing);
const config = new DeferConfig(
  entry.deferToProduction, entry.favorState, resolved, entry.manifestPathType,
  entry.dbtCoreIntegrationId
);
(async () => {
  const print = console.log; console.log = () => {};
  const folder = await config.getArtifactDirectory(client, nothing, project);
  print(JSON.stringify({ folder, enabled: config.deferToProduction, favor: config.favorState }));
})();
"""
# The extension's panel changes one value and copies the other keys of the entry, including ours.
PANEL = """
const path = require("path"), fs = require("fs");
const { workspace, project, key, value } = JSON.parse(process.argv[1]);
const file = path.join(workspace, ".vscode", "settings.json");
const settings = fs.existsSync(file) ? JSON.parse(fs.readFileSync(file, "utf8")) : {};
const current = settings["dbt.deferConfigPerProject"] || {};
const root = path.relative(workspace, project);
settings["dbt.deferConfigPerProject"] = { ...current, [root]: { ...current[root], [key]: value } };
fs.mkdirSync(path.dirname(file), { recursive: true });
fs.writeFileSync(file, JSON.stringify(settings, null, 4));
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workspace with the project `shop`, the current directory. No dbt on PATH."""
    (tmp_path / "work" / ".vscode").mkdir(parents=True)
    shutil.copytree(PROJECT, tmp_path / "work" / "dbt" / "shop")
    monkeypatch.chdir(tmp_path / "work" / "dbt" / "shop")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "work"


@pytest.fixture
def onboarded(
    instance: RunningInstance, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningInstance:
    """Set the environment variables of an instance whose integration 1 has the manifest."""
    for name, value in access(instance).items():
        monkeypatch.setenv(name, value)
    datapilot("dbt", "integrations", "create", "--name", "shop", "--environment", "PROD")
    assert (
        datapilot(
            "dbt", "onboard", "--integration-id", 1, "--manifest-path", artifacts / "manifest.json"
        ).exit_code
        == 0
    )
    return instance


def node(program: str, workspace: Path, **values: object) -> Any:
    """Run a program in Node with the extension's packages and return the JSON that it prints."""
    executable = shutil.which("node", path="/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin")
    modules = require("node") / "node_modules"
    if executable is None:
        pytest.skip("Node is not installed")
    words = [
        executable,
        "-e",
        program,
        json.dumps({"workspace": str(workspace), "project": str(Path.cwd()), **values}),
    ]
    env = {
        "NODE_PATH": str(modules),
        "TMPDIR": str(workspace.parent),
        "PATH": str(Path(executable).parent),
    }
    done = subprocess.run(words, env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout else None


def run_engine(workspace: Path, instance: RunningInstance) -> Any:
    values = {"url": instance.url, "token": instance.token, "instance": instance.instance_name}
    return node(ENGINE, workspace, **values)


def manifest_sha256(directory: object) -> str:
    return hashlib.sha256((Path(str(directory)) / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.peer
def test_engine_defers_to_manifest_that_enable_pulled(
    workspace: Path, onboarded: RunningInstance
) -> None:
    done = datapilot(
        "dbt",
        "defer",
        "enable",
        "--integration-id",
        1,
        "--environment",
        "PROD",
        "--favor-state",
        "--json",
    )
    assert done.exit_code == 0, done.output
    entry = json.loads((workspace / ".vscode" / "settings.json").read_bytes())[
        "dbt.deferConfigPerProject"
    ]
    assert entry == {
        str(Path("dbt", "shop")): {
            "deferToProduction": True,
            "favorState": True,
            "manifestPathType": "remote",
            "dbtCoreIntegrationId": 1,
            "environment": "PROD",
        }
    }
    result = run_engine(workspace, onboarded)
    assert (result["enabled"], result["favor"]) == (True, True)
    assert manifest_sha256(result["folder"]) == manifest_sha256(done.json["state_dir"])
    assert datapilot("dbt", "defer", "disable").exit_code == 0
    assert run_engine(workspace, onboarded)["enabled"] is False


@pytest.mark.peer
def test_engine_uses_directory_that_enable_stored(
    workspace: Path, onboarded: RunningInstance
) -> None:
    prod = workspace / "prod"
    assert datapilot("dbt", "pull", "--integration-id", 1, "--output", prod).exit_code == 0
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert run_engine(workspace, onboarded)["folder"] == str(prod)


@pytest.mark.peer
def test_status_reads_single_keys_written_by_panel(
    workspace: Path, onboarded: RunningInstance
) -> None:
    for key, value in (
        ("manifestPathType", "remote"),
        ("dbtCoreIntegrationId", 1),
        ("deferToProduction", True),
    ):
        node(PANEL, workspace, key=key, value=value)
    result = datapilot("dbt", "defer", "status", "--json").json
    assert (result["enabled"], result["mode"], result["integration_id"]) == (True, "integration", 1)
    assert (result["favor_state"], result["environment"]) == (False, None)
    assert manifest_sha256(result["state_dir"]) == manifest_sha256(
        run_engine(workspace, onboarded)["folder"]
    )


@pytest.mark.peer
def test_panel_keeps_our_key(workspace: Path, onboarded: RunningInstance) -> None:
    assert (
        datapilot(
            "dbt", "defer", "enable", "--integration-id", 1, "--environment", "prod"
        ).exit_code
        == 0
    )
    node(PANEL, workspace, key="favorState", value=True)
    result = datapilot("dbt", "defer", "status", "--json").json
    assert (result["favor_state"], result["environment"]) == (True, "prod")
    datapilot("dbt", "defer", "enable", "--integration-id", 1)
    assert datapilot("dbt", "defer", "status", "--json").json["environment"] is None


def test_disable_keeps_manifest_source(workspace: Path, onboarded: RunningInstance) -> None:
    datapilot("dbt", "defer", "enable", "--integration-id", 1)
    datapilot("dbt", "defer", "disable")
    off = datapilot("dbt", "defer", "status", "--json")
    assert (off.exit_code, off.json["enabled"], off.json["integration_id"]) == (2, False, 1)
    assert datapilot("dbt", "defer", "enable", "--json").json["integration_id"] == 1


def test_invalid_integration_is_reported_and_not_stored(
    workspace: Path, onboarded: RunningInstance
) -> None:
    for words, code, message in (
        (("--integration-id", 9), 4, "no integration 9"),
        (("--integration-id", 1, "--environment", "QA"), 4, "has no environment QA. It has: PROD"),
        (("--integration-name", "nope"), 4, "no integration is called 'nope'"),
    ):
        done = datapilot("dbt", "defer", "enable", *words)
        assert (done.exit_code, message in done.stderr) == (code, True), done.output
    assert not (workspace / ".vscode" / "settings.json").exists()


def test_offline_status_uses_pulled_manifest(workspace: Path, onboarded: RunningInstance) -> None:
    datapilot("dbt", "defer", "enable", "--integration-name", "shop")
    result = datapilot("dbt", "defer", "status", "--offline", "--json").json
    assert (result["offline"], result["integration_id"]) == (True, 1)


def test_offline_status_accepts_integration_name_option(
    workspace: Path, onboarded: RunningInstance
) -> None:
    words = ("dbt", "defer", "status", "--integration-name", "shop", "--json")
    datapilot(*words)
    result = datapilot(*words, "--offline").json
    assert (result["offline"], result["integration_id"]) == (True, 1)
