"""`datapilot instance serve` in its own process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datapilot_defer.storage import open_storage
from tests.support.instances import RunningInstance

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Serving:
    """A running `serve`. first_line: the first line of its standard output."""

    process: subprocess.Popen[str]
    first_line: str

    @property
    def result(self) -> dict[str, Any]:
        """Return the object that --json prints."""
        result: dict[str, Any] = json.loads(self.first_line)
        return result

    def instance(self, data: Path, token: str, name: str = "main") -> RunningInstance:
        """Return the running instance as the user of a token."""
        with open_storage(data) as storage:
            return RunningInstance(self.result["url"], name, token, data, storage)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """End the process with a signal and return its exit code and remaining output."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        stdout = self.process.stdout.read()  # This includes buffered output.
        _, stderr = self.process.communicate(timeout=30)
        return self.process.returncode, stdout, stderr


@contextmanager
def serving(data: Path, *options: object, port: int = 0) -> Iterator[Serving]:
    """Serve a data directory until the block ends."""
    words = ["instance", "serve", "--data", str(data), "--port", str(port), *map(str, options)]
    with subprocess.Popen(
        [sys.executable, "-m", "datapilot_defer", *words],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            yield Serving(process, process.stdout.readline())
        finally:
            process.kill()
