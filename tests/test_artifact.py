"""Reading of artifacts and their metadata, and errors for unreadable files."""

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


def test_artifact_has_original_bytes_and_parsed_metadata() -> None:
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


def test_repr_omits_content() -> None:
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
def test_all_timestamp_formats_of_dbt_are_parsed(written: str, microsecond: int) -> None:
    content = f'{{"metadata": {{"generated_at": "{written}"}}}}'.encode()
    generated_at = parse_artifact(content, path="x", kind=Kind.MANIFEST).metadata.generated_at
    assert generated_at == datetime(2026, 11, 22, 10, 44, 33, microsecond, UTC)


@pytest.mark.parametrize(
    "metadata", ["null", "[]", '"x"', '{"generated_at": 5}', '{"generated_at": "yesterday"}', "{}"]
)
def test_invalid_metadata_yields_no_values(metadata: str) -> None:
    artifact = parse_artifact(f'{{"metadata": {metadata}}}'.encode(), path="x", kind=Kind.MANIFEST)
    values = (
        artifact.metadata.generated_at,
        artifact.metadata.schema_version,
        artifact.metadata.dbt_version,
        artifact.metadata.node_count,
    )
    assert values == (None, None, None, None)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"metadata": {"dbt_version": 5}, "nodes": []}']
)
def test_invalid_content_does_not_raise(content: bytes) -> None:
    artifact = parse_artifact(content, path="x", kind=None)
    assert (artifact.kind, artifact.metadata.dbt_version, artifact.metadata.node_count) == (
        Kind.MANIFEST,
        None,
        None,
    )


@pytest.mark.parametrize(
    "name", ["catalog", "run_results", "sources", "semantic_manifest", "manifest of dbt 1.0"]
)
def test_kind_is_detected_from_content(name: str, tmp_path: Path) -> None:
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
def test_kind_is_detected_from_sections_without_metadata(content: bytes, kind: Kind) -> None:
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
def test_kind_is_detected_from_file_name_without_content(path: str, kind: Kind) -> None:
    assert parse_artifact(b"{}", path=path, kind=None).kind is kind


def test_kind_has_dbt_file_name() -> None:
    assert Kind.RUN_RESULTS.file_name == "run_results.json"


def test_missing_file_error_names_searched_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        read_artifact("target/manifest.json")
    where = Path("target/manifest.json")
    assert str(raised.value).startswith(
        f"{where}: no such file (looked in {tmp_path}). Run `dbt parse` to create it"
    )
    with pytest.raises(UsageError, match=r"catalog\.json: no such file$"):
        read_artifact(tmp_path / "catalog.json", Kind.CATALOG)


def test_directory_error_suggests_manifest_inside(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a directory, not a file. It contains no manifest\.json"):
        read_artifact(tmp_path)
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        read_artifact(tmp_path)
    assert (
        str(raised.value)
        == f"{tmp_path}: a directory, not a file. Use {tmp_path / 'manifest.json'}"
    )


@pytest.fixture
def unprivileged_user() -> Iterator[None]:
    """Run the test as an unprivileged user, even if the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
@pytest.mark.parametrize("closed", ["the file", "the directory"])
def test_unreadable_file_error_quotes_operating_system(
    closed: str, unprivileged_user: None
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "manifest.json"
        path.write_text("{}", encoding="utf-8")
        (path if closed == "the file" else path.parent).chmod(0)
        with pytest.raises(UsageError, match="cannot be read: Permission denied"):
            read_artifact(path)
        path.parent.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on a process's memory")
def test_file_larger_than_memory_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # A sparse file, which uses no disk space.
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
    assert done.stdout.strip() == f"{path}: too large to fit in memory", done.stderr


def test_too_large_file_is_rejected_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(UsageError, match=r"has 5,368,709,120 bytes, and the limit is 1,073,741,82"):
        read_artifact(path)
    done = datapilot("dbt", "validate", path)
    assert (done.exit_code, "too large for a file of dbt" in done.stderr) == (2, True)


@posix_only
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_device_is_rejected(device: str, tmp_path: Path) -> None:
    link = tmp_path / "manifest.json"
    link.symlink_to(device)
    for path in (device, link):
        with pytest.raises(UsageError, match=r"not a file or a pipe, but a device"):
            read_artifact(path)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """Yield the path of a pipe without a writer; unblock remaining readers after the test."""
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    yield path
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # There is no reader.
        return


@posix_only
def test_pipe_is_read_to_end(pipe: Path) -> None:
    content = text(2000, 3).encode()
    assert len(content) > 1 << 20
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    artifact = read_artifact(pipe)
    writer.join()
    assert artifact.content == content


@posix_only
def test_validate_reads_shell_pipes() -> None:
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
def test_pipe_without_writer_times_out(pipe: Path) -> None:
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
def test_timeout_option_applies_to_pipes(words: tuple[str | int, ...], pipe: Path) -> None:
    done = datapilot("dbt", *(pipe if word == "PIPE" else word for word in words))
    assert (done.exit_code, "did not end within 1 s" in done.stderr) == (5, True), done.output


@posix_only
def test_endless_pipe_is_rejected(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_impossible_file_name_is_rejected() -> None:
    with pytest.raises(UsageError, match="cannot be read: embedded null"):
        read_artifact("a\0b")


def test_generated_large_manifest_has_requested_nodes() -> None:
    artifact = parse_artifact(text(50, 3).encode(), path="x", kind=Kind.MANIFEST)
    assert (artifact.metadata.node_count, artifact.metadata.schema_version) == (50, 12)
