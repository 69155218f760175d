"""Many concurrent connections that need few resources of a client.

    with Flood(server, HEADERS, 5000) as flood:
        ...
    print(flood.summary())

Runs in another process. A connection that the server closes is opened again.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field

from tests.support.server_process import REPOSITORY, ServerProcess

SILENT = "silent"
HEADERS = "headers"
BODY = "body"
CHUNKS = "chunks"
# The number of connections that the flooding client opens at the same time.
_OPENING = 100
_BYTE_INTERVAL_S = 1.0
_ONE_BYTE_CHUNKS = b"1\r\nx\r\n" * 40_000


@dataclass
class Flood:
    """Connections of one kind during a block. target: path and query of slow bodies."""

    server: ServerProcess
    kind: str
    connections: int
    target: str = "/dbt/v1/verify_upload"
    counts: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Flood:
        host, port = self.server.host_and_port
        arguments = [host, str(port), self.kind, str(self.connections), self.target]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.floods", *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        output = self._process.communicate()[0]
        self.counts = json.loads(output)

    def summary(self) -> str:
        """Return the numbers of opened, concurrent, closed and failed connections as text."""
        return ", ".join(f"{name} {count:,}" for name, count in self.counts.items())


class _Flooder:
    def __init__(self, host: str, port: int, kind: str, target: str) -> None:
        self._address = (host, port)
        self._kind = kind
        self._target = target
        self._opening = asyncio.Semaphore(_OPENING)
        self._open_count = 0
        self.counts: Counter[str] = Counter(opened=0, concurrent=0, closed=0, failed=0)

    async def run(self, connections: int, end: asyncio.Event) -> None:
        tasks = [asyncio.create_task(self._hold()) for _ in range(connections)]
        await end.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _hold(self) -> None:
        """Open a connection and open it again when the server closes it."""
        while True:
            try:
                async with self._opening, asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection(*self._address)
            except (OSError, TimeoutError):
                self.counts["failed"] += 1
                await asyncio.sleep(1)
                continue
            self.counts["opened"] += 1
            self._open_count += 1
            self.counts["concurrent"] = max(self.counts["concurrent"], self._open_count)
            try:
                await self._stay(reader, writer)
            except OSError:
                pass
            finally:
                self._open_count -= 1
                writer.close()
            self.counts["closed"] += 1
            await asyncio.sleep(0.5)

    async def _stay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send what this kind of flood sends until the server closes the connection."""
        writer.write(self._opening_bytes())
        while self._kind == CHUNKS:
            writer.write(_ONE_BYTE_CHUNKS)
            await writer.drain()
        while True:
            try:
                async with asyncio.timeout(_BYTE_INTERVAL_S):
                    answer = await reader.read(65536)
            except TimeoutError:
                if self._kind != SILENT:
                    writer.write(b"x")
                continue
            if not answer:
                return

    def _opening_bytes(self) -> bytes:
        host = f"Host: {self._address[0]}\r\n"
        if self._kind == HEADERS:
            return f"GET /health HTTP/1.1\r\n{host}X-Slow: ".encode()
        if self._kind == CHUNKS:
            return f"POST /nope HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n".encode()
        if self._kind == BODY:
            method = "PUT" if self._target.startswith("/files/") else "POST"
            length = "Content-Type: application/json\r\nContent-Length: 60000\r\n"
            return f"{method} {self._target} HTTP/1.1\r\n{host}{length}\r\n".encode()
        return b""


async def _flood(host: str, port: int, kind: str, connections: int, target: str) -> None:
    end = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(end.set)

    threading.Thread(target=wait_for_end, daemon=True).start()
    flooder = _Flooder(host, port, kind, target)
    await flooder.run(connections, end)
    print(json.dumps(flooder.counts))


def main(host: str, port: str, kind: str, connections: str, target: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_flood(host, int(port), kind, int(connections), target))


if __name__ == "__main__":
    main(*sys.argv[1:])
