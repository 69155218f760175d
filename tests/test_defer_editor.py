"""Terminal and editor share one switch: the extension's engine, in Node, reads our settings."""

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

# What the extension does around its engine: find the project's entry by path.relative and pass it
# to DeferConfig.
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
  const said = console.log; console.log = () => {};
  const folder = await config.getArtifactDirectory(client, nothing, project);
  said(JSON.stringify({ folder, enabled: config.deferToProduction, favor: config.favorState }));
})();
"""
# What the panel does when a user changes one thing: the entry is spread, so that our key stays.
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
    """Return a workspace with the shop in it, which is the working folder. No dbt on PATH."""
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


def node(program: str, workspace: Path, **told: object) -> Any:
    """Run a program in Node with the extension's packages; gives what it printed."""
    executable = shutil.which("node", path="/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin")
    modules = require("node") / "node_modules"
    if executable is None:
        pytest.skip("without Node")
    words = [
        executable,
        "-e",
        program,
        json.dumps({"workspace": str(workspace), "project": str(Path.cwd()), **told}),
    ]
    env = {
        "NODE_PATH": str(modules),
        "TMPDIR": str(workspace.parent),
        "PATH": str(Path(executable).parent),
    }
    done = subprocess.run(words, env=env, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout else None


def engine(workspace: Path, instance: RunningInstance) -> Any:
    told = {"url": instance.url, "token": instance.token, "instance": instance.instance_name}
    return node(ENGINE, workspace, **told)


def manifest_of(folder: object) -> str:
    return hashlib.sha256((Path(str(folder)) / "manifest.json").read_bytes()).hexdigest()


@pytest.mark.peer
def test_the_engine_defers_to_the_very_manifest_that_enable_pulled(
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
    said = engine(workspace, onboarded)
    assert (said["enabled"], said["favor"]) == (True, True)
    assert manifest_of(said["folder"]) == manifest_of(done.json["state_dir"])
    assert datapilot("dbt", "defer", "disable").exit_code == 0
    assert engine(workspace, onboarded)["enabled"] is False


@pytest.mark.peer
def test_the_engine_takes_the_folder_that_enable_wrote(
    workspace: Path, onboarded: RunningInstance
) -> None:
    prod = workspace / "prod"
    assert datapilot("dbt", "pull", "--integration-id", 1, "--output", prod).exit_code == 0
    assert datapilot("dbt", "defer", "enable", "--manifest-path", prod).exit_code == 0
    assert engine(workspace, onboarded)["folder"] == str(prod)


@pytest.mark.peer
def test_status_reads_what_the_panel_writes_one_key_at_a_time(
    workspace: Path, onboarded: RunningInstance
) -> None:
    for key, value in (
        ("manifestPathType", "remote"),
        ("dbtCoreIntegrationId", 1),
        ("deferToProduction", True),
    ):
        node(PANEL, workspace, key=key, value=value)
    said = datapilot("dbt", "defer", "status", "--json").json
    assert (said["enabled"], said["mode"], said["integration_id"]) == (True, "integration", 1)
    assert (said["favor_state"], said["environment"]) == (False, None)
    assert manifest_of(said["state_dir"]) == manifest_of(engine(workspace, onboarded)["folder"])


@pytest.mark.peer
def test_our_own_key_survives_the_panel(workspace: Path, onboarded: RunningInstance) -> None:
    assert (
        datapilot(
            "dbt", "defer", "enable", "--integration-id", 1, "--environment", "prod"
        ).exit_code
        == 0
    )
    node(PANEL, workspace, key="favorState", value=True)
    said = datapilot("dbt", "defer", "status", "--json").json
    assert (said["favor_state"], said["environment"]) == (True, "prod")
    datapilot("dbt", "defer", "enable", "--integration-id", 1)
    assert datapilot("dbt", "defer", "status", "--json").json["environment"] is None


def test_a_disabled_entry_keeps_where_the_manifest_comes_from(
    workspace: Path, onboarded: RunningInstance
) -> None:
    datapilot("dbt", "defer", "enable", "--integration-id", 1)
    datapilot("dbt", "defer", "disable")
    off = datapilot("dbt", "defer", "status", "--json")
    assert (off.exit_code, off.json["enabled"], off.json["integration_id"]) == (2, False, 1)
    assert datapilot("dbt", "defer", "enable", "--json").json["integration_id"] == 1


def test_what_is_wrong_with_an_integration_is_said_and_nothing_is_stored(
    workspace: Path, onboarded: RunningInstance
) -> None:
    for words, code, says in (
        (("--integration-id", 9), 4, "no integration 9"),
        (("--integration-id", 1, "--environment", "QA"), 4, "has no environment QA. It has: PROD"),
        (("--integration-name", "nope"), 4, "no integration is called 'nope'"),
    ):
        done = datapilot("dbt", "defer", "enable", *words)
        assert (done.exit_code, says in done.stderr) == (code, True), done.output
    assert not (workspace / ".vscode" / "settings.json").exists()


def test_status_goes_on_with_what_was_pulled_when_it_is_told_to_stay_offline(
    workspace: Path, onboarded: RunningInstance
) -> None:
    datapilot("dbt", "defer", "enable", "--integration-name", "shop")
    said = datapilot("dbt", "defer", "status", "--offline", "--json").json
    assert (said["offline"], said["integration_id"]) == (True, 1)


def test_an_integration_that_is_named_for_this_once_is_known_offline(
    workspace: Path, onboarded: RunningInstance
) -> None:
    words = ("dbt", "defer", "status", "--integration-name", "shop", "--json")
    datapilot(*words)
    said = datapilot(*words, "--offline").json
    assert (said["offline"], said["integration_id"]) == (True, 1)
