"""Content of artifacts in memory, for tests of verification without an instance."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class MemoryContent:
    """Bytes in memory."""

    content: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.content), CHUNK_BYTES):
            yield self.content[start : start + CHUNK_BYTES]


@dataclass(frozen=True)
class SlowBody:
    """A request body with a Content-Length whose parts are sent when the test yields them."""

    size_bytes: int
    parts: Iterator[bytes]

    def __len__(self) -> int:
        return self.size_bytes

    def __iter__(self) -> Iterator[bytes]:
        return self.parts


@dataclass(frozen=True)
class RepeatedContent:
    """The same chunk many times, which needs the memory of one."""

    chunk: bytes
    count: int

    @property
    def size_bytes(self) -> int:
        return len(self.chunk) * self.count

    def chunks(self) -> Iterator[bytes]:
        return itertools.repeat(self.chunk, self.count)


def with_section(manifest: bytes, name: str, value: bytes) -> bytes:
    """Return a manifest in which a section has this JSON as its value."""
    sections: dict[str, Any] = json.loads(manifest)
    sections.pop(name, None)
    others = json.dumps(sections).encode().strip()[1:]
    return b"{" + json.dumps(name).encode() + b": " + value + b", " + others


def slow_nodes(count: int) -> bytes:
    """Return nodes whose validation takes about 60 µs each and needs little memory."""
    return (
        b"{"
        + b", ".join(itertools.repeat(b'"model.a.b": {"resource_type": "model"}', count))
        + b"}"
    )


def list_of_lists(size_bytes: int) -> bytes:
    """Return a list of empty lists, which needs 20 times its size in memory when decoded."""
    return b"[" + b",".join(itertools.repeat(b"[]", size_bytes // 3)) + b"]"


def wait_until_ended(process_id: int, seconds: float = 30) -> bool:
    """Return whether a process, not a child of this one, ends within some seconds. Linux only."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not is_running(process_id):
            return True
        time.sleep(0.02)
    return False


def is_running(process_id: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
