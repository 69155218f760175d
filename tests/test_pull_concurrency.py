"""Concurrent pulls and onboardings, during which readers always find a complete manifest."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

from datapilot_defer.artifact import Kind
from datapilot_defer.client.connection import InstanceAddress
from datapilot_defer.files import write_temporary
from datapilot_defer.pull.record import StateRecord
from datapilot_defer.pull.state_directory import StateDirectory, default_state_directory
from tests.support.commands import access, datapilot
from tests.support.instances import RunningInstance
from tests.support.json_contract import check_output

PULLING, ONBOARDING = 20, 5


def test_concurrent_pulls_and_onboardings(
    instance: RunningInstance, artifacts: Path, tmp_path: Path
) -> None:
    env = access(instance)
    assert (
        datapilot(
            "dbt", "integrations", "create", "--name", "shop", "--environment", "PROD", env=env
        ).exit_code
        == 0
    )
    manifests = [_manifest(artifacts, tmp_path, number) for number in range(ONBOARDING + 1)]
    first, *others = manifests
    assert (
        datapilot(
            "dbt", "onboard", "--integration-id", 1, "--manifest-path", first, env=env
        ).exit_code
        == 0
    )
    known = {hashlib.sha256(path.read_bytes()).hexdigest() for path in manifests}
    shared = default_state_directory(
        InstanceAddress(instance.url, instance.instance_name), 1, "PROD", None
    )
    reader = _Reader(shared / "manifest.json", known)
    onboarding = [
        _start(instance, "onboard", "--manifest-path", path, "--force") for path in others
    ]
    # Most processes share the cache directory, like editors and CI jobs. Some have their own.
    pulling = [
        _start(
            instance, "pull", *(["--output", tmp_path / f"own-{number}"] if number % 5 == 0 else [])
        )
        for number in range(PULLING)
    ]
    results = [(child.communicate(), child.returncode) for child in [*onboarding, *pulling]]
    reader.stop()
    assert [code for _, code in results] == [0] * (ONBOARDING + PULLING), [
        streams for streams, code in results if code
    ]
    for (stdout, _), code in results[ONBOARDING:]:
        check_output(["dbt", "pull", "--json"], stdout, code)
    answers = [json.loads(stdout.splitlines()[-1]) for (stdout, _), _ in results[ONBOARDING:]]
    assert {answer["artifacts"][0]["sha256"] for answer in answers} <= known
    for answer in answers:
        assert (
            hashlib.sha256(Path(answer["artifacts"][0]["path"]).read_bytes()).hexdigest() in known
        )
    assert reader.reads > 0
    assert reader.unknown == 0
    last = datapilot(
        "dbt", "pull", "--integration-id", 1, "--environment", "PROD", "--json", env=env
    ).json
    assert (
        hashlib.sha256((shared / "manifest.json").read_bytes()).hexdigest()
        == last["artifacts"][0]["sha256"]
    )
    assert not list(shared.glob("*.tmp"))


def test_reader_never_sees_partial_manifest(tmp_path: Path) -> None:
    contents = [bytes([letter]) * 8_000_000 for letter in b"ab"]
    _replace_manifest(tmp_path, contents[0])
    reader = _Reader(
        tmp_path / "manifest.json", {hashlib.sha256(content).hexdigest() for content in contents}
    )
    for turn in range(60):
        _replace_manifest(tmp_path, contents[turn % 2])
    reader.stop()
    assert reader.reads > 0
    assert reader.unknown == 0


def _replace_manifest(directory: Path, content: bytes) -> None:
    manifest = write_temporary(directory, content)
    record = StateRecord("somewhere", None)
    StateDirectory(directory).replace_artifacts({Kind.MANIFEST: manifest}, record)


class _Reader:
    """A thread that reads the manifest repeatedly without a lock, like dbt."""

    def __init__(self, file: Path, known: set[str]) -> None:
        self._file, self._known, self._ended = file, known, threading.Event()
        self.reads = self.unknown = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.wait(0.001):
            try:
                content = self._file.read_bytes()
            except FileNotFoundError:
                continue
            self.reads += 1
            self.unknown += hashlib.sha256(content).hexdigest() not in self._known


def _start(instance: RunningInstance, command: str, *more: object) -> subprocess.Popen[str]:
    options = ["--integration-id", "1", "--environment", "PROD", "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "datapilot_defer", "dbt", command, *options, *map(str, more)],
        env={**os.environ, **access(instance)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def _manifest(artifacts: Path, directory: Path, number: int) -> Path:
    """Return production's manifest with another invocation and another size."""
    content = json.loads((artifacts / "manifest.json").read_bytes())
    content["metadata"]["invocation_id"] = f"invocation {number}"
    content["docs"]["doc.dbt.__overview__"]["block_contents"] = f"{number} " * 200_000
    path = directory / f"manifest-{number}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
