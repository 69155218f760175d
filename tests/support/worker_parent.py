"""A process with a verification worker, which prints the process ID of the worker.

python -m tests.support.worker_parent starting|idle|receiving|busy
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

from datapilot_defer.artifact import Kind
from datapilot_defer.instance.worker import VerificationWorker, WorkerLimits
from tests.support.contents import MemoryContent, slow_nodes, with_section
from tests.support.instance_calls import manifest


class EndlessContent:
    """Content whose storage stops responding after the first bytes."""

    size_bytes = 1_000_000

    def __init__(self, worker: VerificationWorker) -> None:
        self._worker = worker

    def chunks(self) -> Iterator[bytes]:
        yield b"{"
        print(self._worker.process_id, flush=True)
        time.sleep(600)


def main(moment: str) -> None:
    worker = VerificationWorker(WorkerLimits(seconds=600))
    worker.start()
    if moment != "starting":
        worker.verify(Kind.MANIFEST, MemoryContent(manifest()), None)
    if moment == "receiving":
        worker.verify(Kind.MANIFEST, EndlessContent(worker), None)
    if moment == "busy":
        slow = MemoryContent(with_section(manifest(), "nodes", slow_nodes(3_000_000)))
        arguments = (Kind.MANIFEST, slow, None)
        threading.Thread(target=worker.verify, args=arguments, daemon=True).start()
        time.sleep(2)
    print(worker.process_id, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1])
