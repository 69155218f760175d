"""The limit of the bytes that an instance stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import requests

from datapilot_defer.formatting import format_size
from datapilot_defer.instance.retention import apply_retention
from datapilot_defer.instance.services import tokens
from datapilot_defer.instance.services.quota import stored_bytes
from datapilot_defer.instance.settings import InstanceSettings
from tests.support.commands import access, datapilot
from tests.support.instance_calls import (
    SECONDS,
    announce,
    make_integration,
    manifest,
    onboard,
    pull,
    upload,
    wait_until,
)
from tests.support.instances import RunningInstance, running_instance


def large_manifest(body: str = "select 1") -> bytes:
    """Return a manifest that the server begins to receive before it is complete."""
    return manifest(body=body).ljust(20_000)


CONTENT = large_manifest()
SIZE = len(CONTENT)
SIZE_TEXT = format_size(SIZE)


@contextmanager
def limited_instance(data: Path, max_stored_bytes: int) -> Iterator[RunningInstance]:
    """Serve an instance with a limit."""
    settings = InstanceSettings(max_stored_bytes=max_stored_bytes)
    with running_instance(data, settings=settings) as running:
        yield running


def stored_bytes_of(instance: RunningInstance) -> int | None:
    principal = tokens.authenticate_token(instance.storage, instance.token)
    assert principal is not None
    return stored_bytes(instance.storage, principal)


def put_beyond_limit(instance: RunningInstance, integration_id: int, content: bytes) -> str:
    """Announce and PUT a file that exceeds the limit and return the reason in the response."""
    announced = announce(instance, integration_id)
    assert announced.status_code == 200
    answer = requests.put(announced.json()["url"], data=content, timeout=SECONDS)
    assert answer.status_code == 402
    return str(answer.json()["detail"])


def blob_files(instance: RunningInstance) -> list[Path]:
    return [path for path in (instance.data / "blobs").rglob("*") if path.is_file()]


def test_full_instance_rejects_announcement(tmp_path: Path) -> None:
    with limited_instance(tmp_path, SIZE) as instance:
        integration_id = make_integration(instance)
        onboard(instance, integration_id, CONTENT)
        answer = announce(instance, integration_id)
        assert answer.status_code == 402
        assert answer.json()["detail"] == (
            f"the instance stores {SIZE_TEXT} of at most {SIZE_TEXT}. "
            "Ask its administrator to lower --keep or to raise --max-bytes."
        )
        assert pull(instance, integration_id) == CONTENT


def test_bytes_over_limit_are_rejected_and_removed(tmp_path: Path) -> None:
    with limited_instance(tmp_path, 2 * SIZE) as instance:
        integration_id = make_integration(instance)
        onboard(instance, integration_id, CONTENT)
        larger = CONTENT + b" " * SIZE
        reason = put_beyond_limit(instance, integration_id, larger)
        assert f"and this artifact needs {format_size(len(larger))}" in reason
        assert len(blob_files(instance)) == 1
        onboard(instance, integration_id, large_manifest("select 2"))
        assert stored_bytes_of(instance) == 2 * SIZE


def start_upload(instance: RunningInstance, content: bytes) -> HTTPConnection:
    """Send all but the last byte of an upload, and wait until the server has read the header."""
    url = urlsplit(announce(instance, 1).json()["url"])
    connection = HTTPConnection(str(url.hostname), int(url.port or 0), timeout=SECONDS)
    connection.putrequest("PUT", f"{url.path}?{url.query}")
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content[:-1])
    requests.get(f"{instance.url}/health", timeout=SECONDS)
    return connection


def test_upload_without_space_beside_running_uploads_is_deferred(tmp_path: Path) -> None:
    with limited_instance(tmp_path, 2 * SIZE - 1) as instance:
        make_integration(instance)
        with closing(start_upload(instance, CONTENT)) as running:
            url = announce(instance, 1).json()["url"]
            other = large_manifest("select 2")
            answer = requests.put(url, data=other, timeout=SECONDS)
            assert answer.status_code == 503
            assert "Retry-After" in answer.headers
            running.send(CONTENT[-1:])
            assert running.getresponse().status == 200
        assert requests.put(url, data=other, timeout=SECONDS).status_code == 402
        onboard(instance, 1, CONTENT)


def test_interrupted_upload_releases_space(tmp_path: Path) -> None:
    with limited_instance(tmp_path, 2 * SIZE - 1) as instance:
        make_integration(instance)
        start_upload(instance, CONTENT).close()
        url = announce(instance, 1).json()["url"]
        wait_until(lambda: requests.put(url, data=CONTENT, timeout=SECONDS).status_code == 200)


def test_concurrent_uploads_do_not_exceed_limit(tmp_path: Path) -> None:
    with limited_instance(tmp_path, 2 * SIZE) as instance, ExitStack() as stack:
        make_integration(instance)
        contents = [large_manifest(f"select {number}") for number in range(8)]
        running = [
            stack.enter_context(closing(start_upload(instance, content))) for content in contents
        ]
        for connection, content in zip(running, contents, strict=True):
            # The server may have closed the connection of an upload that has no space.
            with suppress(OSError):
                connection.send(content[-1:])
        statuses = [connection.getresponse().status for connection in running]
        assert statuses == [200] * 2 + [503] * 6
        assert stored_bytes_of(instance) == 2 * SIZE


def test_equal_content_is_counted_once(tmp_path: Path) -> None:
    with limited_instance(tmp_path, SIZE + 1) as instance:
        integration_id = make_integration(instance)
        for _ in range(3):
            onboard(instance, integration_id, CONTENT)
        assert stored_bytes_of(instance) == SIZE
        put_beyond_limit(instance, integration_id, manifest("another"))


def test_retention_frees_space(tmp_path: Path) -> None:
    with limited_instance(tmp_path, 2 * SIZE) as instance:
        integration_id = make_integration(instance)
        onboard(instance, integration_id, CONTENT)
        onboard(instance, integration_id, large_manifest("select 2"))
        assert announce(instance, integration_id).status_code == 402
        apply_retention(instance.storage, InstanceSettings(keep_count=1, grace=timedelta(0)))
        assert stored_bytes_of(instance) == SIZE
        onboard(instance, integration_id, manifest(body="select 3"))


def test_sweep_counts_stored_blobs(instance: RunningInstance) -> None:
    integration_id = make_integration(instance)
    upload(instance, integration_id, CONTENT)
    with instance.storage.blobs.open_writer() as writer:
        writer.write(b"without a record")
        writer.commit(1)
    assert stored_bytes_of(instance) == SIZE
    apply_retention(instance.storage, InstanceSettings())
    assert stored_bytes_of(instance) == SIZE + len(b"without a record")


def test_first_sweep_measures_database_of_earlier_release(tmp_path: Path) -> None:
    with limited_instance(tmp_path, SIZE) as instance:
        integration_id = make_integration(instance)
        onboard(instance, integration_id, CONTENT)
        with closing(sqlite3.connect(tmp_path / "records.sqlite3")) as connection:
            connection.execute("UPDATE instance SET stored_bytes = NULL")
            connection.commit()
        assert stored_bytes_of(instance) is None
        onboard(instance, integration_id, CONTENT)
        assert stored_bytes_of(instance) is None
        apply_retention(instance.storage, InstanceSettings())
        assert stored_bytes_of(instance) == SIZE
        assert announce(instance, integration_id).status_code == 402


def test_onboard_reports_limit(tmp_path: Path, artifacts: Path) -> None:
    with limited_instance(tmp_path / "data", SIZE) as instance:
        integration_id = make_integration(instance)
        words = ("--integration-id", integration_id, "--manifest-path", artifacts / "manifest.json")
        done = datapilot("dbt", "onboard", *words, env=access(instance))
        assert done.exit_code == 3
        assert "the quota of the instance is exceeded" in done.stderr
        assert f"the instance stores 0 B of at most {SIZE_TEXT}" in done.stderr
        onboard(instance, integration_id, CONTENT)
        done = datapilot("dbt", "onboard", *words, env=access(instance))
        assert done.exit_code == 3
        assert f"the instance stores {SIZE_TEXT} of at most {SIZE_TEXT}" in done.stderr
