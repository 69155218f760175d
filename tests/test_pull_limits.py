"""Limits of sizes and ids that a pull accepts, and permissions of the files that it writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapilot_defer.artifact import ArtifactMetadata, Kind, Provenance
from datapilot_defer.client import responses
from datapilot_defer.client.connection import InstanceAddress
from datapilot_defer.errors import Unavailable
from datapilot_defer.pull.record import PulledArtifact, StateRecord, parse_record
from datapilot_defer.pull.state_directory import default_state_directory
from tests.support.commands import Outcome, datapilot
from tests.support.protocol_server import ProtocolServer, Reply

pytestmark = pytest.mark.usefixtures("no_retry_delay")
LOCATE = "GET /dbt/v1/fetch_artifact_url"


@pytest.fixture(autouse=True)
def _no_dbt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove dbt from PATH, because a machine that only pulls does not need it."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def hosted(hosted: ProtocolServer, artifacts: Path) -> ProtocolServer:
    """Return a hosted service with a manifest."""
    hosted.uploads[1] = (artifacts / "manifest.json").read_bytes()
    hosted.verified.append(1)
    return hosted


def pull(server: ProtocolServer, directory: Path) -> Outcome:
    options = ("--integration-id", 7, "--output", directory, "--json")
    return datapilot("dbt", "pull", *options, env=server.access)


def file_names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def answer_with(server: ProtocolServer, **fields: object) -> None:
    """Add fields to the response that locates the manifest."""
    location = {
        "url": f"{server.url}/storage/1?signature=s3cret",
        "dbt_core_integration_file_id": 1,
    }
    server.answers[LOCATE] = lambda _: Reply({**location, **fields})


def test_size_over_limit_is_rejected_before_download(
    hosted: ProtocolServer, tmp_path: Path
) -> None:
    answer_with(hosted, size_bytes=10**15)
    done = pull(hosted, tmp_path / "state")
    assert done.exit_code == 5
    assert "has 1,000,000,000,000,000 bytes, more than the 1,073,741,824 bytes" in done.stderr
    assert "GET /storage/1" not in hosted.calls
    assert file_names(tmp_path / "state") == [".datapilot.lock"]


def test_cached_manifest_is_used_if_size_is_over_limit(
    hosted: ProtocolServer, tmp_path: Path
) -> None:
    assert pull(hosted, tmp_path / "state").exit_code == 0
    answer_with(hosted, dbt_core_integration_file_id=2, size_bytes=10**15)
    done = pull(hosted, tmp_path / "state")
    assert (done.exit_code, done.json["offline"]) == (0, True)


def test_download_of_unknown_size_is_limited(
    hosted: ProtocolServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datapilot_defer.client.instance_client.MAX_FILE_BYTES", 1000)
    done = pull(hosted, tmp_path / "state")
    assert (done.exit_code, "sends more than 1,000 bytes" in done.stderr) == (5, True)


@pytest.mark.parametrize(
    ("difference", "message"), [(-1, "sends more than"), (1, "was damaged on the way (")]
)
def test_wrong_size_is_reported(
    difference: int, message: str, hosted: ProtocolServer, tmp_path: Path
) -> None:
    answer_with(hosted, size_bytes=len(hosted.uploads[1]) + difference)
    done = pull(hosted, tmp_path / "state")
    assert (done.exit_code, message in done.stderr) == (5, True), done.stderr
    assert file_names(tmp_path / "state") == [".datapilot.lock"]


@pytest.mark.parametrize("name", ["size_bytes", "dbt_core_integration_file_id"])
@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), 2**63, "9" * 5000, True, "\ud800"])
def test_invalid_id_and_size_are_reported(
    name: str, value: object, hosted: ProtocolServer, tmp_path: Path
) -> None:
    answer_with(hosted, **{name: value})
    done = pull(hosted, tmp_path / "state")
    assert (done.exit_code, f"expected '{name}'" in done.stderr) == (5, True), done.stderr


def test_lone_surrogate_is_replaced_in_record() -> None:
    metadata = ArtifactMetadata(Kind.MANIFEST, "0" * 64, 5)
    artifact = PulledArtifact(metadata, Provenance(commit="c0ffee\ud800"))
    record = parse_record(StateRecord("origin", "PROD", (artifact,)).to_json())
    assert record is not None
    assert record.artifacts[0].provenance.commit == "c0ffee?"


@pytest.mark.parametrize("option", ["--environment", "--integration-name"])
@pytest.mark.parametrize("command", ["pull", "onboard", "integrations show"])
def test_name_must_be_utf_8(command: str, option: str) -> None:
    done = datapilot("dbt", *command.split(" "), option, os.fsdecode(b"\xff"))
    assert (done.exit_code, "the name must be text in UTF-8" in done.stderr) == (2, True), (
        done.stderr
    )


def test_environment_with_lone_surrogate_has_directory() -> None:
    address = InstanceAddress("https://i.example", "acme")
    names = {default_state_directory(address, 1, name, None).name for name in ("\ud800", "\udfff")}
    assert len(names) == 2


def test_number_of_5000_digits_is_reported(hosted: ProtocolServer, tmp_path: Path) -> None:
    body = b'{"url": "http://127.0.0.1/", "dbt_core_integration_file_id": %s}' % (b"9" * 5000)
    hosted.answers[LOCATE] = lambda _: Reply(body)
    done = pull(hosted, tmp_path / "state")
    assert (done.exit_code, "is not JSON" in done.stderr) == (5, True), done.stderr


@pytest.mark.parametrize("value", [-1, 2**63, True, "7", None, 1.5])
def test_created_integration_requires_valid_id(value: object) -> None:
    with pytest.raises(Unavailable, match="did not confirm that it created the integration"):
        responses.parse_created_integration({"dbt_core_integration_id": value})


@pytest.mark.parametrize("option", ["--integration-id", "--file-id"])
@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000, "-1", "0", "1.5", "\u0661\u0662x"])
def test_id_option_accepts_storable_numbers_only(option: str, digits: str) -> None:
    options = {"--integration-id": "1", "--file-id": "1", option: digits}
    done = datapilot("dbt", "pull", *(word for pair in options.items() for word in pair))
    assert done.exit_code == 2
    assert "an ID is an integer from 1 to 9223372036854775807" in done.stderr


@pytest.fixture(params=[0o002, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set and return the umask."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_pulled_files_respect_umask(umask: int, hosted: ProtocolServer, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "state"
    assert pull(hosted, directory).exit_code == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    names = (".datapilot.lock", "datapilot.json", "manifest.json")
    assert modes == dict.fromkeys(names, 0o666 & ~umask)
    for path in (directory, directory.parent):
        assert path.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_lock_file_keeps_permissions(hosted: ProtocolServer, tmp_path: Path) -> None:
    lock = tmp_path / ".datapilot.lock"
    lock.touch()
    lock.chmod(0o640)
    assert pull(hosted, tmp_path).exit_code == 0
    assert lock.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name == "nt", reason="pipes with a path")
@pytest.mark.parametrize("name", ["manifest.json", "datapilot.json"])
def test_pipe_in_cache_is_replaced(name: str, hosted: ProtocolServer, tmp_path: Path) -> None:
    def pull_to_cache() -> Outcome:
        return datapilot("dbt", "pull", "--integration-id", 7, "--json", env=hosted.access)

    path = Path(pull_to_cache().json["state_dir"]) / name
    path.unlink()
    os.mkfifo(path)
    done = pull_to_cache()
    assert (done.exit_code, path.is_file()) == (0, True), done.stderr
