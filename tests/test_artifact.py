"""What an artifact says about itself, and what reading one says when it cannot be read."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from datapilot_defer.artifact import Kind, parse_artifact, read_artifact
from datapilot_defer.deadline import Deadline
from datapilot_defer.errors import Unavailable, UsageError
from tests.support.commands import datapilot
from tests.support.large_manifest import text

posix_only = pytest.mark.skipif(os.name == "nt", reason="pipes and devices with a path")
GOOD = Path(__file__).parent / "artifacts" / "good"


def test_an_artifact_keeps_the_bytes_and_tells_what_its_metadata_says() -> None:
    path = GOOD / "manifest of dbt 1.11.json"
    artifact = read_artifact(path)
    assert artifact.content == path.read_bytes()
    assert artifact.metadata.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert artifact.metadata.size_bytes == path.stat().st_size
    assert (artifact.kind, artifact.path) == (Kind.MANIFEST, str(path))
    assert (artifact.metadata.schema_version, artifact.metadata.dbt_version) == (12, "1.11.16")
    assert (
        artifact.metadata.project_name,
        artifact.metadata.adapter_type,
        artifact.metadata.node_count,
    ) == (
        "warehouse",
        "duckdb",
        2,
    )
    assert artifact.metadata.generated_at == datetime(2026, 11, 22, 10, 44, 33, 741559, UTC)
    assert artifact.metadata.invocation_id == "652de556-11cd-4687-8317-7c928b732889"


def test_the_content_is_not_in_the_repr() -> None:
    assert len(repr(read_artifact(GOOD / "manifest of dbt 1.11.json"))) < 1000


@pytest.mark.parametrize(
    ("written", "microsecond"),
    [
        ("2026-11-22T10:44:33Z", 0),
        ("2026-11-22T10:44:33", 0),
        ("2026-11-22T10:44:33.5Z", 500_000),
        ("2026-11-22T10:44:33.741559+00:00", 741_559),
        ("2026-11-22T10:44:33.741559812Z", 741_559),
        ("2026-11-22T12:44:33.25+02:00", 250_000),
    ],
)
def test_every_spelling_of_a_time_that_some_dbt_wrote_is_read(
    written: str, microsecond: int
) -> None:
    content = f'{{"metadata": {{"generated_at": "{written}"}}}}'.encode()
    found = parse_artifact(content, path="x", kind=Kind.MANIFEST).metadata.generated_at
    assert found == datetime(2026, 11, 22, 10, 44, 33, microsecond, UTC)


@pytest.mark.parametrize(
    "metadata", ["null", "[]", '"x"', '{"generated_at": 5}', '{"generated_at": "yesterday"}', "{}"]
)
def test_metadata_that_says_nothing_gives_nothing(metadata: str) -> None:
    artifact = parse_artifact(f'{{"metadata": {metadata}}}'.encode(), path="x", kind=Kind.MANIFEST)
    told = (
        artifact.metadata.generated_at,
        artifact.metadata.schema_version,
        artifact.metadata.dbt_version,
        artifact.metadata.node_count,
    )
    assert told == (None, None, None, None)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"metadata": {"dbt_version": 5}, "nodes": []}']
)
def test_no_bytes_are_bad_enough_to_raise(content: bytes) -> None:
    artifact = parse_artifact(content, path="x", kind=None)
    assert (artifact.kind, artifact.metadata.dbt_version, artifact.metadata.node_count) == (
        Kind.MANIFEST,
        None,
        None,
    )


@pytest.mark.parametrize(
    "name", ["catalog", "run_results", "sources", "semantic_manifest", "manifest of dbt 1.0"]
)
def test_a_kind_is_recognised_by_the_content(name: str, tmp_path: Path) -> None:
    path = tmp_path / "artifact.json"
    path.write_bytes((GOOD / f"{name}.json").read_bytes())
    assert read_artifact(path, kind=None).kind is Kind(name.split(" ")[0])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"nodes": {}, "macros": {}}', Kind.MANIFEST),
        (b'{"nodes": {}, "sources": {}, "errors": null}', Kind.CATALOG),
        (b'{"results": [], "elapsed_time": 1, "args": {}}', Kind.RUN_RESULTS),
    ],
)
def test_without_metadata_the_sections_tell_the_kind(content: bytes, kind: Kind) -> None:
    assert parse_artifact(content, path="x.json", kind=None).kind is kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("target/catalog.json", Kind.CATALOG),
        (r"target\run_results.json", Kind.RUN_RESULTS),
        ("run-results.json", Kind.RUN_RESULTS),
        ("x.json", Kind.MANIFEST),
    ],
)
def test_what_says_nothing_about_itself_is_what_its_name_says(path: str, kind: Kind) -> None:
    assert parse_artifact(b"{}", path=path, kind=None).kind is kind


def test_a_kind_knows_the_name_of_dbts_file() -> None:
    assert Kind.RUN_RESULTS.file_name == "run_results.json"


def test_a_missing_file_is_looked_for_in_a_folder_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as refused:
        read_artifact("target/manifest.json")
    where = Path("target/manifest.json")
    assert str(refused.value).startswith(
        f"{where}: no such file (looked in {tmp_path}). Run `dbt parse` to create it"
    )
    with pytest.raises(UsageError, match=r"catalog\.json: no such file$"):
        read_artifact(tmp_path / "catalog.json", Kind.CATALOG)


def test_a_folder_is_refused_with_the_file_that_was_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a directory. It contains no manifest\.json"):
        read_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        read_artifact(tmp_path)
    assert str(refused.value) == f"{tmp_path}: is a directory. Use {tmp_path / 'manifest.json'}"


@pytest.fixture
def nobody() -> Iterator[None]:
    """Be a user who may not read everything, also where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="on Windows folders decide who may read")
