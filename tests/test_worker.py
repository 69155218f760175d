"""Verification in a separate process: failures, limits, replacement and shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from datapilot_defer.artifact import Kind
from datapilot_defer.errors import Unavailable
from datapilot_defer.instance.verification import Verification
from datapilot_defer.instance.worker import VerificationPool, VerificationWorker, WorkerLimits
from tests.support.contents import (
    MemoryContent,
    RepeatedContent,
    list_of_lists,
    slow_nodes,
    wait_until_ended,
    with_section,
)
from tests.support.instance_calls import manifest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and RLIMIT_AS")
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs signals")
GOOD = MemoryContent(manifest())
MOVED = MemoryContent(manifest(schema="dev"))


@dataclass(frozen=True)
class ObservedContent:
    """Content that calls a function before its last byte is read."""

    content: bytes
    observe: Callable[[], object]

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        yield self.content[:-1]
        self.observe()
        yield self.content[-1:]


@contextmanager
def running_worker(limits: WorkerLimits | None = None) -> Iterator[VerificationWorker]:
    worker = VerificationWorker(limits or WorkerLimits())
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


@pytest.fixture
def worker() -> Iterator[VerificationWorker]:
    with running_worker() as running:
        yield running


def verify(worker: VerificationWorker, content: bytes) -> Verification:
    return worker.verify(Kind.MANIFEST, MemoryContent(content), GOOD)


def process_id(worker: VerificationWorker) -> int:
    current_id = worker.process_id
    assert current_id is not None
    return current_id


def assert_works(worker: VerificationWorker) -> None:
    """Check that the next upload is verified."""
    verification = worker.verify(Kind.MANIFEST, GOOD, MOVED)
    assert verification.problem is None
    assert verification.relations is not None
    assert verification.relations.moved == 2


def test_a_manifest_is_verified_and_compared(worker: VerificationWorker) -> None:
    before = process_id(worker)
    assert_works(worker)
    verification = worker.verify(Kind.MANIFEST, GOOD, None)
    assert (verification.changes, verification.relations) == (None, None)
    assert verification.metadata is not None
    assert verification.metadata.model_count == 2
    assert process_id(worker) == before


def test_an_invalid_manifest_is_not_compared(worker: VerificationWorker) -> None:
    before = process_id(worker)
    verification = verify(worker, b"{}")
    assert verification.problem is not None
    assert verification.changes is None
    assert_works(worker)
    assert process_id(worker) == before


def test_threads_wait_for_each_other(worker: VerificationWorker) -> None:
    verifications: list[Verification] = []
    contents = [manifest(f"model_{number}") for number in range(16)]
    threads = [
        threading.Thread(
            target=lambda content=content: verifications.append(verify(worker, content))
        )
        for content in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {
        verification.changes.names["added"][0]
        for verification in verifications
        if verification.changes
    }
    assert names == {f"shop.model_{number}" for number in range(16)}


# Content that must not stop the instance, block it, or affect the next upload.
LISTS = list_of_lists(3_000_000)
HOSTILE = {
    "metadata of lists": with_section(manifest(), "metadata", LISTS),
    "metadata in an object": with_section(manifest(), "metadata", b'{"x": ' + LISTS + b"}"),
    "nodes of lists": with_section(manifest(), "nodes", LISTS),
    "tiny nodes": with_section(
        manifest(),
        "nodes",
        b"{" + b",".join(b'"model.a.%d":{}' % number for number in range(50_000)) + b"}",
    ),
    "long names": with_section(
        manifest(),
        "nodes",
        b'{"model.' + b"a" * 5_000_000 + b'": {"resource_type": "model"}}',
    ),
    "deep nesting": with_section(
        manifest(), "nodes", b'{"model.a.b": ' + b"[" * 500_000 + b"]" * 500_000 + b"}"
    ),
    "a number": with_section(manifest(), "nodes", b'{"model.a.b": ' + b"9" * 5_000_000 + b"}"),
    "many sections": b"{" + b",".join(b'"%d":0' % number for number in range(50_000)) + b"}",
    "a lone surrogate": with_section(manifest(), "nodes", b'{"\\ud800": {"name": "\\ud800"}}'),
    "not a number": with_section(manifest(), "nodes", b'{"model.a.b": NaN}'),
    "nothing": b"",
    "truncated": manifest()[:-100],
    "UTF-16": manifest().decode().encode("utf-16"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_rejected_and_the_next_upload_verified(
    worker: VerificationWorker, name: str
) -> None:
    verification = verify(worker, HOSTILE[name])
    assert verification.problem is not None
    assert len(verification.problem) <= 1000
    assert sum(map(len, verification.report)) <= 16_000
    assert_works(worker)


@pytest.mark.parametrize("text", [b" ", b'{"a": {}}'], ids=["spaces", "objects"])
def test_the_largest_upload_is_verified_within_the_memory(
    worker: VerificationWorker, text: bytes
) -> None:
    size = 512 * 1024 * 1024
    content = RepeatedContent(text * (2**20 // len(text)), size // 2**20)
    assert worker.verify(Kind.MANIFEST, content, GOOD).problem is not None
    assert_works(worker)


def test_a_large_node_is_accepted(worker: VerificationWorker) -> None:
    content = manifest(body="x" * 20_000_000)
    assert verify(worker, content).problem is None
    assert_works(worker)


@linux_only
def test_oversized_metadata_is_not_decoded() -> None:
    lists = list_of_lists(120_000_000)  # 2.9 GB when they are decoded
    with running_worker(WorkerLimits(memory_bytes=700_000_000)) as worker:
        content = with_section(manifest(), "metadata", b'{"x": ' + lists + b"}")
        assert verify(worker, content).problem == (
            "manifest.json::$.metadata: has 120,000,008 bytes; the limit is 65,536 bytes"
        )
        assert_works(worker)


@linux_only
def test_content_that_needs_too_much_memory_is_rejected() -> None:
    nodes = b'{"model.shop.a": {"resource_type": "model", "x": ' + list_of_lists(10_000_000) + b"}}"
    with running_worker(WorkerLimits(memory_bytes=300_000_000)) as worker:
        before = process_id(worker)
        verification = verify(worker, with_section(manifest(), "nodes", nodes))
        assert "over 1,000,000 values" in str(verification.problem)
        assert process_id(worker) == before  # it was rejected before it was decoded
        verification = worker.verify(Kind.MANIFEST, RepeatedContent(b" " * 2**20, 512), None)
        assert verification.problem == "verification needs more memory than the instance allows"
        assert_works(worker)


@linux_only
def test_a_comparison_that_needs_too_much_memory_does_not_reject_an_upload() -> None:
    nodes = b'{"model.shop.a": {"config": ' + list_of_lists(20_000_000) + b"}}"
    previous = MemoryContent(with_section(manifest(), "nodes", nodes))
    with running_worker(WorkerLimits(memory_bytes=300_000_000)) as worker:
        verification = worker.verify(Kind.MANIFEST, GOOD, previous)
        assert verification.problem is None
        assert verification.relations is None
        assert verification.report[-1] == (
            "not compared with the current manifest: "
            "verification needs more memory than the instance allows"
        )
        assert_works(worker)


def test_content_that_takes_too_long_is_rejected() -> None:
    slow = with_section(manifest(), "nodes", slow_nodes(900_000))
    with running_worker(WorkerLimits(seconds=0.2)) as worker:
        before = process_id(worker)
        assert verify(worker, slow).problem == "verification took longer than 0.2 s"
        assert process_id(worker) != before


def test_time_that_the_store_takes_does_not_count() -> None:
    waited = threading.Event()
    slow = ObservedContent(manifest(), lambda: waited.wait(6))
    with running_worker(WorkerLimits(seconds=5)) as worker:
        assert_works(worker)
        assert worker.verify(Kind.MANIFEST, slow, None).problem is None


@posix_only
def test_a_process_that_does_not_answer_is_replaced() -> None:
    with running_worker(WorkerLimits(seconds=5)) as worker:
        assert_works(worker)
        stop = ObservedContent(manifest(), lambda: os.kill(process_id(worker), signal.SIGSTOP))
        problem = worker.verify(Kind.MANIFEST, stop, None).problem
        assert problem == "verification took longer than 5 s"
        assert_works(worker)


def test_a_process_that_dies_is_replaced_and_the_job_repeated(worker: VerificationWorker) -> None:
    processes: list[int] = []

    def kill_the_first() -> None:
        processes.append(process_id(worker))
        if len(processes) == 1:
            os.kill(processes[0], signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

    verification = worker.verify(Kind.MANIFEST, ObservedContent(manifest(), kill_the_first), GOOD)
    assert verification.problem is None
    assert verification.changes is not None
    assert len(set(processes)) == 2


@posix_only
def test_an_upload_whose_process_always_dies_is_rejected(worker: VerificationWorker) -> None:
    dying = ObservedContent(manifest(), lambda: os.kill(process_id(worker), signal.SIGKILL))
    verification = worker.verify(Kind.MANIFEST, dying, GOOD)
    assert verification.problem == "the verification process ended unexpectedly (SIGKILL)"
    verification = worker.verify(Kind.MANIFEST, GOOD, dying)
    assert verification.problem is None
    assert verification.report[-1] == (
        "not compared with the current manifest: "
        "the verification process ended unexpectedly (SIGKILL)"
    )
    assert_works(worker)


@posix_only
def test_a_process_that_dies_between_uploads_is_replaced(worker: VerificationWorker) -> None:
    assert_works(worker)
    dead = process_id(worker)
    os.kill(dead, signal.SIGKILL)
    assert_works(worker)
    assert process_id(worker) != dead


def test_content_that_cannot_be_read_is_not_rejected(worker: VerificationWorker) -> None:
    def fail() -> None:
        raise Unavailable("the store is unreachable")

    before = process_id(worker)
    with pytest.raises(Unavailable, match="the store is unreachable"):
        worker.verify(Kind.MANIFEST, ObservedContent(manifest(), fail), GOOD)
    assert process_id(worker) != before
    assert_works(worker)


def test_a_current_manifest_that_cannot_be_read_can_be_replaced(worker: VerificationWorker) -> None:
    def fail() -> None:
        raise Unavailable("the store is unreachable")

    verification = worker.verify(Kind.MANIFEST, GOOD, ObservedContent(manifest(), fail))
    assert verification.problem is None
    assert verification.report[-1].endswith("current manifest: the store is unreachable")
    assert_works(worker)


@pytest.mark.parametrize("size", [len(manifest()) - 1, len(manifest()) + 1])
def test_content_of_another_size_is_not_rejected(worker: VerificationWorker, size: int) -> None:
    @dataclass(frozen=True)
    class WrongSize(MemoryContent):
        @property
        def size_bytes(self) -> int:
            return size

    if size > len(manifest()):
        with pytest.raises(Unavailable, match="incomplete"):
            worker.verify(Kind.MANIFEST, WrongSize(manifest()), None)
    else:
        assert worker.verify(Kind.MANIFEST, WrongSize(manifest()), None).problem is not None
    assert_works(worker)


def test_a_process_is_replaced_after_its_jobs() -> None:
    with running_worker(WorkerLimits(max_jobs=3)) as worker:
        processes = []
        for _ in range(7):
            processes.append(process_id(worker))
            assert_works(worker)
        assert [processes.count(each) for each in dict.fromkeys(processes)] == [3, 3, 1]


@linux_only
def test_a_process_that_used_much_memory_is_replaced() -> None:
    with running_worker(WorkerLimits(max_peak_bytes=200_000_000)) as worker:
        before = process_id(worker)
        assert_works(worker)
        assert process_id(worker) == before
        assert verify(worker, manifest(body="x" * 100_000_000)).problem is None
        assert process_id(worker) != before
        assert_works(worker)


def test_a_stopped_worker_is_unavailable(worker: VerificationWorker) -> None:
    worker.stop()
    with pytest.raises(Unavailable, match="the instance is stopping"):
        assert_works(worker)
    worker.stop()


def test_stopping_ends_a_running_verification(worker: VerificationWorker) -> None:
    stopping = threading.Thread(target=worker.stop)
    slow = ObservedContent(with_section(manifest(), "nodes", slow_nodes(2_000_000)), stopping.start)
    before = process_id(worker)
    with pytest.raises(Unavailable, match="the instance is stopping"):
        worker.verify(Kind.MANIFEST, slow, None)
    stopping.join()
    assert worker.process_id is None
    if sys.platform == "linux":
        assert wait_until_ended(before)


@posix_only
def test_signals_to_all_processes_do_not_end_the_verification_process(
    worker: VerificationWorker,
) -> None:
    assert_works(worker)
    before = process_id(worker)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(before, number)
    assert_works(worker)
    assert process_id(worker) == before


@linux_only
@pytest.mark.parametrize("moment", ["starting", "idle", "receiving", "busy"])
def test_the_process_ends_when_the_instance_is_killed(tmp_path: Path, moment: str) -> None:
    program = [sys.executable, "-m", "tests.support.worker_parent", moment]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert wait_until_ended(child)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_verifies_one_upload_per_worker_at_a_time() -> None:
    pool = VerificationPool(2, WorkerLimits())
    pool.start()
    meeting = threading.Barrier(2, timeout=60)
    contents = [ObservedContent(manifest(), meeting.wait) for _ in range(2)]
    try:
        with ThreadPoolExecutor(2) as threads:
            results = list(
                threads.map(lambda content: pool.verify(Kind.MANIFEST, content, None), contents)
            )
    finally:
        pool.stop()
    assert [result.problem for result in results] == [None, None]