@pytest.mark.parametrize("closed", ["the file", "the folder"])
def test_what_may_not_be_read_is_refused_with_the_systems_words(closed: str, nobody: None) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.json"
        path.write_text("{}", encoding="utf-8")
        (path if closed == "the file" else path.parent).chmod(0)
        with pytest.raises(UsageError, match="cannot be read: Permission denied"):
            read_artifact(path)
        path.parent.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on a process's memory")
def test_a_file_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # a hole: takes no room on the disk
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\n"
        "from datapilot_defer.artifact import read_artifact\n"
        "from datapilot_defer.errors import UsageError\n"
        "try: read_artifact(sys.argv[1])\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == f"{path}: is too large for the memory of this machine", (
        done.stderr
    )


def test_a_file_that_is_too_large_for_dbt_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(UsageError, match=r"has 5,368,709,120 bytes, and the limit is 1,073,741,82"):
        read_artifact(path)
    done = datapilot("dbt", "validate", path)
    assert (done.exit_code, "too large for a file of dbt" in done.stderr) == (2, True)


@posix_only
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device: str, tmp_path: Path) -> None:
    link = tmp_path / "manifest.json"
    link.symlink_to(device)
    for path in (device, link):
        with pytest.raises(UsageError, match=r"is a device\. Use the path of a file or a pipe"):
            read_artifact(path)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """Return the path of a pipe without a writer. Whoever still waits for one ends with the test.

    Nobody waits if nothing can open it.
    """
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    yield path
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return


@posix_only
def test_a_pipe_is_read_to_its_end(pipe: Path) -> None:
    content = text(2000, 3).encode()
    assert len(content) > 1 << 20
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    artifact = read_artifact(pipe)
    writer.join()
    assert artifact.content == content


@posix_only
def test_a_pipe_of_a_shell_is_validated() -> None:
    command = f"'{sys.executable}' -m datapilot_defer dbt validate <(cat \"$1\") /dev/stdin"
    file = GOOD / "manifest of dbt 1.11.json"
    done = subprocess.run(
        ["bash", "-c", f'cat "$1" | {command}', "bash", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.count(": accepted: manifest")) == (0, 2), done.stderr


@posix_only
def test_a_pipe_that_nobody_writes_to_ends_at_the_time_limit(pipe: Path) -> None:
    with pytest.raises(Unavailable, match=r"reading .*pipe\.json did not end within 0\.2 s"):
        read_artifact(pipe, deadline=Deadline(0.2))


@posix_only
@pytest.mark.parametrize(
    "words",
    [
        ("validate", "PIPE", "--timeout", 1),
        ("onboard", "--integration-id", 1, "--manifest-path", "PIPE", "--timeout", 1),
    ],
)
def test_the_option_timeout_holds_for_pipes(words: tuple[str | int, ...], pipe: Path) -> None:
    done = datapilot("dbt", *(pipe if word == "PIPE" else word for word in words))
    assert (done.exit_code, "did not end within 1 s" in done.stderr) == (5, True), done.output


@posix_only
def test_an_endless_pipe_is_refused(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datapilot_defer.dbt_file.MAX_FILE_BYTES", 3_000_000)

    def write() -> None:
        with suppress(BrokenPipeError), pipe.open("wb", buffering=0) as file:
            while True:
                file.write(b" " * 100_000)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(UsageError, match="it has more bytes, and the limit is 3,000,000 bytes"):
        read_artifact(pipe)
    writer.join()


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read: embedded null"):
        read_artifact("a\0b")


def test_the_generated_large_manifest_has_as_many_nodes_as_wanted() -> None:
    artifact = parse_artifact(text(50, 3).encode(), path="x", kind=Kind.MANIFEST)
    assert (artifact.metadata.node_count, artifact.metadata.schema_version) == (50, 12)
